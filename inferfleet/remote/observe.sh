# observe: print what is there now, one record a line, fields separated by tabs.
# Variables: root, links (absolute paths, one a line).
set -u
LC_ALL=C
export LC_ALL
tab=$(printf '\t')
state=$root/.inferbase
fact() { printf 'fact\t%s\t%s\n' "$1" "$2"; }

# Each program that is started costs about a millisecond, and a plan without changes waits for
# little else: only what a plan needs is asked here, `doctor` asks the rest.

# The nearest folder that exists decides whether root can be made, and how much fits in it.
near=$root
while [ ! -d "$near" ]; do near=${near%/*}; near=${near:-/}; done
writable=yes
for path in "$near" "$state" "$state/generations"; do
  [ -d "$path" ] && [ ! -w "$path" ] && { writable=no; near=$path; break; }
done
fact writable "$writable"
if [ "$writable" = no ]; then
  fact user "$(id -un 2>/dev/null || id -u)"
  # What may not be written cannot be harmed by trying; only so the reason is known.
  fact unwritable "$( (: >"$near/.inferbase-probe") 2>&1 | tr '\t\n' '  ')"
fi
for path in "$root" "$state" "$state/generations"; do
  [ -L "$path" ] && fact symlink "$path"
done
fact near "$near"
# A first release is written without a second question; for later ones details.sh asks this.
[ -L "$root/current" ] || df -Pk "$near" 2>/dev/null | while read -r _ _ _ free _; do
  case $free in *[!0-9]*) ;; *) fact free_kb "$free" ;; esac
done

if [ -L "$state/lock" ]; then
  holder=$(readlink "$state/lock")
  pid=${holder%%|*}
  rest=${holder#*|}
  alive=dead
  case $pid in '' | *[!0-9]*) pid=none ;; esac
  if { IFS= read -r line <"/proc/$pid/stat"; } 2>/dev/null; then
    # The command name may hold spaces: fields are counted after its closing parenthesis.
    set -f
    set -- ${line##*) }
    set +f
    [ $# -ge 20 ] && [ "$1" != Z ] && [ "${20}" = "${rest%%|*}" ] && alive=alive
  fi
  printf 'lock\t%s\t%s\n' "$alive" "$holder"
fi
if [ -f "$state/journal" ]; then
  printf 'journal\t%s\n' "$(head -n 1 "$state/journal" | tr '\t' '|')"
  source=
  IFS=$tab read -r source _ <"$state/journal"
  # What the interrupted run came from is needed to return there.
  case $source in
    '' | *[!0-9]*) ;;
    *)
      origin=$state/generations/$source/.manifest
      [ -r "$origin" ] && printf 'origin\t%s\n' "$(cat "$origin")"
      ;;
  esac
fi

if cd -P "$root/current/" 2>/dev/null && [ . -ef "$state/generations/${PWD##*/}" ]; then
  printf 'current\t.inferbase/generations/%s\n' "${PWD##*/}"
elif [ -L "$root/current" ]; then
  printf 'current\t%s\n' "$(readlink "$root/current")"
elif [ -e "$root/current" ]; then
  printf 'current\t!\n'
fi
for entry in "$state"/generations/*; do
  [ -f "$entry/.manifest" ] || continue
  [ -e "$entry/.unconfirmed" ] || printf 'generation\t%s\n' "${entry##*/}"
  # What interrupted runs came from, and went to, may have services that still run.
  if [ -f "$state/journal" ] && [ ! "$entry" -ef "$root/current/" ]; then
    [ -e "$entry/.unconfirmed" ] || [ "${entry##*/}" = "$source" ] &&
      [ -r "$entry/.manifest" ] && printf 'left\t%s\t%s\n' "${entry##*/}" "$(cat "$entry/.manifest")"
  fi
done

for entry in "$state"/evicted/*; do
  [ -f "$entry" ] && printf 'evicted\t%s\n' "${entry##*/}"
done

units_of() {
  for entry in "$state"/started/*; do
    [ -f "$entry" ] && {
      read -r digest && printf 'started\t%s\t%s\n' "${entry##*/}" "$digest"
      while IFS= read -r line; do printf 'loaded\t%s\t%s\n' "${entry##*/}" "$line"; done
    } <"$entry"
  done
  sh "$1/control" state </dev/null
}
if cd "$root/current/" 2>/dev/null && [ -f .files ]; then
  if [ -r .manifest ]; then
    printf 'manifest\t%s\n' "$(cat .manifest)"
  elif [ -e .manifest ]; then
    printf 'unreadable\t%s\n' "$root/current/.manifest"
  fi
  set -f
  set -- $(cat .files)
  set +f
  # A file that is gone or unreadable has no line here, which reads as "absent".
  [ $# -gt 0 ] && sha256sum -- "$@" 2>/dev/null
  [ $# -gt 0 ] && stat -c "mode${tab}%a${tab}%n" -- "$@" 2>/dev/null
  [ -f control ] && units_of "$root/current"
else
  # Nothing is in force, but what an earlier generation has started may run all the same.
  for number in $(ls "$state/generations" 2>/dev/null | sort -rn); do
    [ -f "$state/generations/$number/control" ] || continue
    units_of "$state/generations/$number"
    break
  done
fi

[ -n "$links" ] && printf '%s\n' "$links" | while IFS= read -r path; do
  if [ -L "$path" ]; then
    printf 'link\t%s\t%s\n' "$path" "$(readlink "$path")"
  elif [ -e "$path" ]; then
    printf 'link\t%s\t!\n' "$path"
  fi
done
# Links into our generations that nobody asked about, left by an older or an interrupted run.
units=/etc/systemd/system
[ -w "$units" ] && [ -d /run/systemd/system ] && ls -l "$units" "$units/multi-user.target.wants" 2>/dev/null | while IFS= read -r line; do
  case $line in
    "$units:" | "$units/multi-user.target.wants:") folder=${line%:} ;;
    *" -> $root/current/"*)
      line=${line%%" -> $root/current/"*}
      path=$folder/${line##* }
      printf 'link\t%s\t%s\n' "$path" "$(readlink "$path")"
      ;;
  esac
done
printf 'end\n'
