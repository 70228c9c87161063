{{/* The bundled Redis's configuration. */}}
{{- define "shadowcat-cluster.bundledConfig" -}}
port 6379
bind * -::*
# Users are told by the file, and the default one is off.
aclfile /etc/shadowcat-redis/users/users.acl
dir /data
# Of what was acknowledged, a crash may lose the last second.
appendonly yes
appendfsync everysec
save ""
# Any other policy deletes sessions behind the program's back.
maxmemory-policy noeviction
maxmemory {{ .Values.redis.bundled.maxmemory }}
{{- with .Values.redis.bundled.extraConfig }}
{{ . }}
{{- end }}
{{- end }}

{{/* The password of its user: the one of the values, that of the Secret which is there, or a new one. It is the same wherever
it is asked for in one rendering. */}}
{{- define "shadowcat-cluster.bundledPassword" -}}
{{- $bundled := .Values.redis.bundled }}
{{- if not $bundled.password }}
{{- $secret := default dict (lookup "v1" "Secret" .Release.Namespace (include "shadowcat-cluster.redisName" .)) }}
{{- $kept := dig "data" "redis-password" "" $secret | b64dec }}
{{- $_ := set $bundled "password" (default (randAlphaNum 32) $kept) }}
{{- end }}
{{- $bundled.password }}
{{- end }}

{{/* What that user may do: the rule is the program's own. */}}
{{- define "shadowcat-cluster.bundledRule" -}}
{{ .Files.Get "files/redis-acl.txt" | trim | replace "PREFIX" .Values.config.prefix }}
{{- end }}

{{/* Its file of users. Nobody can be the one that is off, and yet it may do everything: Redis judges by it what it reads back from
its own file when it starts, and without its rights throws away whatever a script wrote (redis/redis#14541). */}}
{{- define "shadowcat-cluster.bundledUsers" -}}
user default off ~* &* +@all
user shadowcat on #{{ include "shadowcat-cluster.bundledPassword" . | sha256sum }} {{ include "shadowcat-cluster.bundledRule" . }}
{{ end }}
