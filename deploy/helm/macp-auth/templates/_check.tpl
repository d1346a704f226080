{{/* Refuse what the schema can't see: values that contradict each other. */}}
{{- define "macp-auth.check" -}}
{{- include "macp-auth.checkNames" . -}}
{{- include "macp-auth.checkSigner" . -}}
{{- include "macp-auth.checkAddresses" . -}}
{{- include "macp-auth.checkCallers" . -}}
{{- include "macp-auth.checkPods" . -}}
{{- include "macp-auth.checkServices" . -}}
{{- include "macp-auth.checkPublished" . -}}
{{- include "macp-auth.checkPorts" . -}}
{{- include "macp-auth.checkMetrics" . -}}
{{- end -}}

{{- define "macp-auth.checkNames" -}}
{{- if not .Values.image.repository -}}
{{- fail "\n\nimage.repository is empty, and no image is published. Build one with deploy/docker/Dockerfile, push it to your registry, and set image.repository to its name there, for example registry.example.com/macp-auth." -}}
{{- end -}}
{{- $fullname := include "macp-auth.fullname" . -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $fullname) -}}
{{- fail (printf "\n\nThe objects would be named %q. The name of a Service starts with a letter, and has only lower-case letters, digits and hyphens. Set fullnameOverride to such a name, or choose another release name." $fullname) -}}
{{- end -}}
{{- if and (not .Chart.IsRoot) (gt (len (include "macp-auth.longname" .)) 55) -}}
{{- fail (printf "\n\nThe objects would be named %q, which is longer than 55 characters. Cut to that, it may be the name of another subchart of this release. Set fullnameOverride to a shorter one." (include "macp-auth.longname" .)) -}}
{{- end -}}
{{- end -}}

{{- define "macp-auth.checkSigner" -}}
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
{{- if eq $type "vault-transit" -}}
{{- include "macp-auth.checkVault" . -}}
{{- end -}}
{{- end -}}

{{- define "macp-auth.checkAddresses" -}}
{{- if include "macp-auth.isLoopback" .Values.config.host -}}
{{- if or (not .Values.jwksService.targetPort) (include "macp-auth.isLoopback" .Values.config.jwksHost) -}}
{{- fail "\n\nconfig.host is only reached from within the pod, so the kubelet's probes are refused: set it to \"::\", or set jwksService.targetPort, and config.jwksHost to \"::\", where they ask then." -}}
{{- end -}}
{{- if not .Values.service.targetPort -}}
{{- fail "\n\nconfig.host is only reached from within the pod, and so leaves callers no way in: set it to \"::\", or set service.targetPort to the port of a proxy in the pod." -}}
{{- end -}}
{{- if eq (int .Values.service.port) (int .Values.containerPort) -}}
{{- fail (printf "\n\ncontainerPort is service.port, %d, and config.host is only reached from within the pod: the service would refuse each request with the Host of the Service, as DNS rebinding. Set containerPort to another port, for example 3202." (int .Values.service.port)) -}}
{{- end -}}
{{- end -}}
{{- with .Values.jwksService.targetPort -}}
{{- if include "macp-auth.isLoopback" (default $.Values.config.host $.Values.config.jwksHost) -}}
{{- fail "\n\nconfig.jwksHost is only reached from within the pod, so jwksService leads nowhere: set it to \"::\"." -}}
{{- end -}}
{{- end -}}
{{- if and .Values.metrics.enabled (include "macp-auth.isLoopback" (default .Values.config.host .Values.config.metricsHost)) -}}
{{- fail "\n\nconfig.metricsHost is only reached from within the pod, so no metrics can be scraped: set it to \"::\"." -}}
{{- end -}}
{{- end -}}

{{- define "macp-auth.checkCallers" -}}
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
{{- end -}}

