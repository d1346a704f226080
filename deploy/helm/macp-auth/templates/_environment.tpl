{{/* The environment, one list: the service's settings, the signer's, and what the user adds. */}}
{{- define "macp-auth.env" -}}
- name: PORT
  value: {{ .Values.containerPort | quote }}
- name: MACP_AUTH_SIGNER
  value: {{ .Values.signer.type | quote }}
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
  value: {{ .algorithm | quote }}
{{- end }}
{{- if eq .type "env-jwk" }}
- name: MACP_AUTH_SIGNING_KEY_JSON
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret | quote }}
      key: {{ .existingSecretKey | quote }}
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
  value: {{ .vault.auth.method }}
{{- with .vault.auth.mount }}
- name: MACP_AUTH_VAULT_AUTH_MOUNT
  value: {{ . | quote }}
{{- end }}
{{- if and .vault.auth.role (has .vault.auth.method (list "kubernetes" "jwt" "cert")) }}
- name: MACP_AUTH_VAULT_ROLE
  value: {{ .vault.auth.role | quote }}
{{- end }}
{{- if eq .vault.auth.method "approle" }}
- name: MACP_AUTH_VAULT_ROLE_ID
  value: {{ .vault.auth.roleId | quote }}
{{- end }}
{{- with get (dict "kubernetes" "JWT" "jwt" "JWT" "approle" "SECRET_ID" "token" "TOKEN") .vault.auth.method }}
- name: MACP_AUTH_VAULT_{{ . }}_FILE
  value: {{ include "macp-auth.vaultCredentialFile" $ | quote }}
{{- end }}
{{- if .vault.clientCertSecret }}
- name: MACP_AUTH_VAULT_CLIENT_CERT
  value: /etc/macp-auth/vault-client/tls.crt
- name: MACP_AUTH_VAULT_CLIENT_KEY
  value: /etc/macp-auth/vault-client/tls.key
{{- end }}
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
