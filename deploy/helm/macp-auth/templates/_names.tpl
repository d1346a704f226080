{{- define "macp-auth.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* A release may have two subcharts of this chart, so one whose name is only a part of the release's name keeps both. */}}
{{- define "macp-auth.longname" -}}
{{- $name := include "macp-auth.name" . -}}
{{- $both := ternary (not (contains $name .Release.Name)) (ne $name .Release.Name) .Chart.IsRoot -}}
{{- default (ternary (printf "%s-%s" .Release.Name $name) .Release.Name $both) .Values.fullnameOverride -}}
{{- end -}}

{{/* Short enough for "-metrics" behind it. */}}
{{- define "macp-auth.fullname" -}}
{{- include "macp-auth.longname" . | trunc 55 | trimSuffix "-" -}}
{{- end -}}

{{- define "macp-auth.selectorLabels" -}}
app.kubernetes.io/name: {{ include "macp-auth.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* A user's common labels, and those of the chart, which nobody can replace. */}}
{{- define "macp-auth.labels" -}}
{{- with omit .Values.commonLabels "helm.sh/chart" "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" }}
{{- toYaml . }}
{{ end -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{ include "macp-auth.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end -}}

{{/* Of the pod of a test: no Service selects it. */}}
{{- define "macp-auth.testLabels" -}}
app.kubernetes.io/name: {{ include "macp-auth.name" . | trunc 58 | printf "%s-test" | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "macp-auth.serviceAccountName" -}}
{{- default (ternary (include "macp-auth.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "macp-auth.image" -}}
{{- with .Values.image -}}
{{- with default .registry $.Values.global.imageRegistry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end -}}
{{- end -}}
{{- end -}}

{{- define "macp-auth.imagePullSecrets" -}}
{{- $secrets := list -}}
{{- range concat (default list .Values.global.imagePullSecrets) .Values.imagePullSecrets -}}
{{- $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) -}}
{{- end -}}
{{- with uniq $secrets }}{{ toYaml . }}{{ end -}}
{{- end -}}
