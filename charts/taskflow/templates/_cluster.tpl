{{- define "taskflow.clusterName" -}}
{{- .Values.cluster.name | default (include "taskflow.fullname" .) }}
{{- end }}

{{- /* Whether the chart brings a store or keys itself; takes root and what: database, redis or auth. */}}
{{- define "taskflow.brings" -}}
{{- if and .root.Values.development.enabled (not (index .root.Values.cluster .what).existingSecret) }}yes{{ end }}
{{- end }}

{{- define "taskflow.secretName" -}}
{{- (index .root.Values.cluster .what).existingSecret | default (printf "%s-%s" (include "taskflow.fullname" .root) .what) }}
{{- end }}

{{- define "taskflow.secretKey" -}}
{{- $own := index .root.Values.cluster .what }}
{{- ternary $own.key "url" (not (empty $own.existingSecret)) }}
{{- end }}

{{- /* The first platform as JSON: what the chart's values say, and cluster.spec over it. */}}
{{- define "taskflow.cluster" -}}
{{- $image := .Values.image }}
{{- $tag := $image.tag | default (ternary .Chart.AppVersion "" (empty $image.digest)) }}
{{- $reference := dict "repository" $image.repository "pullPolicy" $image.pullPolicy }}
{{- with $tag }}{{ $_ := set $reference "tag" . }}{{ end }}
{{- with $image.digest }}{{ $_ := set $reference "digest" . }}{{ end }}
{{- $pull := list }}
{{- range .Values.imagePullSecrets }}{{ $pull = append $pull .name }}{{ end }}
{{- with $pull }}{{ $_ := set $reference "pullSecrets" . }}{{ end }}
{{- $spec := dict "image" $reference "api" (dict "pdb" (dict "enabled" true)) }}
{{- range tuple "database" "redis" }}
{{- $of := dict "root" $ "what" . }}
{{- $key := dict "name" (include "taskflow.secretName" $of) "key" (include "taskflow.secretKey" $of) }}
{{- $_ := set $spec . (dict "urlSecretRef" $key) }}
{{- end }}
{{- $keys := include "taskflow.secretName" (dict "root" . "what" "auth") }}
{{- $_ := set $spec "auth" (dict "secretRef" (dict "name" $keys)) }}
{{- $labels := include "taskflow.labels" (dict "root" . "component" "cluster") | fromYaml }}
{{- $metadata := dict "name" (include "taskflow.clusterName" .) "namespace" .Release.Namespace "labels" $labels }}
{{- with .Values.cluster.annotations }}{{ $_ := set $metadata "annotations" . }}{{ end }}
{{- dict "apiVersion" "taskflow.io/v1alpha1" "kind" "TaskFlowCluster" "metadata" $metadata
      "spec" (mergeOverwrite $spec (deepCopy .Values.cluster.spec)) | toPrettyJson }}
{{- end }}

{{- /* Hold a value against a node of the CRD's schema, a line for each mistake; takes path, value, schema. Rules over
several fields (CEL) are left to the API server. */}}
{{- define "taskflow.against" -}}
{{- $path := .path }}{{ $value := .value }}{{ $schema := .schema }}
{{- $kind := kindOf $value }}
{{- $numeric := has $kind (list "float64" "int64" "int") }}
{{- $type := get $schema "type" }}
{{- $kinds := dict "object" "map" "array" "slice" "string" "string" "boolean" "bool" }}
{{- $fits := eq $kind (get $kinds $type) }}
{{- if eq $type "integer" }}{{ $fits = and $numeric (eq (float64 $value) (floor $value)) }}{{ end }}
{{- if not $type }}{{ $fits = or $numeric (eq $kind "string") }}{{ end }}
{{- if not $fits }}
{{ $path }}: must be {{ $type | default "a number or a string" }}, got {{ $value | toJson | trunc 40 }}
{{- else if eq $kind "map" }}
{{- $known := get $schema "properties" | default dict }}
{{- $open := or (get $schema "x-kubernetes-preserve-unknown-fields") (hasKey $schema "additionalProperties") }}
{{- range $key, $child := $value }}
{{- if hasKey $known $key }}
{{- include "taskflow.against" (dict "path" (printf "%s.%s" $path $key) "value" $child "schema" (get $known $key)) }}
{{- else if kindIs "map" (get $schema "additionalProperties") }}
{{- include "taskflow.against" (dict "path" (printf "%s.%s" $path $key) "value" $child "schema" $schema.additionalProperties) }}
{{- else if not $open }}
{{ $path }}.{{ $key }}: there is no such field, there are {{ keys $known | sortAlpha | join ", " }}
{{- end }}
{{- end }}
{{- range get $schema "required" | default list }}
{{- if not (hasKey $value .) }}
{{ $path }}.{{ . }}: is missing
{{- end }}
{{- end }}
{{- else if eq $kind "slice" }}
{{- range $index, $child := $value }}
{{- include "taskflow.against" (dict "path" (printf "%s[%d]" $path $index) "value" $child "schema" $schema.items) }}
{{- end }}
{{- with get $schema "maxItems" }}{{ if gt (len $value) (int .) }}
{{ $path }}: at most {{ . }} items
{{- end }}{{ end }}
{{- else }}
{{- include "taskflow.scalarAgainst" . }}
{{- end }}
{{- end }}

{{- define "taskflow.scalarAgainst" -}}
{{- $path := .path }}{{ $value := .value }}{{ $schema := .schema }}
{{- if and (hasKey $schema "minimum") (lt (float64 $value) (float64 $schema.minimum)) }}
{{ $path }}: must be at least {{ int64 $schema.minimum }}, got {{ $value }}
{{- end }}
{{- if and (hasKey $schema "maximum") (gt (float64 $value) (float64 $schema.maximum)) }}
{{ $path }}: must be at most {{ int64 $schema.maximum }}, got {{ $value }}
{{- end }}
{{- if and (hasKey $schema "enum") (not (has $value $schema.enum)) }}
{{ $path }}: must be one of {{ join ", " $schema.enum }}, got {{ $value }}
{{- end }}
{{- if and (hasKey $schema "pattern") (not (regexMatch $schema.pattern (toString $value))) }}
{{ $path }}: must match {{ $schema.pattern }}, got {{ $value | toString | trunc 40 | quote }}
{{- end }}
{{- end }}
