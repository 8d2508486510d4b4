# bootcheck: watches over one start of the machine with a new kernel command line. It lies on the
# machine; `arm` is its first call, before the restart, and every start calls it without a word.
#
# Variables: state (the folder of generations), home (its own folder), trial (files that make a
# loader try the line once), menu (the file of the old menu, there while they count), settle (what
# must follow a change of trial), install (its own files), mine and claim (empty, for the lock).
# In home: words (lines +WORD and -WORD: in the new line, not in it), armed/ (there while a change
# is unconfirmed: what the machine was before), result (what came of the last change: outcome,
# when, why, words; separated by tabs).
#
# The new line is confirmed when it is there, nothing has failed that had not failed before, and
# sshd and a default route are there if they were. A machine that is not well goes back: where the
# loader tries a line once, a restart is enough, and the old system undoes the rest; elsewhere it
# is undone first. Neither happens twice.
#
# shellcheck disable=SC2086
set -u
LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/bin
export LC_ALL PATH
umask 022
armed=$home/armed
who='the machine itself'
what='boot check'
# Seconds: a start; after it sshd, which is one of its jobs; a route, which it need not wait for.
start_limit=900
sshd_limit=15
route_limit=90

say() { printf "$@" >&2; }
die() {
  say '%s: %s\n' "$1" "$2"
  exit 1
}
now() { date -u +%Y-%m-%dT%H:%M:%SZ; }
boot_id() { cat "$proc/sys/kernel/random/boot_id"; }
failed_units() {
  systemctl list-units --state=failed --plain --no-legend --no-pager --full |
    while read -r unit rest; do printf '%s\n' "$unit"; done
}
sshd_active() { systemctl -q is-active ssh.service sshd.service ssh.socket sshd.socket; }
routed() {
  while read -r line; do
    set -- $line
    [ "${2-}${8-}" = 0000000000000000 ] && return 0
  done <"$proc/net/route"
  [ -r "$proc/net/ipv6_route" ] || return 1
  while read -r to bits rest; do
    case $to$bits$rest in *' lo') ;; 0000000000000000000000000000000000*) return 0 ;; esac
  done <"$proc/net/ipv6_route"
  return 1
}
within() {
  left=$1
  shift
  until "$@"; do
    [ "$left" -gt 0 ] || return 1
    left=$((left - 3))
    sleep 3
  done
}
started() {
  stage=$(systemctl is-system-running 2>/dev/null)
  case $stage in running | degraded | maintenance) return 0 ;; stopping) exit 0 ;; esac
  return 1
}

arm() {
  [ -s "$home/words" ] || die arm "there is no $home/words"
  new=$home/.new
  rm -rf "$new"
  mkdir -p "$new" || die arm "cannot write $home"
  # Of several changes before one restart the first one knows the way back.
  cat "$armed/generation" 2>/dev/null >"$new/generation" ||
    cat "$state/journal" >"$new/generation" || die arm "this is no run of hostprep"
  boot_id >"$new/boot"
  failed_units >"$new/failed-units"
  sshd_active && : >"$new/sshd"
  routed && : >"$new/route"
  sync "$new"/* && rm -rf "$armed" "$home/result" && mv -T "$new" "$armed" && sync "$home"
}

# Whether the running kernel was started with another line than the new one.
other_line() {
  line=" $(cat "$proc/cmdline") "
  while read -r word; do
    case $word in
      +*) case $line in *" ${word#+} "*) ;; *) return 0 ;; esac ;;
      -*) case $line in *" ${word#-} "*) return 0 ;; esac ;;
    esac
  done <"$home/words"
  return 1
}
# Sets why to what is wrong with this start.
unwell() {
  why=
  if ! within "$start_limit" started; then
    why="it was still starting after $start_limit s"
    return 0
  fi
  if [ "$stage" = maintenance ]; then
    why="it came up in emergency or rescue mode"
    return 0
  fi
  if [ -e "$armed/sshd" ] && ! within "$sshd_limit" sshd_active; then
    why="sshd was not active"
    return 0
  fi
  if [ -e "$armed/route" ] && ! within "$route_limit" routed; then
    why="there was no default route"
    return 0
  fi
  why=$(failed_units | while read -r unit; do
    grep -qxF -e "$unit" "$armed/failed-units" || printf '%s ' "$unit"
  done)
  [ -z "$why" ] || why="failed: ${why% }"
  [ -n "$why" ]
}
tries_once() {
  for file in $trial "$menu"; do [ -e "$file" ] && return 0; done
  return 1
}
result() {
  printf '%s\t%s\t%s\t%s\n' "$1" "$(now)" "$2" "$(tr '\n' ' ' <"$home/words")" >"$home/.result" &&
    sync "$home/.result" && mv -T "$home/.result" "$home/result"
}
locked() {
  when=$(now)
  tries=60
  until (take_lock) 2>/dev/null; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || die locked "$(readlink "$state/lock")"
    sleep 5
  done
  mine=$(readlink "$state/lock")
}
back_to_one_menu() {
  ! tries_once || { rm -f $trial && sh -c "$settle"; }
}
# Nothing of it may be needed after its last line, which is why this is one command.
gone() {
  sync
  back_to_one_menu && rm -rf "$armed" "$home/words" $install && sync
}
confirm() {
  { : >"$armed/confirmed" && sync "$armed/confirmed" "$armed"; } || die confirm "cannot write $armed"
  locked
  { result confirmed "" && gone; } || die confirm "the old menu could not be put away"
  unlock
  systemctl daemon-reload
  say 'the new kernel command line is confirmed\n'
}
# Undoes the generation that brought the line, and what was built on it.
undo() {
  locked
  [ -e "$armed/why" ] && why=$(cat "$armed/why")
  first=$(cat "$armed/generation")
  result failed "$why"
  bad=
  for dir in $(cd "$state" && ls -d [0-9]* 2>/dev/null | sort -rn); do
    [ "$dir" -ge "$first" ] || continue
    printf '%s\n' "$dir" >"$state/journal" && sync "$state/journal"
    sh "$state/$dir/undo.sh" "$who" "$what" || bad=yes
  done
  if [ -n "$bad" ]; then
    result failed "$why; not all could be undone"
    unlock
    return 1
  fi
  [ ! -d "$armed" ] || gone
  unlock
}
restart() {
  sync
  systemctl reboot --force || systemctl reboot --force --force
  sleep 60
  echo b >"$proc/sysrq-trigger"
}

main() {
  [ -d "$armed" ] && [ "$(cat "$armed/boot")" != "$(boot_id)" ] || exit 0
  if [ -e "$armed/confirmed" ]; then
    confirm
  elif other_line; then
    why="the new line did not come up, or another one was started in its place"
    undo
  elif [ -e "$armed/why" ]; then
    # Undone in part before, and still started with the new line: a person must look at it.
    die undo "the machine is not well and the old kernel command line could not be restored"
  elif ! unwell; then
    confirm
  else
    say 'the machine is not well with the new kernel command line: %s\n' "$why"
    printf '%s\n' "$why" >"$armed/why" && sync "$armed/why" "$armed"
    tries_once || undo
    restart
  fi
}
case ${1-} in arm) arm ;; *) main ;; esac
