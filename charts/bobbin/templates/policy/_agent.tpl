{{/* Whom both policies are about: the service account of the agents. */}}
{{- define "bobbin.policy.matchConditions" -}}
matchConditions:
  - name: is-agent
    expression: request.userInfo.username == 'system:serviceaccount:{{ .Release.Namespace }}:bobbin-agent'
{{- end }}

{{/* The node of the token: the API server writes it into the tokens of pods. Empty: the token is of no pod. */}}
{{- define "bobbin.policy.node" -}}
- name: node
  expression: >-
    has(request.userInfo.extra) && 'authentication.kubernetes.io/node-name' in request.userInfo.extra
    ? request.userInfo.extra['authentication.kubernetes.io/node-name'][0] : ''
{{- end }}

{{/* A token that names no node may write nothing. */}}
{{- define "bobbin.policy.namesNode" -}}
- expression: variables.node != ''
  reason: Forbidden
  message: >-
    this token of the agents' service account names no node, so it can not write for one: use the token that Kubernetes mounts
    into the agent's pod
{{- end }}
