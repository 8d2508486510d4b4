# apply: the transaction on the machine. Reads a tar archive of $size bytes, then verdicts, on
# standard input; prints one record a line, fields separated by tabs.
#
# Variables: root, from (the generation in force, or 0), to, back (the generation that a failure
# returns to, or 0), size (0: generation $to is there already), who, when, what, by (the checkouts
# that the run is from), confirm (yes: a commit proves $to good), keep (how many generations stay),
# silence (seconds without a word of the operator after which the run is given up); as lists
# separated by blanks: gone (services to remove), replace, start, room (KiB of memory that must be
# available before anything is started, 0: whatever there is), forget (paths under .inferbase that
# only removed services had), evicted (those of gone that only make room), ready (services that a
# commit proves ready), and for the way back: back_remove, back_stop, back_replace,
# back_forget; as lines: shelves (models directories of what is started); as lines
# path<tab>target: links, unlinks, back_links, back_unlinks; as lines
# generation<tab>service: left (what an interrupted run may have left running that neither the
# generation in force nor the new one knows).
#
# A lost connection never stops it half way: it goes on to the end of its step, finds no
# verdict, and leaves the journal for the next run. What is in force is always what the link
# `current` says; the journal only tells where it came from.
set -u
LC_ALL=C
export LC_ALL
umask 022
trap '' HUP PIPE INT
state=$root/.inferbase
gens=$state/generations
new=$gens/.new.$$
claim=
mine=
fresh=
linking=
journaled=
earlier=

