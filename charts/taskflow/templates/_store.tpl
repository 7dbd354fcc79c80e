{{- /* The volume of a development store; takes root and name. */}}
{{- define "taskflow.data" -}}
name: data
{{- if .root.Values.development.persistence.enabled }}
persistentVolumeClaim: {claimName: {{ .name }}}
{{- else }}
emptyDir: {}
{{- end }}
{{- end }}

{{- /* What stands beside a development store's Deployment; takes root, component, name, port. */}}
{{- define "taskflow.store" }}
---
apiVersion: v1
kind: Service
metadata:
  {{- include "taskflow.metadata" . | nindent 2 }}
spec:
  selector:
    {{- include "taskflow.selector" . | nindent 4 }}
  ports:
    - {name: {{ .component }}, port: {{ .port }}, targetPort: {{ .port }}, protocol: TCP}
{{- with .root.Values.development.persistence }}
{{- if .enabled }}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  {{- include "taskflow.metadata" $ | nindent 2 }}
  annotations:
    helm.sh/resource-policy: keep
spec:
  accessModes: [ReadWriteOnce]
  {{- with .storageClassName }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests: {storage: {{ .size }}}
{{- end }}
{{- end }}
{{- end }}
