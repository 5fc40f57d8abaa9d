{{/* The annotations of an object that `helm test` creates. Takes the weight. After a failure, the client's Pod stays until the next test. */}}
{{- define "bobbin.test.annotations" -}}
helm.sh/hook: test
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* The fields that both test pods share. The scheduler puts the pods on different nodes if it can. */}}
{{- define "bobbin.test.pod" -}}
automountServiceAccountToken: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
nodeSelector:
  kubernetes.io/os: linux
{{- with .Values.test.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "bobbin.selector" (dict "component" "test") | nindent 14 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{/* The image and the restrictions of a test container. */}}
{{- define "bobbin.test.container" -}}
image: {{ include "bobbin.imageWithTag" (dict "image" .Values.test.image "tag" "latest") }}
imagePullPolicy: {{ .Values.test.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop:
      - ALL
{{- end }}
