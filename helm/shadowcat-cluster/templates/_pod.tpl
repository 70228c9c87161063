{{/* How long a pod may take to stop: what the program needs at most, and five seconds for the kubelet. */}}
{{- define "shadowcat-cluster.gracePeriod" -}}
{{- $timeout := required "config.drain_timeout: not set; it may be changed, not removed" (get .Values.config "drain_timeout") }}
{{- $drain := include "shadowcat-cluster.seconds" $timeout | int64 }}
{{- $grace := get .Values "terminationGracePeriodSeconds" }}
{{- if not $grace }}
{{- if include "shadowcat-cluster.hasEnv" (dict "root" . "name" "SHADOWCAT_DRAIN_TIMEOUT") }}
{{- fail "extraEnv: SHADOWCAT_DRAIN_TIMEOUT is not known to Kubernetes, which would kill pods before; set config.drain_timeout instead, or terminationGracePeriodSeconds, too" }}
{{- end }}
{{- add $drain 5 }}
{{- else if lt (int64 $grace) $drain }}
{{- fail (printf "terminationGracePeriodSeconds: %d is shorter than config.drain_timeout (%s): requests in flight would be killed" (int64 $grace) $timeout) }}
{{- else }}
{{- int64 $grace }}
{{- end }}
{{- end }}

{{/* What Go may use of the memory limit; nothing without a limit. */}}
{{- define "shadowcat-cluster.goMemLimit" -}}
{{- $limit := dig "limits" "memory" "" .Values.resources }}
{{- if and .Values.goMemLimit.enabled $limit }}
{{- div (mul (include "shadowcat-cluster.bytes" $limit | int64) (int64 .Values.goMemLimit.percent)) 100 }}
{{- end }}
{{- end }}

{{/* Fields of a pod that are passed on as they are. */}}
{{- define "shadowcat-cluster.podOptions" -}}
{{- range $field := list "imagePullSecrets" "priorityClassName" "runtimeClassName" "schedulerName" "nodeSelector" "tolerations" "dnsPolicy" "dnsConfig" "hostAliases" }}
{{- with get $.Values $field }}
{{ $field }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where replicas run: on different nodes and in different zones where there are enough, and anywhere rather than nowhere. A
constraint that must be met would hold up a rollout while a node is cordoned. Takes {root, selector}. */}}
{{- define "shadowcat-cluster.spread" -}}
affinity:
{{- $affinity := get .root.Values "affinity" }}
{{- if not (kindIs "map" $affinity) }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- .selector | nindent 14 }}
{{- else }}
  {{- toYaml $affinity | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- $constraints := get .root.Values "topologySpreadConstraints" }}
{{- $selector := .selector }}
{{- if not (kindIs "slice" $constraints) }}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    # Each version spreads by itself, so that a rollout leaves no gap behind.
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
{{- end }}
{{- else }}
  {{- toYaml $constraints | nindent 2 }}
{{- end }}
{{- end }}
