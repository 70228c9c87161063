{{/* A text as a part of a URL. */}}
{{- define "shadowcat-cluster.urlPart" -}}
{{ urlquery . | replace "+" "%20" }}
{{- end }}

{{/* Fails where something is set that would not be used: whoever names an authority expects TLS. Takes the values of the external Redis. */}}
{{- define "shadowcat-cluster.checkExternal" -}}
{{- $external := . }}
{{- if ne .topology "sentinel" }}
{{- range list "username" "password" "existingSecret" }}
{{- if get $external.sentinel . }}{{ fail (printf "redis.external.sentinel.%s: is set, and redis.external.topology is %s" . $external.topology) }}{{ end }}
{{- end }}
{{- end }}
{{- if not .tls.enabled }}
{{- range list "ca" "existingCASecret" "existingCAConfigMap" "certificate" "key" "existingSecret" }}
{{- if get $external.tls . }}{{ fail (printf "redis.external.tls.%s: is set, and redis.external.tls.enabled is false: nothing would be encrypted" .) }}{{ end }}
{{- end }}
{{- else if and .tls.key (not .tls.certificate) }}
{{- fail "redis.external.tls.key: is set, and redis.external.tls.certificate is not" }}
{{- end }}
{{- end }}

{{/* The lines of the configuration file that say where Redis is. Passwords are in files, never in the URL. */}}
{{- define "shadowcat-cluster.redisSettings" -}}
{{- $external := .Values.redis.external }}
{{- if .Values.redis.bundled.enabled }}
{{- if $external.addresses }}
{{- fail "redis.bundled.enabled: is true, and redis.external.addresses is set; choose one" }}
{{- end }}
redis: "redis://shadowcat@{{ include "shadowcat-cluster.redisName" . }}.{{ .Release.Namespace }}.svc:6379"
redis_password_file: /etc/shadowcat/credentials/redis-password
{{- else if $external.addresses }}
{{- include "shadowcat-cluster.checkExternal" $external }}
redis: {{ include "shadowcat-cluster.redisURL" $external | toJson }}
{{- if or $external.password $external.existingSecret }}
redis_password_file: /etc/shadowcat/credentials/redis-password
{{- end }}
{{- if or $external.sentinel.password $external.sentinel.existingSecret }}
redis_sentinel_password_file: /etc/shadowcat/credentials/sentinel-password
{{- end }}
{{- with $external.tls }}
{{- if and .enabled (or .ca .existingCASecret .existingCAConfigMap) }}
redis_ca_file: /etc/shadowcat/credentials/redis-ca.crt
{{- end }}
{{- if and .enabled (or .certificate .existingSecret) }}
redis_cert_file: /etc/shadowcat/credentials/redis-tls.crt
redis_key_file: /etc/shadowcat/credentials/redis-tls.key
{{- end }}
{{- end }}
{{- else if not (include "shadowcat-cluster.hasEnv" (dict "root" . "name" "SHADOWCAT_REDIS")) }}
{{- fail "redis: not set; name your Redis, such as --set redis.external.addresses={redis.default.svc:6379}, or try it out with --set redis.bundled.enabled=true" }}
{{- end }}
{{- end }}

{{/* The URL of an external Redis. */}}
{{- define "shadowcat-cluster.redisURL" -}}
{{- $scheme := ternary "rediss" "redis" .tls.enabled }}
{{- if ne .topology "standalone" }}{{ $scheme = printf "%s-%s" $scheme .topology }}{{ end }}
{{- $user := "" }}
{{- with .username }}{{ $user = printf "%s@" (include "shadowcat-cluster.urlPart" .) }}{{ end }}
{{- $scheme }}://{{ $user }}{{ join "," .addresses }}
{{- if eq .topology "sentinel" }}/{{ required "redis.external.masterName: not set; it is what the sentinels call the master" .masterName }}
{{- end }}
{{- $query := list }}
{{- if .database }}
{{- if eq .topology "standalone" }}/{{ int64 .database }}
{{- else if eq .topology "sentinel" }}{{ $query = append $query (printf "db=%d" (int64 .database)) }}
{{- else }}{{ fail "redis.external.database: a Redis Cluster has no databases; leave it at 0" }}
{{- end }}
{{- end }}
{{- if and .sentinel.username (eq .topology "sentinel") }}
{{- $query = append $query (printf "sentinel_username=%s" (include "shadowcat-cluster.urlPart" .sentinel.username)) }}
{{- end }}
{{- with $query }}?{{ join "&" . }}{{ end }}
{{- end }}

