# lock: one run at a time on a machine. The caller sets state (a folder), who, when, what, mine and
# claim (both empty), and has say and die; take_lock sets mine.
unlock() {
  [ -n "$mine" ] && [ "$(readlink "$state/lock" 2>/dev/null)" = "$mine" ] && rm -f "$state/lock"
}
# Sets born to the start time of a live process: it tells a process from a later one of its number.
find_born() {
  born=
  case $1 in '' | *[!0-9]*) return 1 ;; esac
  { IFS= read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
  set -f
  # shellcheck disable=SC2086
  set -- ${line##*) }
  set +f
  [ $# -ge 20 ] && [ "$1" != Z ] && born=${20}
}
take_lock() {
  find_born $$ || die io "cannot read /proc/$$/stat"
  claim="$$|$born|$who|$when|$what"
  tries=0
  until ln -s "$claim" "$state/lock" 2>/dev/null; do
    holder=$(readlink "$state/lock" 2>/dev/null)
    if [ -z "$holder" ]; then
      # Let go in this moment, or it cannot be made.
      tries=$((tries + 1))
      [ "$tries" -lt 5 ] && continue
      problem=$(ln -s probe "$state/.probe.$$" 2>&1) && problem="$state/lock is not a lock of inferbase"
      rm -f "$state/.probe.$$"
      die io "cannot lock: $problem"
    fi
    rest=${holder#*|}
    find_born "${holder%%|*}" && [ "$born" = "${rest%%|*}" ] && die locked "$holder"
    # Renamed under a name of our own: of several runs that find it dead, one gets it.
    mv -fT "$state/lock" "$state/lock.$$" 2>/dev/null || continue
    if [ "$(readlink "$state/lock.$$")" = "$holder" ]; then
      rm -f "$state/lock.$$"
      say 'note\tlock left by a dead run was taken over: %s\n' "$holder"
    else
      mv -nT "$state/lock.$$" "$state/lock"
      rm -f "$state/lock.$$"
    fi
  done
  mine=$claim
}
