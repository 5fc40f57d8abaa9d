{{/* The policies for agents apply to the service account of the agents. */}}
{{- define "bobbin.policy.matchConditions" -}}
matchConditions:
  - name: is-agent
    expression: request.userInfo.username == 'system:serviceaccount:{{ .Release.Namespace }}:bobbin-agent'
{{- end }}

{{/* The name of the node in the token of the agent's pod. It is empty if the token belongs to no pod. */}}
{{- define "bobbin.policy.node" -}}
- name: node
  expression: >-
    has(request.userInfo.extra) && 'authentication.kubernetes.io/node-name' in request.userInfo.extra
    ? request.userInfo.extra['authentication.kubernetes.io/node-name'][0] : ''
{{- end }}

{{/* A write with a token that names no node is refused. */}}
{{- define "bobbin.policy.namesNode" -}}
- expression: variables.node != ''
  reason: Forbidden
  message: >-
    this token of the agents' service account names no node, so its writes are refused: use the token that Kubernetes
    mounts into the agent's pod
{{- end }}

{{/* The ConfigMap that lists denied nodes. The operator adds entries, and an administrator removes them. */}}
{{- define "bobbin.policy.deniedNodes" -}}
bobbin-denied-nodes
{{- end }}

{{/* Says why the node in the token is denied, and how an administrator ends the denial. This is the end of a CEL text. */}}
{{- define "bobbin.policy.lift" -}}
' because ConfigMap {{ .Release.Namespace }}/{{ include "bobbin.policy.deniedNodes" . }} denies the node (' + params.data[variables.node]
+ '). When the node is trusted again, remove the entry: kubectl -n {{ .Release.Namespace }} patch configmap {{ include "bobbin.policy.deniedNodes" . }} --type=json -p \'[{"op":"remove","path":"/data/'
+ variables.node + '"}]\''
{{- end }}