{{- define "macp-auth.checkPods" -}}
{{- if and .Values.autoscaling.enabled (lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas)) -}}
{{- fail "\n\nautoscaling.maxReplicas is less than autoscaling.minReplicas; raise one or lower the other." -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (not (dig "requests" "cpu" "" (default dict .Values.resources))) -}}
{{- fail "\n\nautoscaling.enabled needs resources.requests.cpu: the autoscaler aims at a percentage of it, and would never act." -}}
{{- end -}}
{{- with .Values.podDisruptionBudget -}}
{{- if and .maxUnavailable .minAvailable -}}
{{- fail "\n\npodDisruptionBudget.maxUnavailable and podDisruptionBudget.minAvailable are both set, and a budget has one; set one of them to null." -}}
{{- end -}}
{{- $least := ternary $.Values.autoscaling.minReplicas $.Values.replicaCount $.Values.autoscaling.enabled | int -}}
{{- $needed := .minAvailable | default 0 -}}
{{- if kindIs "string" $needed -}}
{{- $needed = mulf $least (trimSuffix "%" $needed) 0.01 | ceil -}}
{{- end -}}
{{- if and .enabled $needed (ge (int $needed) $least) -}}
{{- fail (printf "\n\npodDisruptionBudget.minAvailable is %v, and there may be no more than %d pods: a node could never be drained. Set it to less, or podDisruptionBudget.enabled to false." .minAvailable $least) -}}
{{- end -}}
{{- end -}}
{{- $deadline := default 600 .Values.progressDeadlineSeconds | int -}}
{{- if ge (default 0 .Values.minReadySeconds | int) $deadline -}}
{{- fail (printf "\n\nminReadySeconds must be less than progressDeadlineSeconds, which is %d: an update would always fail. Lower one or raise the other." $deadline) -}}
{{- end -}}
{{- if and (eq .Values.dnsPolicy "None") (not .Values.dnsConfig.nameservers) -}}
{{- fail "\n\ndnsPolicy None needs dnsConfig.nameservers: the pods would have no DNS server." -}}
{{- end -}}
{{- if lt (int .Values.terminationGracePeriodSeconds) (add .Values.preStopSleepSeconds 10 | int) -}}
{{- fail "\n\nterminationGracePeriodSeconds must be 10 or more above preStopSleepSeconds: the service may take 10 s to finish its requests, and would be killed." -}}
{{- end -}}
{{- end -}}

