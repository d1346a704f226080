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

{{/* Where the keys are; discovery only where the service answers it. */}}
{{- define "macp-auth.jwksPaths" -}}
/.well-known/jwks.json
{{- if hasPrefix "https://" (default "" .Values.config.issuer) }} /.well-known/openid-configuration
{{- end }}
{{- end -}}

{{/* How a Service can be reached, of `service` or `jwksService`. */}}
{{- define "macp-auth.serviceType" -}}
type: {{ .type }}
{{- with .loadBalancerClass }}
loadBalancerClass: {{ . | quote }}
{{- end }}
{{- with .loadBalancerSourceRanges }}
loadBalancerSourceRanges:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .externalTrafficPolicy }}
externalTrafficPolicy: {{ . }}
{{- end }}
{{- end -}}
