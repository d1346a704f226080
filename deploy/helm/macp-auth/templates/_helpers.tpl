{{- define "macp-auth.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for "-metrics" behind it. */}}
{{- define "macp-auth.fullname" -}}
{{- $name := include "macp-auth.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 55 | trimSuffix "-" -}}
{{- end -}}

{{- define "macp-auth.selectorLabels" -}}
app.kubernetes.io/name: {{ include "macp-auth.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "macp-auth.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "macp-auth.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "macp-auth.serviceAccountName" -}}
{{- default (ternary (include "macp-auth.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "macp-auth.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* Refuse what the schema can't see: values that contradict each other. */}}
{{- define "macp-auth.check" -}}
{{- $type := .Values.signer.type -}}
{{- $pods := ternary .Values.autoscaling.maxReplicas .Values.replicaCount .Values.autoscaling.enabled | int -}}
{{- if and (eq $type "ephemeral") (gt $pods 1) -}}
{{- fail (printf "\n\nsigner.type ephemeral allows one replica, and the values ask for up to %d: each pod makes a key of its own, so a verifier that got its keys from one pod refuses the tokens of the others. Set replicaCount to 1 and autoscaling.enabled to false, or choose another signer.type: env-jwk, jwk-file, vault-transit or a plugin." $pods) -}}
{{- end -}}
{{- if and (has $type (list "env-jwk" "jwk-file")) (not .Values.signer.existingSecret) -}}
{{- fail (printf "\n\nsigner.type %s needs signer.existingSecret: the name of a Secret with the private keys under %q. The chart takes no keys as values, because Helm would store them." $type .Values.signer.existingSecretKey) -}}
{{- end -}}
{{- if and (eq $type "vault-transit") (not .Values.signer.vault.addr) -}}
{{- fail "\n\nsigner.type vault-transit needs signer.vault.addr: Vault's address, as https://vault.example:8200." -}}
{{- end -}}
{{- with .Values.callers -}}
{{- if and .existingSecret .existingConfigMap -}}
{{- fail "\n\ncallers.existingSecret and callers.existingConfigMap are both set; there is one callers file: clear one of them." -}}
{{- end -}}
{{- if and (or .existingSecret .existingConfigMap) $.Values.config.callersFile -}}
{{- fail "\n\nconfig.callersFile is set, and so is callers.existingSecret or callers.existingConfigMap, whose file the chart mounts; clear one of them." -}}
{{- end -}}
{{- end -}}
{{- if and (eq (default "" .Values.config.callersMode) "report") (not (include "macp-auth.hasCallersFile" .)) -}}
{{- fail "\n\nconfig.callersMode report needs a callers file: set callers.existingSecret, callers.existingConfigMap or config.callersFile." -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas)) -}}
{{- fail "\n\nautoscaling.maxReplicas is less than autoscaling.minReplicas; raise one or lower the other." -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (not (dig "requests" "cpu" "" (default dict .Values.resources))) -}}
{{- fail "\n\nautoscaling.enabled needs resources.requests.cpu: the autoscaler aims at a percentage of it, and would never act." -}}
{{- end -}}
{{- if lt (int .Values.terminationGracePeriodSeconds) (add .Values.preStopSleepSeconds 10 | int) -}}
{{- fail "\n\nterminationGracePeriodSeconds must be 10 or more above preStopSleepSeconds: the service may take 10 s to finish its requests, and would be killed." -}}
{{- end -}}
{{- with .Values.jwksService.targetPort -}}
{{- if not $.Values.jwksService.enabled -}}
{{- fail "\n\njwksService.targetPort needs jwksService.enabled: no Service would lead to that port." -}}
{{- end -}}
{{- if or (eq (int .) 3200) (and $.Values.metrics.enabled (eq (int .) (int $.Values.metrics.port))) -}}
{{- fail (printf "\n\njwksService.targetPort is %d, where the service listens for callers (3200) or metrics; choose another." (int .)) -}}
{{- end -}}
{{- end -}}
{{- if eq (int .Values.metrics.port) 3200 -}}
{{- fail "\n\nmetrics.port is 3200, where the service listens; choose another." -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.enabled) -}}
{{- fail "\n\nmetrics.serviceMonitor.enabled needs metrics.enabled: there would be nothing to scrape." -}}
{{- end -}}
{{- if and .Values.metrics.prometheusRule.enabled (not .Values.metrics.enabled) -}}
{{- fail "\n\nmetrics.prometheusRule.enabled needs metrics.enabled: an alert would say for ever that there are none." -}}
{{- end -}}
{{- end -}}

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

{{/* The environment, one list: the service's settings, the signer's, and what the user adds. */}}
{{- define "macp-auth.env" -}}
- name: PORT
  value: "3200"
- name: MACP_AUTH_HOST
  value: 0.0.0.0
- name: MACP_AUTH_SIGNER
  value: {{ .Values.signer.type }}
{{- range $name, $value := .Values.config }}
{{- if not (kindIs "invalid" $value) }}
- name: MACP_AUTH_{{ $name | snakecase | upper }}
  value: {{ toString (ternary $value (int64 $value) (kindIs "string" $value)) | quote }}
{{- end }}
{{- end }}
{{- if or .Values.callers.existingSecret .Values.callers.existingConfigMap }}
- name: MACP_AUTH_CALLERS_FILE
  value: /etc/macp-auth/callers/{{ .Values.callers.key }}
{{- end }}
{{- with .Values.jwksService.targetPort }}
- name: MACP_AUTH_JWKS_PORT
  value: {{ . | quote }}
{{- end }}
{{- if .Values.metrics.enabled }}
- name: MACP_AUTH_METRICS_PORT
  value: {{ .Values.metrics.port | quote }}
{{- end }}
{{- with .Values.signer }}
{{- if and .algorithm (has .type (list "ephemeral" "env-jwk")) }}
- name: MACP_AUTH_SIGNING_ALG
  value: {{ .algorithm }}
{{- end }}
{{- if eq .type "env-jwk" }}
- name: MACP_AUTH_SIGNING_KEY_JSON
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .existingSecretKey }}
{{- with .kid }}
- name: MACP_AUTH_SIGNING_KID
  value: {{ . | quote }}
{{- end }}
{{- else if eq .type "jwk-file" }}
- name: MACP_AUTH_SIGNING_KEYS_FILE
  value: /etc/macp-auth/keys/{{ .existingSecretKey }}
{{- else if eq .type "vault-transit" }}
- name: MACP_AUTH_VAULT_ADDR
  value: {{ .vault.addr | quote }}
- name: MACP_AUTH_VAULT_KEY
  value: {{ .vault.key | quote }}
- name: MACP_AUTH_VAULT_MOUNT
  value: {{ .vault.mount | quote }}
{{- with .vault.namespace }}
- name: MACP_AUTH_VAULT_NAMESPACE
  value: {{ . | quote }}
{{- end }}
- name: MACP_AUTH_VAULT_AUTH
  value: kubernetes
- name: MACP_AUTH_VAULT_AUTH_MOUNT
  value: {{ .vault.authMount | quote }}
- name: MACP_AUTH_VAULT_ROLE
  value: {{ .vault.role | quote }}
- name: MACP_AUTH_VAULT_JWT_FILE
  value: /var/run/secrets/vault/token
{{- if .vault.caConfigMap }}
- name: MACP_AUTH_VAULT_CACERT
  value: /etc/macp-auth/vault-ca/{{ .vault.caConfigMapKey }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "macp-auth.volumeMounts" -}}
{{- if eq .Values.signer.type "jwk-file" }}
# The folder, not the one file: a file mounted by subPath would never change.
- name: keys
  mountPath: /etc/macp-auth/keys
  readOnly: true
{{- else if eq .Values.signer.type "vault-transit" }}
- name: vault-token
  mountPath: /var/run/secrets/vault
  readOnly: true
{{- if .Values.signer.vault.caConfigMap }}
- name: vault-ca
  mountPath: /etc/macp-auth/vault-ca
  readOnly: true
{{- end }}
{{- end }}
{{- if or .Values.callers.existingSecret .Values.callers.existingConfigMap }}
- name: callers
  mountPath: /etc/macp-auth/callers
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "macp-auth.volumes" -}}
{{- if eq .Values.signer.type "jwk-file" }}
- name: keys
  secret:
    secretName: {{ .Values.signer.existingSecret }}
    defaultMode: 0440
{{- else if eq .Values.signer.type "vault-transit" }}
- name: vault-token
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken:
          audience: {{ .Values.signer.vault.audience | quote }}
          expirationSeconds: 600
          path: token
{{- with .Values.signer.vault.caConfigMap }}
- name: vault-ca
  configMap:
    name: {{ . }}
{{- end }}
{{- end }}
{{- with .Values.callers }}
{{- if .existingSecret }}
- name: callers
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
{{- else if .existingConfigMap }}
- name: callers
  configMap:
    name: {{ .existingConfigMap }}
    defaultMode: 0440
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
