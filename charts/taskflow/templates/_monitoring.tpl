{{- /* Where the platforms are that the operator looks after. */}}
{{- define "taskflow.watched" -}}
namespaceSelector:
  {{- if .Values.watchNamespaces }}
  matchNames:
    {{- toYaml .Values.watchNamespaces | nindent 4 }}
  {{- else }}
  any: true
  {{- end }}
{{- end }}
