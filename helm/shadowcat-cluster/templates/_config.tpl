{{/* Whether extraEnv sets a variable: then it need not be among the values. Takes {root, name}. */}}
{{- define "shadowcat-cluster.hasEnv" -}}
{{- $name := .name }}
{{- range .root.Values.extraEnv }}{{ if eq .name $name }}true{{ end }}{{ end }}
{{- end }}

{{/* Lines of YAML for settings. A number comes as a float, and must not be written as 1e+06. */}}
{{- define "shadowcat-cluster.settings" -}}
{{- range $name, $value := . }}
{{- if kindIs "map" $value }}
{{- with include "shadowcat-cluster.settings" $value | trim }}
{{ $name }}:
  {{- . | nindent 2 }}
{{- end }}
{{- else if kindIs "float64" $value }}
{{ $name }}: {{ printf "%.0f" $value }}
{{- else if not (kindIs "invalid" $value) }}
{{ $name }}: {{ toJson $value }}
{{- end }}
{{- end }}
{{- end }}

{{/* The program's configuration file. */}}
{{- define "shadowcat-cluster.configFile" -}}
listen: ":8081"
admin_listen: ":9081"
{{- if .Values.upstreams }}
upstream:
  {{- $names := list }}
  {{- range .Values.upstreams }}
  {{- $name := default "" (get . "name") }}
  {{- if has $name $names }}{{ fail (printf "upstreams: two have %s" (ternary (printf "the name %s" $name) "no name" (not (empty $name)))) }}{{ end }}
  {{- $names = append $names $name }}
  - {{ ternary (printf "%s=%s" $name .url) .url (not (empty $name)) | toJson }}
  {{- end }}
{{- else if not (include "shadowcat-cluster.hasEnv" (dict "root" . "name" "SHADOWCAT_UPSTREAM")) }}
{{- fail "upstreams: not set; name the MCP server to serve, such as --set upstreams[0].url=http://my-server.default.svc:8080/mcp" }}
{{- end }}
{{- include "shadowcat-cluster.redisSettings" . }}
{{- $config := deepCopy .Values.config }}
{{- if eq (get $config.auth "upstream_token" | toString) "replace" }}
{{- $_ := set $config.auth "upstream_token_file" "/etc/shadowcat/credentials/upstream-token" }}
{{- end }}
{{- with get $config "allowed_hosts" }}
{{- /* Pods use the Service's name: helm test, and whoever reads the notes. */}}
{{- $_ := set $config "allowed_hosts" (append . (printf "%s.%s.svc" (include "shadowcat-cluster.fullname" $) $.Release.Namespace) | uniq) }}
{{- end }}
{{- include "shadowcat-cluster.settings" $config }}
{{- end }}
