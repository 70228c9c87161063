{{/* The chart's name, as a label's value. */}}
{{- define "shadowcat-cluster.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of objects, with room for the longest suffix. A Service's must be a label of the DNS. */}}
{{- define "shadowcat-cluster.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- $full := printf "%s-%s" .Release.Name $name }}
{{- if .Values.fullnameOverride }}
{{- $full = .Values.fullnameOverride }}
{{- else if contains $name .Release.Name }}
{{- $full = .Release.Name }}
{{- end }}
{{- if not (regexMatch "^[a-z]" $full) }}
{{- fail (printf "fullnameOverride: not set, and %s cannot be a Service's name, which begins with a letter" $full) }}
{{- end }}
{{- $full | replace "." "-" | trunc 53 | trimSuffix "-" }}
{{- end }}

{{/* The name of the bundled Redis's objects. Kubernetes makes a label of a StatefulSet's name and eleven characters more: without room
for those there are no pods. */}}
{{- define "shadowcat-cluster.redisName" -}}
{{ include "shadowcat-cluster.fullname" . | trunc 46 | trimSuffix "-" }}-redis
{{- end }}

{{- define "shadowcat-cluster.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "shadowcat-cluster.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* What pods of a component are selected by: never changes. Takes {root, component}. */}}
{{- define "shadowcat-cluster.selectorLabels" -}}
app.kubernetes.io/name: {{ include "shadowcat-cluster.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of a component's pods: a new version of the chart alone does not roll them. Takes {root, component, labels}; the last may be
missing. */}}
{{- define "shadowcat-cluster.podLabels" -}}
{{ include "shadowcat-cluster.selectorLabels" . }}
{{ toYaml (mustMergeOverwrite (dict "app.kubernetes.io/part-of" "shadowcat-cluster") .root.Values.commonLabels (default dict (get . "labels"))) }}
{{- end }}

{{/* Fails where a label of the values is one that objects are found by, or that Helm sets. */}}
{{- define "shadowcat-cluster.checkLabels" -}}
{{- $own := list "helm.sh/chart" "shadowcat-cluster/port" }}
{{- range list "name" "instance" "component" "version" "managed-by" }}{{ $own = append $own (printf "app.kubernetes.io/%s" .) }}{{ end }}
{{- with .Values }}
{{- $all := dict "commonLabels" .commonLabels "podLabels" .podLabels "serviceMonitor.labels" .serviceMonitor.labels
      "prometheusRule.labels" .prometheusRule.labels "grafanaDashboard.labels" .grafanaDashboard.labels }}
{{- range $path, $labels := $all }}
{{- range $label, $_ := $labels }}
{{- if has $label $own }}{{ fail (printf "%s: %s is the chart's own label; leave it out" $path $label) }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Labels of an object. Takes {root, component, labels}; the last may be missing. */}}
{{- define "shadowcat-cluster.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "shadowcat-cluster.podLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{/* The metadata of an object. Takes {root, component, name, labels, annotations}; the last two may be missing. */}}
{{- define "shadowcat-cluster.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "shadowcat-cluster.labels" . | nindent 2 }}
{{- with mustMergeOverwrite dict .root.Values.commonAnnotations (default dict (get . "annotations")) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* An image's reference. Takes {image, tag}: its values, and the tag that counts without one of its own. */}}
{{- define "shadowcat-cluster.image" -}}
{{- if .image.digest }}
{{- printf "%s@%s" .image.repository .image.digest }}
{{- else }}
{{- printf "%s:%s" .image.repository (default .tag .image.tag) }}
{{- end }}
{{- end }}

{{/* Where the first upstream is served. */}}
{{- define "shadowcat-cluster.firstPath" -}}
{{- $name := "" }}
{{- with .Values.upstreams }}{{ $name = default "" (get (first .) "name") }}{{ end }}
{{- ternary (printf "/%s/mcp" $name) "/mcp" (not (empty $name)) }}
{{- end }}
