{{/* Labels of every object. Takes a dict of `root` and `component`. */}}
{{- define "bobbin.labels" -}}
{{ include "bobbin.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* Labels that select the pods of a component. */}}
{{- define "bobbin.selector" -}}
app.kubernetes.io/name: bobbin
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Bobbin's image with its tag. */}}
{{- define "bobbin.image" -}}
{{ include "bobbin.imageWithTag" (dict "image" .Values.image "tag" .Chart.AppVersion) }}
{{- end }}

{{/* An image with its tag. Takes `image`, and the default `tag`. */}}
{{- define "bobbin.imageWithTag" -}}
{{ .image.repository }}{{ if not (contains "@" .image.repository) }}:{{ with .image.tag }}{{ if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ . }}{{ end }}{{ else }}{{ .tag }}{{ end }}{{ end }}
{{- end }}

{{/* The additional labels of a component's pods. Takes a dict of `root` and `component`. The labels of the selector belong to the chart. */}}
{{- define "bobbin.podLabels" -}}
{{- range $label, $_ := (get .root.Values .component).podLabels }}
{{- if hasPrefix "app.kubernetes.io/" $label }}
{{- fail (printf "%s.podLabels has the label %s, which belongs to the chart, because it selects pods by such labels: remove it from %s.podLabels" $.component $label $.component) }}
{{- end }}
{{- end }}
{{- with (get .root.Values .component).podLabels }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* The environment of both programs: the pod's identity, and the address of the API server. */}}
{{- define "bobbin.env" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- with .Values.apiServer.host }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ . | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ $.Values.apiServer.port | quote }}
{{- end }}
{{- end }}

{{/* The additional environment of a component. Takes a dict of `root` and `component`. */}}
{{- define "bobbin.extraEnv" -}}
{{- range (get .root.Values .component).extraEnv }}
{{- if has .name (list "NODE_NAME" "POD_NAME" "POD_NAMESPACE") }}
{{- fail (printf "%s.extraEnv sets %s, but the chart sets this variable: remove it from %s.extraEnv" $.component .name $.component) }}
{{- end }}
{{- if has .name (list "KUBERNETES_SERVICE_HOST" "KUBERNETES_SERVICE_PORT") }}
{{- fail (printf "%s.extraEnv sets %s: remove it from %s.extraEnv, and set apiServer.host and apiServer.port instead" $.component .name $.component) }}
{{- end }}
{{- end }}
{{- with (get .root.Values .component).extraEnv }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* An address with a port. Takes `bindAddress` and `port`. */}}
{{- define "bobbin.socketAddress" -}}
{{- if contains ":" .bindAddress }}[{{ .bindAddress }}]{{ else }}{{ .bindAddress }}{{ end }}:{{ .port }}
{{- end }}

{{/* The liveness probe. /healthz fails when a loop has made no progress within its deadline. */}}
{{- define "bobbin.liveness" -}}
livenessProbe:
  httpGet:
    path: /healthz
    {{- include "bobbin.probePort" . | nindent 4 }}
  initialDelaySeconds: 10
  periodSeconds: 20
  timeoutSeconds: 10
  failureThreshold: 3
{{- end }}

{{/* The readiness probe. */}}
{{- define "bobbin.readiness" -}}
readinessProbe:
  httpGet:
    path: /readyz
    {{- include "bobbin.probePort" . | nindent 4 }}
  periodSeconds: 2
  timeoutSeconds: 2
{{- end }}

{{/* The address that kubelet probes. Takes `bindAddress`. */}}
{{- define "bobbin.probePort" -}}
port: health
{{- if has .bindAddress (list "127.0.0.1" "::1") }}
host: {{ .bindAddress | quote }}
{{- end }}
{{- end }}

{{/* A duration such as 200ms, 30s, 5m or 1h, in milliseconds. Takes the duration. */}}
{{- define "bobbin.milliseconds" -}}
{{- $number := regexFind "^[0-9]+" . | int64 }}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 }}
{{- mul $number (get $units (regexFind "[a-z]+$" .)) }}
{{- end }}

{{/* The PodMonitor of a component. Takes a dict of `root` and `component`, and the `components` of the pods. */}}
{{- define "bobbin.podMonitor" -}}
{{- $monitor := .root.Values.metrics.podMonitor }}
{{- $address := (get .root.Values .component).bindAddress }}
{{- if has $address (list "127.0.0.1" "::1") }}
{{- fail (printf "metrics.podMonitor.enabled is true, but Prometheus can't reach %s.bindAddress %s: set another bindAddress, or disable the PodMonitors" .component $address) }}
{{- end }}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: bobbin-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "bobbin.labels" . | nindent 4 }}
    {{- with $monitor.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels:
      app.kubernetes.io/name: bobbin
    matchExpressions:
      - {key: app.kubernetes.io/component, operator: In, values: [{{ join ", " .components }}]}
  podMetricsEndpoints:
    - port: health
      path: /metrics
      interval: {{ $monitor.interval }}
      relabelings:
        # The name of the node tells the agents apart, also after a restart of the pod.
        - sourceLabels: [__meta_kubernetes_pod_node_name]
          targetLabel: node
{{- end }}
