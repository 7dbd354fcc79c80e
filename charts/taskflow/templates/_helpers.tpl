{{- define "taskflow.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name }}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) }}
{{- .Values.fullnameOverride | default $full | replace "." "-" | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "taskflow.selector" -}}
app.kubernetes.io/name: {{ .root.Values.nameOverride | default .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- /* Labels of an object; takes root and component. */}}
{{- define "taskflow.labels" -}}
{{ include "taskflow.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: taskflow
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* metadata of a namespaced object; takes root, component, name. */}}
{{- define "taskflow.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "taskflow.labels" . | nindent 2 }}
{{- end }}

{{- /* Reference of an image; takes image and version. A digest alone needs no tag. */}}
{{- define "taskflow.image" -}}
{{- $tag := .image.tag | default (ternary .version "" (empty .image.digest)) -}}
{{ .image.repository }}{{ with $tag }}:{{ . }}{{ end }}{{ with .image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "taskflow.operatorAccount" -}}
{{- $own := .Values.operator.serviceAccount }}
{{- $own.name | default (ternary (printf "%s-operator" (include "taskflow.fullname" .)) "default" $own.create) }}
{{- end }}

{{- /* What every pod of the chart has; takes root, user, and token where one shall be mounted. */}}
{{- define "taskflow.pod" -}}
automountServiceAccountToken: {{ .token | default false }}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .user }}
  runAsGroup: {{ .user }}
  fsGroup: {{ .user }}
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "taskflow.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
terminationMessagePolicy: FallbackToLogsOnError
{{- end }}

{{- /* A token for the API server where none is mounted by itself, with the paths of the one that would be. */}}
{{- define "taskflow.token" -}}
name: token
projected:
  sources:
    - serviceAccountToken: {path: token, expirationSeconds: 3600}
    - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
    - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end }}

{{- /* Rules of the operator's roles, from the generated file; takes root and kind. */}}
{{- define "taskflow.rules" -}}
{{- $kind := .kind }}
{{- range .root.Files.Get "files/rbac.yaml" | splitList "\n---\n" }}
{{- $role := fromYaml . }}
{{- if eq $role.kind $kind }}{{ toYaml $role.rules }}{{ end }}
{{- end }}
{{- end }}
