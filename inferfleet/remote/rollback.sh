# rollback: the newest generation of host preparation is undone, or one that was interrupted.
# Variables: state, units, number, who, when, what.
[ -L "$state" ] && die symlink "$state is a symbolic link"
take_lock
dir=$state/$number
if [ ! -f "$dir/undo.sh" ]; then
  # A run that was killed before its first step, or at the very end of its undo.
  [ "$(cat "$state/journal" 2>/dev/null)" = "$number" ] || die moved "no generation $number"
  rm -rf "$dir" "$state/journal"
  say 'undone\tyes\n'
  unlock
  exit 0
fi
printf '%s\n' "$number" >"$state/journal" && sync "$state/journal"
if [ -e "$dir/armed" ]; then
  rm -f "$dir/armed"
  disarm slow undo
  disarm_boot
fi
if sh "$dir/undo.sh" "$who" "$what"; then say 'undone\tyes\n'; else say 'undone\tno\n'; fi
unlock
