{{/* Refuse variables in extraEnv that the chart sets, by the container's list as it was rendered (.env), or reads. */}}
{{- define "macp-auth.checkExtraEnv" -}}
{{- $root := .root -}}
{{- with include "macp-auth.duplicate" (list "name" $root.Values.extraEnv) -}}
{{- fail (printf "\n\nextraEnv has %s twice; remove one." .) -}}
{{- end -}}
{{- range $root.Values.extraEnv -}}
{{- if has .name (splitList " " (include "macp-auth.reserved" $root)) -}}
{{- fail (printf "\n\nextraEnv sets %s: use %s instead, which the rest of the chart follows." .name (include "macp-auth.valueOf" .name)) -}}
{{- end -}}
{{- end -}}
{{- with include "macp-auth.duplicate" (list "name" .env) -}}
{{- fail (printf "\n\nextraEnv sets %s, which the chart sets: use %s instead." . (include "macp-auth.valueOf" .)) -}}
{{- end -}}
{{- end -}}

{{/*
Refuse two entries with one key in a list of a rendered pod that Kubernetes merges by that key: server-side apply fails on
them, and a patch takes one for the other.
*/}}
{{- define "macp-auth.checkUnique" -}}
{{- $containers := concat .containers (default list .initContainers) -}}
{{- $lists := list
  (list "extraVolumes" "name" .volumes)
  (list "extraContainers or initContainers" "name" $containers)
  (list "hostAliases" "ip" .hostAliases)
  (list "topologySpreadConstraints" "topologyKey whenUnsatisfiable" .topologySpreadConstraints) -}}
{{- range $containers -}}
{{- $lists = concat $lists (list
  (list (printf "env of the container %s" .name) "name" .env)
  (list (ternary "extraVolumeMounts" (printf "volumeMounts of the container %s" .name) (eq .name "macp-auth")) "mountPath" .volumeMounts)
  (list (printf "ports of the container %s" .name) "containerPort protocol" .ports)) -}}
{{- end -}}
{{- include "macp-auth.checkLists" $lists -}}
{{- end -}}

{{/* As (list "the value to change" "the fields of the key" the-list) each. */}}
{{- define "macp-auth.checkLists" -}}
{{- range . -}}
{{- $value := first . -}}
{{- with include "macp-auth.duplicate" (rest .) -}}
{{- fail (printf "\n\nTwo entries, of which one may be the chart's own, have %q; change or remove it in %s." . $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The first key that two entries of a list have: (list "the fields of the key" the-list). */}}
{{- define "macp-auth.duplicate" -}}
{{- $fields := splitList " " (first .) -}}
{{- $seen := list -}}
{{- range $entry := last . -}}
{{- $key := list -}}
{{- range $fields -}}
{{- $key = append $key (get $entry . | default (ternary "TCP" "" (eq . "protocol"))) -}}
{{- end -}}
{{- $seen = append $seen (join " " $key) -}}
{{- end -}}
{{- range $index, $key := $seen -}}
{{- if has $key (slice $seen 0 $index) }}{{ $key }}{{ break }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* Variables that have no second source: the templates read their values, or the service refuses both. */}}
{{- define "macp-auth.reserved" -}}
MACP_AUTH_AUDIENCE MACP_AUTH_CALLERS_FILE MACP_AUTH_CALLERS_MODE MACP_AUTH_HOST MACP_AUTH_ISSUER MACP_AUTH_JWKS_HOST MACP_AUTH_JWKS_PORT MACP_AUTH_JWKS_TLS MACP_AUTH_METRICS_HOST MACP_AUTH_METRICS_PORT MACP_AUTH_TLS_CERT_FILE MACP_AUTH_TRACES MACP_AUTH_WORKERS
{{- if eq .Values.signer.type "vault-transit" }} MACP_AUTH_VAULT_TOKEN MACP_AUTH_VAULT_SECRET_ID VAULT_TOKEN{{ end -}}
{{- end -}}

{{/* The value that sets a variable. */}}
{{- define "macp-auth.valueOf" -}}
{{- $login := "signer.vault.auth.existingSecret or signer.vault.auth.file" -}}
{{- get (dict
  "PORT" "containerPort"
  "MACP_AUTH_CALLERS_FILE" "callers.existingSecret, callers.existingConfigMap or config.callersFile"
  "MACP_AUTH_JWKS_PORT" "jwksService.targetPort"
  "MACP_AUTH_METRICS_PORT" "metrics.enabled and metrics.port"
  "MACP_AUTH_SIGNER" "signer.type"
  "MACP_AUTH_SIGNING_ALG" "signer.algorithm"
  "MACP_AUTH_SIGNING_KEYS_FILE" "signer.existingSecret"
  "MACP_AUTH_SIGNING_KEY_JSON" "signer.existingSecret"
  "MACP_AUTH_SIGNING_KID" "signer.kid"
  "MACP_AUTH_VAULT_ADDR" "signer.vault.addr"
  "MACP_AUTH_VAULT_AUTH" "signer.vault.auth.method"
  "MACP_AUTH_VAULT_AUTH_MOUNT" "signer.vault.auth.mount"
  "MACP_AUTH_VAULT_CACERT" "signer.vault.caConfigMap"
  "MACP_AUTH_VAULT_CLIENT_CERT" "signer.vault.clientCertSecret"
  "MACP_AUTH_VAULT_CLIENT_KEY" "signer.vault.clientCertSecret"
  "MACP_AUTH_VAULT_JWT_FILE" $login
  "MACP_AUTH_VAULT_KEY" "signer.vault.key"
  "MACP_AUTH_VAULT_MOUNT" "signer.vault.mount"
  "MACP_AUTH_VAULT_NAMESPACE" "signer.vault.namespace"
  "MACP_AUTH_VAULT_ROLE" "signer.vault.auth.role"
  "MACP_AUTH_VAULT_ROLE_ID" "signer.vault.auth.roleId"
  "MACP_AUTH_VAULT_SECRET_ID" $login
  "MACP_AUTH_VAULT_SECRET_ID_FILE" $login
  "MACP_AUTH_VAULT_TOKEN" $login
  "MACP_AUTH_VAULT_TOKEN_FILE" $login
  "VAULT_TOKEN" $login
) . | default (printf "config.%s" (trimPrefix "MACP_AUTH_" . | lower | camelcase | untitle)) -}}
{{- end -}}
