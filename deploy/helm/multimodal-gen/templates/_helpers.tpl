{{- define "mg.name" -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{- end }}

{{- define "mg.labels" -}}
app.kubernetes.io/name: multimodal-gen
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "mg.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "mg.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{/* A key file must be its owner's alone; files of a Secret belong to root. */}}
{{- define "mg.ownKey" -}}
- name: own-key
  image: {{ .image }}
  imagePullPolicy: {{ .pullPolicy }}
  command: [install, -m, "0400", /secret/{{ .key }}, /keys/engine.key]
  securityContext: {{- include "mg.containerSecurity" . | nindent 4 }}
  resources:
    limits: { memory: 64Mi }
  volumeMounts:
    - { name: secret, mountPath: /secret, readOnly: true }
    - { name: keys, mountPath: /keys }
{{- end }}

{{- define "mg.keyVolumes" -}}
- name: secret
  secret:
    secretName: {{ .secret }}
    items: [{ key: {{ .key }}, path: {{ .key }} }]
- name: keys
  emptyDir: { medium: Memory, sizeLimit: 1Mi }
- name: tmp
  emptyDir: {}
{{- end }}

{{/* Addresses of all engines that there may be: a front waits for those that are not there. */}}
{{- define "mg.addresses" -}}
{{- range $engine := .Values.engines }}
{{- $name := printf "%s-%s" (include "mg.name" $) $engine.name }}
{{- $scaling := $engine.scaling | default dict }}
{{- range $i := until (int (ternary $scaling.max $engine.replicas (default false $scaling.enabled))) }}
- --engine
- tcp://{{ $name }}-{{ $i }}.{{ $name }}:30100
{{- end }}
{{- end }}
{{- end }}

{{- define "mg.enginePod" -}}
{{- $ := .root }}
{{- $engine := .engine }}
metadata:
  labels:
    {{- include "mg.labels" $ | nindent 4 }}
    app.kubernetes.io/component: engine
    multimodal-gen/engine: {{ $engine.name }}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 45
  securityContext: {{- include "mg.podSecurity" $ | nindent 4 }}
  {{- with $engine.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $engine.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  initContainers:
    {{- include "mg.ownKey" (dict "image" $.Values.image "pullPolicy" $.Values.pullPolicy "key" "engine.key") | nindent 4 }}
  containers:
    - name: engine
      image: {{ $.Values.image }}
      imagePullPolicy: {{ $.Values.pullPolicy }}
      args:
        - engine
        - --listen
        - tcp://0.0.0.0:30100
        - --key-file
        - /keys/engine.key
        - --model-path
        - {{ $engine.modelPath | quote }}
        - --num-gpus
        - {{ mul (int $engine.gpusPerHost) (int $engine.hosts) | quote }}
        {{- if gt (int $engine.hosts) 1 }}
        - --nnodes
        - {{ $engine.hosts | quote }}
        - --node-rank
        - $(LWS_WORKER_INDEX)
        - --dist-init-addr
        - $(LWS_LEADER_ADDRESS):29500
        {{- end }}
        {{- with $engine.args }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      env:
        - name: HF_TOKEN
          valueFrom: { secretKeyRef: { name: {{ $.Values.secret }}, key: hf-token, optional: true } }
        - { name: HOME, value: /tmp }
      ports:
        - { name: engine, containerPort: 30100 }
      {{- if .listens }}
      # It listens from the start and says that it is loading: the front knows when it is ready.
      startupProbe:
        tcpSocket: { port: engine }
        periodSeconds: 5
        failureThreshold: {{ div (int $engine.startSeconds) 5 }}
      livenessProbe:
        tcpSocket: { port: engine }
        periodSeconds: 10
        failureThreshold: 6
      {{- end }}
      securityContext: {{- include "mg.containerSecurity" $ | nindent 8 }}
      resources:
        {{- $resources := $engine.resources | default dict }}
        {{- with $resources.requests }}
        requests: {{- toYaml . | nindent 10 }}
        {{- end }}
        limits: {{- toYaml (merge (dict "nvidia.com/gpu" (int $engine.gpusPerHost)) ($resources.limits | default dict)) | nindent 10 }}
      volumeMounts:
        - { name: keys, mountPath: /keys, readOnly: true }
        - { name: tmp, mountPath: /tmp }
        - { name: cache, mountPath: /cache }
        - { name: shm, mountPath: /dev/shm }
  volumes:
    {{- include "mg.keyVolumes" (dict "secret" $.Values.secret "key" "engine.key") | nindent 4 }}
    - name: shm
      emptyDir: { medium: Memory, sizeLimit: {{ $engine.shm }} }
    {{- if gt (int $engine.hosts) 1 }}
    - name: cache
      emptyDir: {}
    {{- end }}
{{- end }}