say() { printf "$@" 2>/dev/null; }
step() { say 'step\t%s\n' "$1"; }
one_line() { printf '%s' "$1" | tr '\t\n' '  '; }
# Only before the switch: takes everything back, so that the machine is wholly old, then says why.
die() {
  if [ -n "$mine" ]; then
    rm -rf "$new"
    rm -f "$root/.current.new" "$root/.current.back"
    if [ -n "$linking" ]; then
      drop_links "$back_unlinks"
      make_links "$back_links"
    fi
    [ -z "$fresh" ] || rm -rf "${gens:?}/$to"
    if [ -z "$earlier" ]; then
      [ -z "$journaled" ] || rm -f "$state/journal"
    else
      write_journal "$earlier"
    fi
    unlock
  fi
  say 'error\t%s\t%s\n' "$1" "$(one_line "$2")"
  exit 1
}
# It is on the disk no earlier than the generation that it speaks of.
write_journal() {
  {
    printf '%s\n' "$1" >"$state/journal.new" && [ -s "$state/journal.new" ] &&
      ${2:-sync} "$gens" "$state/journal.new" && mv -f "$state/journal.new" "$state/journal" &&
      ${2:-sync} "$state"
  } 2>/dev/null
}
# The first one has to be on the disk before the switch; the later ones only make it more exact.
journal() {
  write_journal "$(printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s' "$back" "$to" "$1" \
    "$who" "$when" "$what" "$back_remove" "$back_stop" "$back_replace")" "${2:-sync}"
}
record() {
  printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$(date +%s)" "$who" "$1" "$back" "$to" "$what" "$by" \
    >>"$state/history"
}
# An atomic link: made beside its place, then renamed over it; never followed.
relink() {
  rm -f "$2.inferbase-new"
  ln -s "$1" "$2.inferbase-new" && mv -fT "$2.inferbase-new" "$2"
}
make_links() {
  [ -z "$1" ] || printf '%s\n' "$1" | while IFS='	' read -r path target; do
    [ -n "$path" ] || continue
    if [ -e "$path" ] && [ ! -L "$path" ]; then
      echo "$path exists and is not a link of inferbase"
      exit 1
    fi
    { mkdir -p "${path%/*}" && relink "$target" "$path"; } 2>&1 || exit 1
  done
}
drop_links() {
  [ -z "$1" ] || printf '%s\n' "$1" | while IFS='	' read -r path _; do
    [ -n "$path" ] && [ -L "$path" ] && rm -f "$path"
  done
}
# in_force N: whether that generation is what the link leads to; 0: there is no such link.
in_force() {
  if [ "$1" = 0 ]; then
    [ ! -e "$root/current" ] && [ ! -L "$root/current" ]
  else
    [ "$root/current" -ef "$gens/$1" ] && [ -L "$root/current" ]
  fi
}
# Generations that never became ready must not be there to return to.
sweep() {
  for path in "$gens"/*; do
    number=${path##*/}
    [ -e "$path/.unconfirmed" ] && [ "$number" != "$1" ] && ! in_force "$number" &&
      rm -rf "${gens:?}/$number"
  done
}
prune() {
  set -- "$gens"/*
  [ $# -gt "$keep" ] || return 0
  count=0
  for number in $(ls "$gens" | sort -rn); do
    case $number in *[!0-9]*) continue ;; esac
    count=$((count + 1))
    [ "$number" = "$to" ] || [ "$number" = "$back" ] || [ "$count" -le "$keep" ] && continue
    # Renamed first: a removal that is interrupted leaves no half generation.
    mv -T "$gens/$number" "$gens/.old.$number" && rm -rf "${gens:?}/.old.$number"
  done
}
# Runs control and passes its output on as log records; the status is control's own.
control() {
  {
    status=$(
      {
        {
          sh "$@" </dev/null 2>&1 3>&- 4>&-
          echo "$?" >&3
        } | while IFS= read -r line; do say 'log\t%s\n' "$line" >&4; done
      } 3>&1
    )
  } 4>&1
  return "${status:-1}"
}
# Whoever prunes a models directory has to know of every root that uses it, also of one that found
# all its models there and brought none; store.sh writes the same line.
note_root() {
  [ -d "$1/.inferbase" ] && [ ! -L "$1/.inferbase" ] || return 0
  grep -qxF -- "$(uname -n) $root" "$1/.inferbase/roots" ||
    printf '%s\n' "$(uname -n) $root" >>"$1/.inferbase/roots"
} 2>/dev/null
# forget PATHS: logs, pid files and records of services that are gone.
forget() {
  for path in "$@"; do rm -rf "${state:?}/$path"; done
}
# settle SERVICES: that they were evicted is over; the control of an earlier version knows nothing
# of it.
settle() {
  for one in "$@"; do rm -f "$state/evicted/$one"; done
}

step prepare
[ -L "$root" ] && die symlink "$root is a symbolic link"
for path in "$state" "$gens" "$state/started" "$state/run" "$state/ready" "$state/evicted"; do
  [ -L "$path" ] && die symlink "$path is a symbolic link"
done
problem=$(mkdir -p "$gens" "$state/started" "$state/run" 2>&1) || die io "$problem"

step lock
take_lock
in_force "$from" || die moved "$(readlink "$root/current" 2>/dev/null)"
[ -f "$state/journal" ] && earlier=$(head -n 1 "$state/journal")
# What earlier runs left behind in the middle of something.
for path in "$gens"/.new.* "$gens"/.old.* "$root/.current.new" "$root/.current.back"; do
  [ -e "$path" ] || [ -L "$path" ] && rm -rf "$path"
done
if [ -n "$left" ]; then
  step clear
  # By the generation that started it, which is there no longer than up to the sweep.
  printf '%s\n' "$left" | (
    while IFS='	' read -r number service; do
      # The record may be of the same service under another runtime, which stays.
      kept=$(cat "$state/started/$service" 2>/dev/null)
      cleared=yes
      control "$gens/$number/control" remove "$service" || cleared=no
      [ -z "$kept" ] || printf '%s\n' "$kept" >"$state/started/$service"
      [ "$cleared" = yes ] || exit 1
    done
  ) || die left "what an interrupted run has left cannot be removed"
fi
sweep "$back"

if [ "$size" -gt 0 ]; then
  step upload
  [ -e "$gens/$to" ] && die moved "generation $to"
  problem=$(mkdir -m 700 "$new" 2>&1) || die io "$problem"
  problem=$( { head -c "$size" | tar -xmpof - -C "$new"; } 2>&1) || {
    problem=${problem%%"
"*}
    die upload "$new: ${problem:-the archive did not arrive}"
  }
  cd "$new" || die io "$new is gone"
  { [ -f .sha256 ] && sha256sum -c .sha256 >/dev/null 2>&1; } ||
    die upload "the archive did not arrive whole"
  # Every file, and every directory that holds one.
  set -f
  set -- .
  while IFS= read -r path; do
    set -- "$@" "$path"
    case $path in */*) set -- "$@" "${path%/*}" ;; esac
  done <.files
  set +f
  sync .manifest .files .sha256 .units .models .unconfirmed "$@" 2>/dev/null || sync
  cd /
  step stage
  problem=$(mv -T "$new" "$gens/$to" 2>&1) || die io "$problem"
  fresh=yes
fi
[ -f "$gens/$to/.manifest" ] || die missing "generation $to is not there"
[ -z "$shelves" ] || printf '%s\n' "$shelves" | while IFS= read -r path; do note_root "$path"; done
journaled=yes
journal staged || die io "cannot write $state/journal"

