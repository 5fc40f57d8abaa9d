{{/* BIRD's configuration for one group of nodes. Takes a dict of `root` and `group`. docs/routing/bird.conf has the same text. */}}
{{- define "bobbin.birdConfiguration" -}}
log stderr all;
include "/run/bird/router-id.conf";
graceful restart wait 10;
ipv4 table blocks4;
ipv6 table blocks6;
protocol device {
  scan time 10;
}
{{- range $family := list "4" "6" }}
protocol kernel {
  kernel table {{ $.root.Values.network.exportTable | int64 }};
  learn;
  scan time 2;
  ipv{{ $family }} {
    table blocks{{ $family }};
    import all;
    export none;
  };
}
{{- end }}
{{- if .group.bfd }}
protocol bfd {
  interface "*" {
    interval 300 ms;
    multiplier 4;
  };
}
{{- end }}
template bgp fabric {
  local as {{ .group.localAS | int64 }};
  hold time 90;
  connect delay time {{ ternary 3 1 (default false .group.bfd) }};
  connect retry time 5;
  error wait time 1, 30;
  graceful restart on;
  graceful restart time {{ .root.Values.routing.gracefulRestartSeconds | int64 }};
  {{- if .group.bfd }}
  bfd graceful;
  {{- end }}
  {{- if .group.passwordSecret }}
  include "/run/bird/password.conf";
  {{- end }}
}
{{- range $number, $router := .group.routers }}
{{- $family := ternary "6" "4" (contains ":" $router.address) }}
protocol bgp router{{ add1 $number }} from fabric {
  neighbor {{ $router.address }} as {{ $router.as | int64 }};
  ipv{{ $family }} {
    table blocks{{ $family }};
    import none;
    export all;
    next hop self;
  };
}
{{- end }}
{{- end }}

{{/* The name of the objects of one group of nodes. Takes the group. */}}
{{- define "bobbin.birdName" -}}
bobbin-bird-{{ .name }}
{{- end }}

{{/* Labels that select the pods of one group of nodes. Takes the group. */}}
{{- define "bobbin.birdSelector" -}}
{{ include "bobbin.selector" (dict "component" "bird") }}
bobbin.dev/peers: {{ .name | quote }}
{{- end }}

{{/* Stops Helm with a sentence if the values can't give BIRD a configuration. */}}
{{- define "bobbin.birdChecks" -}}
{{- if not .Values.routing.image.repository }}
{{- fail "routing.daemon is bird, but routing.image.repository is empty: set it to an image that contains BIRD 2 (docs/routing/README.md describes the image)" }}
{{- end }}
{{- if not .Values.routing.peers }}
{{- fail "routing.daemon is bird, but routing.peers is empty, so no node would run BIRD: add an entry with name, localAS and routers" }}
{{- end }}
{{- $names := list }}
{{- range .Values.routing.peers }}
{{- if has .name $names }}
{{- fail (printf "two entries of routing.peers have the name %s, so their objects would have the same names: rename one entry" .name) }}
{{- end }}
{{- $names = append $names .name }}
{{- end }}
{{- end }}
