{{- define "macp-auth.volumeMounts" -}}
{{- if eq .Values.signer.type "jwk-file" }}
# The folder, not the one file: a file mounted by subPath would never change.
- name: keys
  mountPath: /etc/macp-auth/keys
  readOnly: true
{{- else if eq .Values.signer.type "vault-transit" }}
{{- with .Values.signer.vault }}
{{- if not (or .auth.file (eq .auth.method "cert")) }}
- name: vault-credential
  mountPath: /var/run/secrets/vault
  readOnly: true
{{- end }}
{{- if .clientCertSecret }}
- name: vault-client
  mountPath: /etc/macp-auth/vault-client
  readOnly: true
{{- end }}
{{- if .caConfigMap }}
- name: vault-ca
  mountPath: /etc/macp-auth/vault-ca
  readOnly: true
{{- end }}
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
    secretName: {{ .Values.signer.existingSecret | quote }}
    defaultMode: 0440
{{- else if eq .Values.signer.type "vault-transit" }}
{{- with .Values.signer.vault }}
{{- if not (or .auth.file (eq .auth.method "cert")) }}
- name: vault-credential
{{- if .auth.existingSecret }}
  secret:
    secretName: {{ .auth.existingSecret | quote }}
    defaultMode: 0440
{{- else }}
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken:
          audience: {{ .auth.audience | quote }}
          expirationSeconds: 600
          path: token
{{- end }}
{{- end }}
{{- with .clientCertSecret }}
- name: vault-client
  secret:
    secretName: {{ . | quote }}
    defaultMode: 0440
{{- end }}
{{- with .caConfigMap }}
- name: vault-ca
  configMap:
    name: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.callers }}
{{- if .existingSecret }}
- name: callers
  secret:
    secretName: {{ .existingSecret | quote }}
    defaultMode: 0440
{{- else if .existingConfigMap }}
- name: callers
  configMap:
    name: {{ .existingConfigMap | quote }}
    defaultMode: 0440
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
