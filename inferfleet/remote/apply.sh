# apply: the transaction on the machine. Reads a tar archive of $size bytes, then verdicts, on
# standard input; prints one record a line, fields separated by tabs.
#
# Variables: root, from (generation or 0), to (generation), size (0: generation $to is there
# already), who, when, what, links and unlinks (path<tab>target a line), and, as lists
# separated by blanks: gone (services to remove), replace, start; for the way back:
# back_remove, back_stop, back_replace; keep (how many generations stay).
#
# A lost connection never stops it half way: it goes on to the end of its step, finds no
# verdict, and leaves the journal for the next run.
set -u
LC_ALL=C
export LC_ALL
umask 022
trap '' HUP PIPE INT
state=$root/.inferbase
gens=$state/generations
new=$gens/.new.$$
mine=

say() { printf "$@" 2>/dev/null; }
step() { say 'step\t%s\n' "$1"; }
unlock() {
  [ -n "$mine" ] && [ "$(readlink "$state/lock" 2>/dev/null)" = "$mine" ] && rm -f "$state/lock"
}
die() {
  say 'error\t%s\t%s\n' "$1" "$2"
  rm -rf "$new" "$root/.current.new"
  unlock
  exit 1
}
journal() {
  printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$from" "$to" "$1" "$who" "$when" "$what" >"$state/journal.new" &&
    sync "$state/journal.new" 2>/dev/null
  mv -f "$state/journal.new" "$state/journal" || die io "cannot write $state/journal"
}
history() {
  printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$(date +%s)" "$who" "$1" "$from" "$to" "$what" >>"$state/history"
}
# An atomic link: made beside its place, then renamed over it; never followed.
relink() {
  rm -f "$2.inferbase-new"
  ln -s "$1" "$2.inferbase-new" && mv -fT "$2.inferbase-new" "$2"
}
switch() {
  ln -sfn ".inferbase/generations/$1" "$root/.current.new" &&
    mv -fT "$root/.current.new" "$root/current" && sync "$root" 2>/dev/null
  [ "$(readlink "$root/current")" = ".inferbase/generations/$1" ]
}
# Runs control and passes its output on as log records; the status is control's own.
control() {
  {
    sh "$@" 2>&1
    echo "$?" >"$state/status"
  } | while IFS= read -r line; do say 'log\t%s\n' "$line"; done
  read -r status <"$state/status"
  return "$status"
}

step prepare
[ -L "$root" ] && die symlink "$root is a symbolic link"
mkdir -p "$root" 2>/dev/null || die io "cannot create $root"
for path in "$state" "$gens"; do
  [ -L "$path" ] && die symlink "$path is a symbolic link"
  mkdir -p "$path" 2>/dev/null || die io "cannot create $path"
done