step link
linking=yes
problem=$(make_links "$links") || die io "$problem"

step switch
[ "$(readlink "$state/lock")" = "$mine" ] || die locked "$(readlink "$state/lock")"
if [ "$from" != "$to" ]; then
  # The way back is laid first: it must not need space on a disk that fills up later.
  if [ "$back" != 0 ]; then
    problem=$(ln -sfn ".inferbase/generations/$back" "$root/.current.back" 2>&1) || die io "$problem"
  fi
  if [ "$from" = 0 ]; then
    problem=$(ln -sT ".inferbase/generations/$to" "$root/current" 2>&1)
  else
    problem=$( { ln -sfn ".inferbase/generations/$to" "$root/.current.new" &&
      mv -fT "$root/.current.new" "$root/current"; } 2>&1)
  fi
  in_force "$to" || die io "cannot switch $root/current: $problem"
  sync "$root" 2>/dev/null
fi
journal switched :

settle $gone $replace $start
ok=yes
if [ -n "$gone" ] && [ "$from" != 0 ]; then
  step stop
  control "$gens/$from/control" remove $gone || ok=no
  # For `health` that is no fault; control forgets it with the next start.
  [ -z "$evicted" ] || mkdir -p "$state/evicted" 2>/dev/null
  for one in $evicted; do
    { printf '%s at %s\n' "$who" "$when" >"$state/evicted/$one"; } 2>/dev/null
  done
fi
drop_links "$unlinks"
[ -z "$unlinks" ] || control "$root/current/control" reload
# The memory of an engine that has ended may come back late, on unified memory up to a minute.
available() {
  while read -r key value _; do [ "$key" = MemAvailable: ] && echo "$value"; done </proc/meminfo
}
if [ "$ok" = yes ] && [ "$room" -gt 0 ]; then
  patience=60
  while [ "$patience" -gt 0 ] && [ "$(available)" -lt "$room" ]; do
    sleep 1
    patience=$((patience - 1))
  done
fi
if [ "$ok" = yes ] && [ -n "$replace$start" ]; then
  step start
  if [ -n "$replace" ]; then control "$root/current/control" replace $replace || ok=no; fi
  if [ "$ok" = yes ] && [ -n "$start" ]; then
    control "$root/current/control" start $start || ok=no
  fi
fi
say 'started\t%s\n' "$ok"

revert() {
  journal reverting :
  if [ -n "$back_remove" ]; then control "$root/current/control" remove $back_remove; fi
  if [ -n "$back_stop" ]; then control "$root/current/control" stop $back_stop; fi
  if [ "$back" = 0 ]; then
    rm -f "$root/current"
  elif [ "$back" != "$to" ]; then
    [ -L "$root/.current.back" ] || ln -sfn ".inferbase/generations/$back" "$root/.current.back"
    mv -fT "$root/.current.back" "$root/current"
  fi
  sync "$root" 2>/dev/null
  good=yes
  in_force "$back" || good=no
  if [ "$good" = yes ]; then
    drop_links "$back_unlinks"
    make_links "$back_links" >/dev/null || good=no
    [ -z "$back_unlinks$back_links" ] || [ "$back" = 0 ] || control "$root/current/control" reload
    if [ -n "$back_replace" ]; then
      settle $back_replace
      control "$root/current/control" replace $back_replace || good=no
    fi
  fi
  say 'reverted\t%s\n' "$good"
}
# One line of the operator, or the end; long silence is the end, too (`read` has no timeout).
hear() { timeout "$silence" sh -c 'IFS= read -r line && printf "%s\n" "$line"'; }
while verdict=$(hear); do
  case $verdict in
    commit)
      step confirm
      for one in $ready; do note_ready "$one"; done
      record "$what"
      forget $forget
      # In this order, as rm takes them.
      if [ "$confirm" = yes ]; then set -- "$gens/$to/.unconfirmed"; else set --; fi
      rm -f "$@" "$state/journal" "$root/.current.back"
      sweep "$to"
      prune
      step unlock
      unlock
      say 'done\n'
      exit 0
      ;;
    revert) step revert; revert ;;
    reverted)
      record rolled-back
      forget $back_forget
      # A release that failed is not kept: a later rollback must never land on it.
      sweep "$back"
      rm -f "$state/journal" "$root/.current.back"
      unlock
      say 'done\n'
      exit 0
      ;;
  esac
done
unlock
exit 1
