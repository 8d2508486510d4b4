# revive: restart a service that is stuck, unless that was done too often of late. Prints one
# record: restarted<tab>HOW-OFTEN, given-up<tab>HOW-OFTEN, or error<tab>KIND<tab>WORDS.
#
# Variables: root, service, most, window (seconds), who, when, what (for the lock).
set -u
LC_ALL=C
export LC_ALL
umask 022
trap '' HUP PIPE
state=$root/.inferbase
claim=
mine=
say() { printf "$@" 2>/dev/null; }
die() {
  unlock
  say 'error\t%s\t%s\n' "$1" "$(printf '%s' "$2" | tr '\t\n' '  ')"
  exit 1
}
[ -f "$root/current/control" ] || die absent "nothing of inferbase is in force under $root"
take_lock
ledger=$state/restarts/$service
mkdir -p "$state/restarts" || die io "cannot write to $state"
now=$(date +%s)
recent=
count=0
if [ -f "$ledger" ]; then
  while read -r time; do
    case $time in '' | *[!0-9]*) continue ;; esac
    # A clock that was set back must not make old entries last for ever.
    [ "$time" -le "$now" ] && [ $((now - time)) -lt "$window" ] || continue
    recent="$recent$time
"
    count=$((count + 1))
  done <"$ledger"
fi
if [ "$count" -ge "$most" ]; then
  unlock
  say 'given-up\t%s\n' "$count"
  exit 0
fi
# On the disk before the restart: if that takes the machine down, it counts all the same.
printf '%s%s\n' "$recent" "$now" >"$ledger.new" && sync "$ledger.new" && mv -f "$ledger.new" "$ledger" ||
  die io "cannot write to $ledger"
said=$(sh "$root/current/control" replace "$service" </dev/null 2>&1) || die start "$said"
unlock
say 'restarted\t%s\n' "$((count + 1))"
