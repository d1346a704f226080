{{/* Not empty if there is a callers file. */}}
{{- define "macp-auth.hasCallersFile" -}}
{{- with .Values }}{{ or .callers.existingSecret .callers.existingConfigMap .config.callersFile | default "" }}{{ end -}}
{{- end -}}

{{/* The name of the port of verifiers. */}}
{{- define "macp-auth.jwksPort" -}}
{{ ternary "jwks" "http" (not (empty .Values.jwksService.targetPort)) }}
{{- end -}}

{{/* What the probes speak. */}}
{{- define "macp-auth.scheme" -}}
{{ ternary "HTTPS" "HTTP" (not (empty .Values.config.tlsCertFile)) }}
{{- end -}}
