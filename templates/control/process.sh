# process: a supervisor in a session of its own, by process/NAME/run beside this program: a service
# that a new generation has no more is ended by the old one.
process_run() { echo "${0%/*}/process/$(unit_name "$1")/run"; }
process_each() {
  action=$1
  shift
  for service in "$@"; do
    # Whoever starts it, it sees nothing of his environment, his secrets least of all.
    env -i PATH="$PATH" HOME="${HOME:-/}" ${LANG:+"LANG=$LANG"} ${TMPDIR:+"TMPDIR=$TMPDIR"} \
      sh "$(process_run "$service")" "$action" || return 1
  done
}
process_start() { process_each start "$@"; }
process_replace() { process_each stop "$@" && process_each start "$@"; }
process_stop() { process_each stop "$@"; }
process_remove() { process_each stop "$@"; }
process_state() {
  printf '%s\n' "$units" | while read -r service runtime name _; do
    [ "$runtime" = process ] || continue
    # running or restarting PID SINCE RESTARTS, stopped, failed EXIT RESTARTS SECONDS; without either of these files nothing
    # was started, and there is no need to ask.
    set -- stopped
    if [ -e "$state/run/$name/supervisor" ] || [ -e "$state/run/$name/failed" ]; then
      set -- $(sh "$(process_run "$service")" state </dev/null)
    fi
    case ${1:-unknown} in
      running) detail="pid ${2:-?}, up $(($(date +%s) - ${3:-0})) s, restarts ${4:-0}" ;;
      restarting) detail="restarts ${4:-0}" ;;
      failed)
        detail="exit ${2:-?}"
        [ "${3:-0}" = 0 ] || detail="$detail, gave up after $3 restarts in ${4:-?} s"
        ;;
      *) detail= ;;
    esac
    printf 'unit\t%s\t%s\t%s\n' "$service" "${1:-unknown}" "$detail"
  done
}
process_logs() {
  log=$state/run/$(unit_name "$1")/log
  [ -f "$log" ] || return 0
  tail -n "$2" ${3:+-F} "$log"
}
