{{/* How many seconds a duration of the program has, such as 1m30s, rounded up. */}}
{{- define "shadowcat-cluster.seconds" -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 }}
{{- $ms := 0 }}
{{- range regexFindAll "[0-9]+(ms|s|m|h|d)" (toString .) -1 }}
{{- $ms = add $ms (mul (regexFind "^[0-9]+" . | int64) (get $units (regexFind "[a-z]+$" .))) }}
{{- end }}
{{- div (add $ms 999) 1000 }}
{{- end }}

{{/* How many bytes a quantity of Kubernetes has, such as 512Mi, rounded down. */}}
{{- define "shadowcat-cluster.bytes" -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- $text := ternary (printf "%.0f" .) (toString .) (kindIs "float64" .) }}
{{- $unit := regexFind "[A-Za-z]*$" $text }}
{{- if or (not (hasKey $units $unit)) (not (regexMatch "^[0-9]+(\\.[0-9]+)?[A-Za-z]*$" $text)) }}
{{- fail (printf "resources.limits.memory: %s is no amount of memory such as 512Mi" $text) }}
{{- end }}
{{- mulf (regexFind "^[0-9.]+" $text | float64) (get $units $unit) | floor | int64 }}
{{- end }}