{{/* What the pods of the program find at /etc/shadowcat/credentials: sources of a projected volume. */}}
{{- define "shadowcat-cluster.credentials" -}}
{{- $own := include "shadowcat-cluster.fullname" . }}
{{- if .Values.redis.bundled.enabled }}
- secret:
    name: {{ default (include "shadowcat-cluster.redisName" .) .Values.redis.bundled.existingSecret }}
    items:
      - { key: redis-password, path: redis-password }
{{- else }}
{{- with .Values.redis.external }}
{{- if or .existingSecret .password }}
- secret:
    name: {{ default $own .existingSecret }}
    items:
      - { key: {{ ternary .existingSecretKey "redis-password" (not (empty .existingSecret)) }}, path: redis-password }
{{- end }}
{{- if or .sentinel.existingSecret .sentinel.password }}
- secret:
    name: {{ default $own .sentinel.existingSecret }}
    items:
      - { key: {{ ternary .sentinel.existingSecretKey "sentinel-password" (not (empty .sentinel.existingSecret)) }}, path: sentinel-password }
{{- end }}
{{- if .tls.enabled }}
{{- if .tls.existingCAConfigMap }}
- configMap:
    name: {{ .tls.existingCAConfigMap }}
    items:
      - { key: {{ .tls.existingCAKey }}, path: redis-ca.crt }
{{- else if or .tls.existingCASecret .tls.ca }}
- secret:
    name: {{ default $own .tls.existingCASecret }}
    items:
      - { key: {{ ternary .tls.existingCAKey "redis-ca.crt" (not (empty .tls.existingCASecret)) }}, path: redis-ca.crt }
{{- end }}
{{- if or .tls.existingSecret .tls.certificate }}
- secret:
    name: {{ default $own .tls.existingSecret }}
    items:
      - { key: {{ ternary "tls.crt" "redis-tls.crt" (not (empty .tls.existingSecret)) }}, path: redis-tls.crt }
      - { key: {{ ternary "tls.key" "redis-tls.key" (not (empty .tls.existingSecret)) }}, path: redis-tls.key }
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if eq (get .Values.config.auth "upstream_token" | toString) "replace" }}
{{- with .Values.upstreamToken }}
{{- if not (or .existingSecret .token) }}
{{- fail "upstreamToken: not set; config.auth.upstream_token replace needs upstreamToken.existingSecret" }}
{{- end }}
- secret:
    name: {{ default $own .existingSecret }}
    items:
      - { key: {{ ternary .existingSecretKey "upstream-token" (not (empty .existingSecret)) }}, path: upstream-token }
{{- end }}
{{- end }}
{{- end }}

{{/* The data of the Secret with those credentials that are among the values. */}}
{{- define "shadowcat-cluster.secretData" -}}
{{- if not .Values.redis.bundled.enabled }}
{{- with .Values.redis.external }}
{{- if and .password (not .existingSecret) }}
redis-password: {{ .password | b64enc }}
{{- end }}
{{- if and .sentinel.password (not .sentinel.existingSecret) }}
sentinel-password: {{ .sentinel.password | b64enc }}
{{- end }}
{{- if .tls.enabled }}
{{- if and .tls.ca (not .tls.existingCASecret) (not .tls.existingCAConfigMap) }}
redis-ca.crt: {{ .tls.ca | b64enc }}
{{- end }}
{{- if and .tls.certificate (not .tls.existingSecret) }}
redis-tls.crt: {{ .tls.certificate | b64enc }}
redis-tls.key: {{ required "redis.external.tls.key: not set; it belongs to redis.external.tls.certificate" .tls.key | b64enc }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (eq (get .Values.config.auth "upstream_token" | toString) "replace") .Values.upstreamToken.token (not .Values.upstreamToken.existingSecret) }}
upstream-token: {{ .Values.upstreamToken.token | b64enc }}
{{- end }}
{{- end }}
