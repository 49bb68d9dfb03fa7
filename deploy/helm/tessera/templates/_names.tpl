{{- define "tessera.name" -}}
{{- printf "%s-%s" .Release.Name .Values.role | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "tessera.selector" -}}
app.kubernetes.io/name: tessera
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: {{ .Values.role | quote }}
{{- end -}}

{{- define "tessera.labels" -}}
{{ include "tessera.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end -}}

{{- define "tessera.image" -}}
{{- if .Values.image.digest -}}
{{ printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else -}}
{{ printf "%s:%s" .Values.image.repository .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "tessera.serves" -}}
{{- if or (eq .Values.role "datasite") (eq .Values.role "orchestrator") -}}yes{{- end -}}
{{- end -}}

{{- define "tessera.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "tessera.environment" -}}
- name: TESSERA_HOME
  value: /var/lib/tessera/home
- name: TESSERA_LOG_FORMAT
  value: {{ .Values.log.format | quote }}
- name: TESSERA_LOG_LEVEL
  value: {{ .Values.log.level | quote }}
{{- if .Values.proxy.secret }}
- name: TESSERA_PROXY
  valueFrom:
    secretKeyRef:
      name: {{ .Values.proxy.secret | quote }}
      key: {{ .Values.proxy.key | quote }}
{{- end }}
{{- end -}}