{{- define "macp-auth.checkServices" -}}
{{- if and .Values.service.ipFamilyPolicy (eq .Values.service.ipFamilyPolicy "SingleStack") (gt (len (default list .Values.service.ipFamilies)) 1) -}}
{{- fail "\n\nservice.ipFamilyPolicy SingleStack allows one of service.ipFamilies: remove the other one, or set service.ipFamilyPolicy to RequireDualStack." -}}
{{- end -}}
{{- range $name := list "service" "jwksService" -}}
{{- $service := get $.Values $name -}}
{{- if ne $service.type "LoadBalancer" -}}
{{- range list "loadBalancerClass" "loadBalancerSourceRanges" -}}
{{- if get $service . -}}
{{- fail (printf "\n\n%s.%s is for the type LoadBalancer, and %s.type is %s; change the type or clear the value." $name . $name $service.type) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq $service.type "ClusterIP" -}}
{{- range list "nodePort" "externalTrafficPolicy" -}}
{{- if get $service . -}}
{{- fail (printf "\n\n%s.%s is for the types NodePort and LoadBalancer, and %s.type is ClusterIP; change the type or clear the value." $name . $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.jwksService.enabled (ne .Values.jwksService.type "ClusterIP") (not .Values.jwksService.targetPort) -}}
{{- fail (printf "\n\njwksService.type %s needs jwksService.targetPort, for example 3201: a port for the keys only. Otherwise, tokens could be minted through this Service, too; if that is meant, use service.type." .Values.jwksService.type) -}}
{{- end -}}
{{- end -}}

{{- define "macp-auth.checkPublished" -}}
{{- range list "ingress" "httpRoute" "route" -}}
{{- if and (get $.Values .).enabled (not $.Values.jwksService.enabled) -}}
{{- fail (printf "\n\n%s.enabled needs jwksService.enabled: it leads to that Service." .) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "\n\ningress.enabled needs ingress.hosts: the names at which verifiers fetch the keys, as [auth.example.com]." -}}
{{- end -}}
{{- if and .Values.route.enabled (not .Values.route.host) (contains " " (include "macp-auth.jwksPaths" .)) -}}
{{- fail "\n\nroute.enabled with an https issuer needs route.host: the router would give the keys and the discovery document a host each. Set it to the host of config.issuer." -}}
{{- end -}}
{{- if eq (get .Values.route.tls "termination" | default "") "passthrough" -}}
{{- fail "\n\nroute.tls.termination passthrough has no paths, and would publish /tokens: leave it out, or set it to edge or reencrypt." -}}
{{- end -}}
{{- if get .Values.route.tls "key" -}}
{{- fail "\n\nroute.tls.key would be stored by Helm: set route.tls.externalCertificate to {name: SECRET} instead." -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "\n\nhttpRoute.enabled needs httpRoute.parentRefs: the Gateways that serve it, as [{name: public, namespace: gateways}]." -}}
{{- end -}}
{{- range list "ingress" "httpRoute" "route" -}}
{{- if and (get $.Values .).enabled (not $.Values.jwksService.targetPort) -}}
{{- fail (printf "\n\n%s.enabled needs jwksService.targetPort, for example 3201: a port for the keys only. Otherwise, the controller's pods must reach the port where tokens are minted, and so could everyone who may route something through them." .) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "macp-auth.checkPorts" -}}
{{- with .Values.jwksService.targetPort -}}
{{- if not $.Values.jwksService.enabled -}}
{{- fail "\n\njwksService.targetPort needs jwksService.enabled: no Service would lead to that port." -}}
{{- end -}}
{{- if or (eq (int .) (int $.Values.containerPort)) (eq (toString .) (toString $.Values.service.targetPort)) (and $.Values.metrics.enabled (eq (int .) (int $.Values.metrics.port))) -}}
{{- fail (printf "\n\njwksService.targetPort is %d, where the service listens for callers (containerPort) or metrics (metrics.port), or a proxy (service.targetPort); choose another." (int .)) -}}
{{- end -}}
{{- end -}}
{{- if eq (int .Values.metrics.port) (int .Values.containerPort) -}}
{{- fail "\n\nmetrics.port is containerPort, where the service listens; choose another." -}}
{{- end -}}
{{- end -}}

{{- define "macp-auth.checkMetrics" -}}
{{- range list "serviceMonitor" "podMonitor" "grafanaDashboard" -}}
{{- if and (get $.Values.metrics .).enabled (not $.Values.metrics.enabled) -}}
{{- fail (printf "\n\nmetrics.%s.enabled needs metrics.enabled: there would be nothing to scrape." .) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled -}}
{{- fail "\n\nmetrics.serviceMonitor.enabled and metrics.podMonitor.enabled are both true: each pod would be scraped twice. Set one of them to false." -}}
{{- end -}}
{{- if and .Values.metrics.prometheusRule.enabled (not .Values.metrics.enabled) -}}
{{- fail "\n\nmetrics.prometheusRule.enabled needs metrics.enabled: an alert would say for ever that there are none." -}}
{{- end -}}
{{- end -}}

{{- define "macp-auth.checkVault" -}}
{{- $extra := list -}}
{{- range .Values.extraEnv }}{{ $extra = append $extra .name }}{{ end -}}
{{- with .Values.signer.vault -}}
{{- $method := .auth.method -}}
{{- if and (has $method (list "approle" "token")) (not (or .auth.existingSecret .auth.file)) -}}
{{- fail (printf "\n\nsigner.vault.auth.method %s needs signer.vault.auth.existingSecret: the name of a Secret with the %s under %q; or signer.vault.auth.file. The chart takes none as a value, because Helm would store it." $method (ternary "secret id" "token" (eq $method "approle")) .auth.existingSecretKey) -}}
{{- end -}}
{{- if and .auth.existingSecret .auth.file -}}
{{- fail "\n\nsigner.vault.auth.existingSecret and signer.vault.auth.file are both set; clear one of them." -}}
{{- end -}}
{{- if and (eq $method "approle") (not .auth.roleId) -}}
{{- fail "\n\nsigner.vault.auth.method approle needs signer.vault.auth.roleId: what vault read auth/approle/role/NAME/role-id shows." -}}
{{- end -}}
{{- if and (has $method (list "kubernetes" "jwt")) (not .auth.role) -}}
{{- fail (printf "\n\nsigner.vault.auth.method %s needs signer.vault.auth.role: the role to log in to." $method) -}}
{{- end -}}
{{- if and (eq $method "cert") (not .clientCertSecret) (not (has "MACP_AUTH_VAULT_CLIENT_CERT" $extra)) -}}
{{- fail "\n\nsigner.vault.auth.method cert needs signer.vault.clientCertSecret: the name of a Secret of type kubernetes.io/tls; or MACP_AUTH_VAULT_CLIENT_CERT and MACP_AUTH_VAULT_CLIENT_KEY in extraEnv, as paths." -}}
{{- end -}}
{{- if and (eq $method "cert") (not (hasPrefix "https://" .addr)) -}}
{{- fail "\n\nsigner.vault.auth.method cert needs an https address in signer.vault.addr." -}}
{{- end -}}
{{- end -}}
{{- end -}}
