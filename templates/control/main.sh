# service NAME -> fields of its line.
unit_field() {
  printf '%s\n' "$units" | while read -r service runtime name digest gpu boot; do
    [ "$service" = "$1" ] || continue
    case $2 in
      runtime) echo "$runtime" ;; name) echo "$name" ;; digest) echo "$digest" ;; boot) echo "$boot" ;;
    esac
  done
}
unit_name() { unit_field "$1" name; }
# services_of RUNTIME [gpu] -> names, in start order.
services_of() {
  printf '%s\n' "$units" | while read -r service runtime name digest gpu boot; do
    [ "$runtime" = "$1" ] && [ "${2:-$gpu}" = "$gpu" ] && echo "$service"
  done
}
# Keeps those of the given services that run under a runtime.
of_runtime() {
  wanted=$1
  shift
  for service in "$@"; do
    [ "$(unit_field "$service" runtime)" = "$wanted" ] && echo "$service"
  done
}
# What the models of services lead to, a line each: service, path, a link's target or a checksum.
models_of() {
  [ ! -f "${0%/*}/.models" ] || while IFS="$tab" read -r service path; do
    for one in "$@"; do
      [ "$one" = "$service" ] || continue
      found=
      if [ -L "$path" ]; then
        found=$(readlink "$path")
      elif [ -r "$path" ] && [ -f "$path" ]; then
        found=$(sha256sum <"$path")
        found=${found%% *}
      fi
      printf '%s\t%s\t%s\n' "$service" "$path" "$found"
    done
  done <"${0%/*}/.models"
}
# started_with SERVICE MODELS: its digest, then its lines of MODELS; in one write, so that what is
# cut off here is no record.
started_with() {
  lines=$(printf '%s\n' "$2" | while IFS= read -r line; do
    case $line in "$1$tab"*) printf '\n%s' "${line#*"$tab"}" ;; esac
  done)
  printf '%s%s\n' "$(unit_field "$1" digest)" "$lines"
}
act() {
  verb=$1
  shift
  [ $# -gt 0 ] || set -- $(printf '%s\n' "$units" | while read -r service _; do echo "$service"; done)
  for one in "$@"; do
    [ -n "$(unit_field "$one" runtime)" ] || { echo "no service $one here" >&2; return 64; }
  done
  mkdir -p "$state/started"
  tab=$(printf '\t')
{% if drop_caches %}
  # CPU and GPU share one memory here, and CUDA does not count what the page cache would give back.
  case $verb in
    start | replace) [ "$(id -u)" = 0 ] && sync && echo 3 >/proc/sys/vm/drop_caches ;;
  esac
{% endif %}
  for runtime in compose systemd process; do
    chosen=$(of_runtime "$runtime" "$@")
    [ -n "$chosen" ] || continue
    # While it is acted on, nobody knows what runs: after an interruption it is replaced.
    for one in $chosen; do
      case $verb in start | replace | remove) rm -f "$state/started/$one" "$state/evicted/$one" ;; esac
    done
    # Looked at before, so that nothing that changes while it starts is missed.
    models=
    case $verb in start | replace) models=$(models_of $chosen) ;; esac
    "${runtime}_$verb" $chosen || return 1
    for one in $chosen; do
      case $verb in start | replace) started_with "$one" "$models" >"$state/started/$one" ;; esac
    done
  done
}
case ${1:-} in
  start | replace | stop | remove) act "$@" ;;
  state)
    used=$(printf '%s\n' "$units" | while read -r _ runtime _; do printf '%s ' "$runtime"; done)
    for runtime in compose systemd process; do
      case " $used" in *" $runtime "*) "${runtime}_state" ;; esac
    done
    ;;
  # After links of units have gone: systemd knows a unit as long as it has not read them anew.
  reload) [ ! -d /run/systemd/system ] || systemd_load ;;
  logs)
    runtime=$(unit_field "${2:-}" runtime)
    [ -n "$runtime" ] || { echo "no service ${2:-} here" >&2; exit 64; }
    "${runtime}_logs" "$2" "${3:-100}" "${4:-}"
    ;;
  *)
    echo "usage: control start|replace|stop|remove|state [SERVICE...] | reload |" \
      "logs SERVICE [LINES] [follow]" >&2
    exit 64
    ;;
esac