step lock
# Field 22 of /proc/PID/stat, the start time, tells this process from a later one of its number.
read -r line </proc/$$/stat
set -f
set -- ${line##*) }
set +f
claim="$$|${20}|$who|$when|$what"
if ! ln -s "$claim" "$state/lock" 2>/dev/null; then
  holder=$(readlink "$state/lock")
  [ -n "$holder" ] || die io "cannot write in $state: $(ln -s x "$state/.probe" 2>&1; rm -f "$state/.probe")"
  pid=${holder%%|*}
  rest=${holder#*|}
  if [ -r "/proc/$pid/stat" ] && read -r line <"/proc/$pid/stat"; then
    set -f
    set -- ${line##*) }
    set +f
    [ "${20}" = "${rest%%|*}" ] && die locked "$holder"
  fi
  say 'note\tlock left by a dead run was taken over: %s\n' "$holder"
  mv -fT "$state/lock" "$state/lock.stale" 2>/dev/null
  if [ "$(readlink "$state/lock.stale")" != "$holder" ]; then
    mv -nT "$state/lock.stale" "$state/lock"
    die locked "$(readlink "$state/lock")"
  fi
  rm -f "$state/lock.stale"
  ln -s "$claim" "$state/lock" 2>/dev/null || die locked "$(readlink "$state/lock")"
fi
mine=$claim
is=$(readlink "$root/current" 2>/dev/null)
case $from in
  0) [ -z "$is" ] && [ ! -e "$root/current" ] || die moved "$is" ;;
  *) [ "$is" = ".inferbase/generations/$from" ] || die moved "$is" ;;
esac
# What an earlier run left behind in the middle of its upload.
for path in "$gens"/.new.*; do
  [ "$path" = "$new" ] || rm -rf "$path"
done
rm -f "$root/.current.new"

if [ "$size" -gt 0 ]; then
  step upload
  [ -e "$gens/$to" ] && die moved "generation $to"
  mkdir -m 700 "$new" || die io "cannot create $new"
  problem=$( { head -c "$size" | tar -xpof - -C "$new"; } 2>&1) || die upload "${problem:-the archive did not arrive}"
  cd "$new" || die io "$new is gone"
  [ -f .sha256 ] && problem=$(sha256sum -c .sha256 2>&1 >/dev/null) || die upload "${problem:-the archive did not arrive whole}"
  set -f
  set -- $(cat .files)
  set +f
  sync .manifest .files .sha256 "$@" . 2>/dev/null || sync
  cd /
  chmod 755 "$new"
  step stage
  mv -T "$new" "$gens/$to" || die io "cannot write $gens/$to"
  sync "$gens" 2>/dev/null
fi
[ -f "$gens/$to/.manifest" ] || die missing "generation $to"
mkdir -p "$state/started" "$state/run"
journal staged

step link
printf '%s\n' "$links" | while IFS='	' read -r path target; do
  [ -n "$path" ] || continue
  if [ -e "$path" ] && [ ! -L "$path" ]; then
    echo "$path exists and is not a link of inferbase"
    exit 1
  fi
  mkdir -p "${path%/*}" && relink "$target" "$path" || exit 1
done >"$state/problem" 2>&1 || {
  problem=$(head -n 1 "$state/problem")
  [ "$size" -gt 0 ] && rm -rf "${gens:?}/$to"
  rm -f "$state/journal" "$state/problem"
  die io "$problem"
}
rm -f "$state/problem"

step switch
[ "$(readlink "$state/lock")" = "$mine" ] || die locked "$(readlink "$state/lock")"
if [ "$from" != "$to" ]; then
  switch "$to" || die io "cannot switch $root/current"
fi
journal switched

ok=yes
step stop
if [ -n "$gone" ] && [ "$from" != 0 ]; then
  control "$gens/$from/control" remove $gone || ok=no
fi
printf '%s\n' "$unlinks" | while IFS='	' read -r path _; do
  [ -n "$path" ] && [ -L "$path" ] && rm -f "$path"
done
step start
if [ "$ok" = yes ] && [ -n "$replace" ]; then
  control "$root/current/control" replace $replace || ok=no
fi
if [ "$ok" = yes ] && [ -n "$start" ]; then
  control "$root/current/control" start $start || ok=no
fi
say 'started\t%s\n' "$ok"

revert() {
  journal reverting
  if [ -n "$back_remove" ]; then control "$root/current/control" remove $back_remove; fi
  if [ -n "$back_stop" ]; then control "$root/current/control" stop $back_stop; fi
  if [ "$from" = 0 ]; then
    rm -f "$root/current"
    printf '%s\n' "$links" | while IFS='	' read -r path _; do
      [ -n "$path" ] && [ -L "$path" ] && rm -f "$path"
    done
  elif [ "$from" != "$to" ]; then
    switch "$from" || die io "cannot switch $root/current back"
    # Links of the old generation that the new one had dropped come back; its own go.
    printf '%s\n' "$links" | while IFS='	' read -r path _; do
      [ -n "$path" ] && [ -L "$path" ] && [ ! -e "$path" ] && rm -f "$path"
    done
    printf '%s\n' "$unlinks" | while IFS='	' read -r path target; do
      [ -n "$path" ] && [ ! -e "$path" ] && relink "$target" "$path"
    done
  fi
  good=yes
  if [ -n "$back_replace" ]; then control "$root/current/control" replace $back_replace || good=no; fi
  say 'reverted\t%s\n' "$good"
}
while IFS= read -r verdict; do
  case $verdict in
    commit)
      step confirm
      history "$what"
      rm -f "$state/journal"
      count=0
      for number in $(ls "$gens" | sort -rn); do
        count=$((count + 1))
        case $number in
          "$to" | "$from") ;;
          *[!0-9]*) ;;
          *) [ "$count" -gt "$keep" ] && rm -rf "${gens:?}/$number" ;;
        esac
      done
      step unlock
      unlock
      say 'done\n'
      exit 0
      ;;
    revert) step revert; revert ;;
    reverted)
      history rolled-back
      # A release that failed is not kept: a later rollback must never land on it.
      [ "$size" -gt 0 ] && [ "$from" != "$to" ] && rm -rf "${gens:?}/$to"
      rm -f "$state/journal"
      unlock
      say 'done\n'
      exit 0
      ;;
  esac
done
unlock
exit 1
