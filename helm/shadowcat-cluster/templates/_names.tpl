{{/* The chart's name, as a label's value. */}}
{{- define "shadowcat-cluster.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of objects, with room for the longest suffix. */}}
{{- define "shadowcat-cluster.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 53 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 53 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "shadowcat-cluster.redisName" -}}
{{ include "shadowcat-cluster.fullname" . }}-redis
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

{{/* Labels of a component's pods: a new version of the chart alone does not roll them. Takes {root, component}. */}}
{{- define "shadowcat-cluster.podLabels" -}}
{{ include "shadowcat-cluster.selectorLabels" . }}
app.kubernetes.io/part-of: shadowcat-cluster
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels of an object. Takes {root, component}. */}}
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
  {{- with get . "labels" }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
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
