{{- define "taskflow.dns" -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end }}

{{- /* A rule for these TCP ports anywhere. */}}
{{- define "taskflow.ports" -}}
- ports:
  {{- range . }}
  - {port: {{ . }}, protocol: TCP}
  {{- end }}
{{- end }}

{{- /* Who may come in; nobody named means everybody. */}}
{{- define "taskflow.from" -}}
{{- with . -}}
from:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
