# hostprep: one run of host preparation on a machine; a verdict comes on standard input.
#
# Variables: state (the folder), units (systemd's), number (of the generation to make), who, when,
# what, keep (how many generations stay), silence (seconds without a word of the operator after
# which the run is undone), cut (seconds after the last step after which the machine undoes it by
# itself unless it was committed; 0: no such timer), slow (seconds that the steps may take before
# that), reloads (yes: steps may make systemd read its units anew), undo (text of undo.sh), record
# (JSON about the generation), look (a program that looks at the machine).
# The caller adds the function `forward`, whose lines are `attempt TEXT STEP... || return 1`, and
# calls `main`.
#
# A run that loses its operator is undone; one that is killed leaves a journal, and the next run,
# or the timer, undoes it.
dir=$state/$number
attempt() {
  text=$1
  shift
  say 'step\t%s\n' "$text"
  if [ "$cut" != 0 ] && [ ! -e "$dir/armed" ]; then
    say 'failed\t%s\tthe machine has undone the run by itself\n' "$text"
    return 1
  fi
  problem=$("$@" 2>&1) && return 0
  say 'failed\t%s\t%s\n' "$text" "$(one_line "$problem")"
  return 1
}
history_line() {
  printf '%s\t%s\t%s\t%s\n' "$(date +%s)" "$who" "$1" "$number" >>"$state/history"
}
prepare() {
  [ -L "$state" ] && die symlink "$state is a symbolic link"
  problem=$(mkdir -p -m 700 "$state" 2>&1) || die io "$problem"
  take_lock
  [ -e "$state/journal" ] && die moved "a run that was not finished"
  [ -e "$dir" ] && die moved "generation $number"
  rm -rf "$state"/.new.* "$state"/.old.*
  new=$state/.new.$$
  # The journal first: a generation without one is a run that was committed.
  problem=$({ mkdir -m 700 "$new" && printf '%s' "$undo" >"$new/undo.sh" &&
    printf '%s\n' "$record" >"$new/record.json" && printf '%s\n' "$number" >"$state/journal" &&
    sync "$new/undo.sh" "$new/record.json" "$state/journal" && mv -T "$new" "$dir" &&
    sync "$state"; } 2>&1) || {
    rm -rf "$new" "$dir" "$state/journal"
    die io "$problem"
  }
}
go_back() {
  # "$@": who undoes it and what for, nothing when nobody has told this machine to.
  if [ "$cut" != 0 ]; then
    rm -f "$dir/armed"
    disarm slow undo
    disarm_boot
  fi
  # Without it the timer has undone everything.
  if [ ! -e "$dir/undo.sh" ] || sh "$dir/undo.sh" "$@"; then
    say 'undone\tyes\n'
  else
    say 'undone\tno\n'
  fi
  unlock
}
# Only the newest can be undone, one after the other: the oldest ones are left out.
prune() {
  for path in "$state"/*/; do
    old=${path%/}
    old=${old##*/}
    case $old in '' | *[!0-9]*) continue ;; esac
    [ "$old" -gt "$((number - keep))" ] && continue
    mv -T "$state/$old" "$state/.old.$old" && rm -rf "${state:?}/.old.$old"
  done
}
hear() { timeout "$silence" sh -c 'IFS= read -r line && printf "%s\n" "$line"'; }
main() {
  prepare
  if [ "$cut" != 0 ] && ! { : >"$dir/armed" && arm_boot && arm slow "$((slow + cut))"; }; then
    disarm_boot
    rm -rf "$dir" "$state/journal"
    die timer "systemd-run cannot set the timer that undoes a change which cuts us off"
  fi
  if ! forward; then
    go_back "$who" "$what, undone"
    exit 1
  fi
  [ -z "$reloads" ] || check_gpus
  if [ "$cut" != 0 ] && arm undo "$cut"; then disarm slow; fi
  say 'look\n'
  sh -c "$look" </dev/null 2>/dev/null
  while verdict=$(hear); do
    case $verdict in
      commit)
        # Whatever undid it first, this run or the timer: then there is nothing to commit.
        if [ "$cut" != 0 ] && ! rm "$dir/armed" 2>/dev/null; then
          die undone "the machine has undone it by itself: the confirmation came too late"
        fi
        history_line "$what"
        rm -f "$state/journal" "$state/undone"
        [ "$cut" = 0 ] || { disarm slow undo; disarm_boot; }
        prune
        unlock
        say 'done\n'
        exit 0
        ;;
      revert)
        go_back "$who" "$what, undone"
        exit 1
        ;;
    esac
  done
  go_back
  exit 1
}
