{{/* The container's resources: memory that is "" follows the number of workers; a limit that kills them is refused. */}}
{{- define "macp-auth.resources" -}}
{{- $workers := default 1 .Values.config.workers | int -}}
{{- $least := add 1 $workers | mul 64 -}}
{{- if not (has .Values.signer.type (list "ephemeral" "env-jwk" "jwk-file" "vault-transit")) -}}
{{- $least = mul 96 $workers | add $least -}}{{/* the process of the plugin, in each worker */}}
{{- end -}}
{{- $resources := deepCopy (default dict .Values.resources) -}}
{{- $requests := default dict $resources.requests -}}
{{- $limits := default dict $resources.limits -}}
{{- range list $requests $limits -}}
{{- if kindIs "float64" .memory -}}{{- $_ := set . "memory" (int64 .memory) -}}{{- end -}}
{{- end -}}
{{- if and (hasKey $limits "memory") (eq (toString $limits.memory) "") -}}
{{- $_ := set $limits "memory" (printf "%dMi" (mul 2 $least)) -}}
{{- end -}}
{{- $limit := include "macp-auth.bytes" (dict "value" "resources.limits.memory" "quantity" $limits.memory) | int64 -}}
{{- if and (hasKey $requests "memory") (eq (toString $requests.memory) "") -}}
{{- $_ := set $requests "memory" (printf "%dMi" $least) -}}
{{- end -}}
{{- if and $limit (lt $limit (mul $least 1048576)) -}}
{{- fail (printf "\n\nconfig.workers %d needs %dMi of memory, and resources.limits.memory is %v, so the service would be killed under load. Raise resources.limits.memory, or lower config.workers." $workers $least $limits.memory) -}}
{{- end -}}
{{- $request := include "macp-auth.bytes" (dict "value" "resources.requests.memory" "quantity" $requests.memory) | int64 -}}
{{- if and $limit (gt $request $limit) -}}
{{- fail (printf "\n\nresources.requests.memory is %v, more than resources.limits.memory, which is %v; raise resources.limits.memory." $requests.memory $limits.memory) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* The bytes of a Kubernetes quantity; 0 for none. */}}
{{- define "macp-auth.bytes" -}}
{{- if not (kindIs "string" .quantity) -}}
{{- default 0 .quantity | int64 -}}
{{- else -}}
{{- $number := regexFind "^[0-9]+([.][0-9]+)?" .quantity -}}
{{- $units := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := trimPrefix $number .quantity -}}
{{- if or (not $number) (not (hasKey $units $unit)) -}}
{{- fail (printf "\n\n%s is %q, which is no amount of memory; write it as 256Mi, or with another of the units Ki, Gi, Ti, k, M, G and T." .value .quantity) -}}
{{- end -}}
{{- mulf $number (get $units $unit) | int64 -}}
{{- end -}}
{{- end -}}
