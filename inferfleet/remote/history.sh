# history: what was applied, and what is kept. Variables: root.
set -u
state=$root/.inferbase
for entry in "$state"/generations/*; do
  [ -f "$entry/.manifest" ] && [ ! -e "$entry/.unconfirmed" ] && printf 'kept\t%s\n' "${entry##*/}"
done
[ -L "$root/current" ] && printf 'current\t%s\n' "$(readlink "$root/current")"
[ -f "$state/history" ] && while IFS= read -r line; do printf 'entry\t%s\n' "$line"; done <"$state/history"
exit 0
