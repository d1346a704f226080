{{/* Not empty if there is a callers file. */}}
{{- define "macp-auth.hasCallersFile" -}}
{{- with .Values }}{{ or .callers.existingSecret .callers.existingConfigMap .config.callersFile | default "" }}{{ end -}}
{{- end -}}

{{/* The port of callers in the pods. */}}
{{- define "macp-auth.mintPort" -}}
{{ default "http" .Values.service.targetPort | toJson }}
{{- end -}}

{{/* The port of verifiers in the pods: without one of their own, that of callers. */}}
{{- define "macp-auth.jwksPort" -}}
{{ ternary "\"jwks\"" (include "macp-auth.mintPort" .) (not (empty .Values.jwksService.targetPort)) }}
{{- end -}}

{{/* What callers speak. */}}
{{- define "macp-auth.scheme" -}}
{{ ternary "HTTPS" "HTTP" (not (empty .Values.config.tlsCertFile)) }}
{{- end -}}

{{- define "macp-auth.mintUrl" -}}
{{ include "macp-auth.scheme" . | lower }}://{{ include "macp-auth.fullname" . }}.{{ .Release.Namespace }}.svc:{{ .Values.service.port }}
{{- end -}}

{{- define "macp-auth.jwksServicePort" -}}
{{ default .Values.service.port .Values.jwksService.port }}
{{- end -}}

{{- define "macp-auth.jwksUrl" -}}
{{- if .Values.jwksService.enabled -}}
{{ include "macp-auth.jwksScheme" . | lower }}://{{ include "macp-auth.fullname" . }}-jwks.{{ .Release.Namespace }}.svc:{{ include "macp-auth.jwksServicePort" . }}
{{- else -}}
{{ include "macp-auth.mintUrl" . }}
{{- end -}}
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

{{/* What verifiers speak. */}}
{{- define "macp-auth.jwksScheme" -}}
{{- $plain := and .Values.jwksService.targetPort (eq (default "" .Values.config.jwksTls) "off") -}}
{{ ternary "HTTP" (include "macp-auth.scheme" .) (not (empty $plain)) }}
{{- end -}}

{{/* Not empty if only the pod itself reaches what listens on this address. */}}
{{- define "macp-auth.isLoopback" -}}
{{ regexMatch "^(localhost|127\\..*|::1)$" (default "127.0.0.1" .) | ternary "yes" "" }}
{{- end -}}

{{/* Where the kubelet asks: it is outside of the pod. */}}
{{- define "macp-auth.probed" -}}
{{- if include "macp-auth.isLoopback" .Values.config.host -}}
port: jwks, scheme: {{ include "macp-auth.jwksScheme" . }}
{{- else -}}
port: http, scheme: {{ include "macp-auth.scheme" . }}
{{- end -}}
{{- end -}}

{{/* Where a pod finds what it logs in to Vault with. */}}
{{- define "macp-auth.vaultCredentialFile" -}}
{{- with .Values.signer.vault.auth -}}
{{ .file | default (printf "/var/run/secrets/vault/%s" (ternary .existingSecretKey "token" (not (empty .existingSecret)))) }}
{{- end -}}
{{- end -}}

{{/* The addresses of a Service, in its spec. */}}
{{- define "macp-auth.ipFamilies" -}}
{{- with .Values.service.ipFamilyPolicy }}
  ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.service.ipFamilies }}
  ipFamilies: {{ toJson . }}
{{- end }}
{{- end -}}

{{/* How Prometheus reads a pod: (list $ a-monitor's-values). */}}
{{- define "macp-auth.scrape" -}}
{{- $monitor := last . -}}
port: metrics
interval: {{ $monitor.interval | quote }}
scrapeTimeout: {{ $monitor.scrapeTimeout | quote }}
relabelings: # the rules and the dashboard know the job by the name of the release's objects
  - targetLabel: job
    replacement: {{ include "macp-auth.fullname" (first .) | quote }}
  {{- with $monitor.relabelings }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $monitor.metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
The number of pods, or nothing, when the autoscaler decides. Without it the API server may set 1: Helm 3 removes what its last
manifest had, Helm 4 what it alone owns. So it is the present number, unless Helm 4 knows that it does not own it. There is
none without a cluster to look at (helm template, Argo CD): it would be set back at each synchronisation.
*/}}
{{- define "macp-auth.autoscaledReplicas" -}}
{{- $live := lookup "apps/v1" "Deployment" .Release.Namespace (include "macp-auth.fullname" .) -}}
{{- $free := "" -}}
{{- range dig "metadata" "managedFields" list $live -}}
{{- $fields := dig "fieldsV1" "f:spec" dict . -}}
{{- if and (eq .operation "Apply") (hasKey $fields "f:selector") (not (hasKey $fields "f:replicas")) -}}
{{- $free = hasPrefix "v3." $.Capabilities.HelmVersion.Version | ternary "" .manager -}}
{{- else if and (eq .operation "Update") (eq .manager $free) -}}
{{- $free = "" -}}{{/* Helm 3 was here since, and Helm 4 follows it */}}
{{- end -}}
{{- end -}}
{{- if and (not $free) (or $live (lookup "apps/v1" "Deployment" .Release.Namespace "")) -}}
{{ max .Values.autoscaling.minReplicas (dig "spec" "replicas" 0 $live) }}
{{- end -}}
{{- end -}}
