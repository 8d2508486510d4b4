# undo: runs after the steps of one undo, whose failures have set failed. Arguments: who undoes it
# and what for; none when the machine does so by itself. Nobody need be watching: a timer, the next
# start of the machine, or the next run may be the caller. reloads: yes when a step may have made
# systemd read its units anew.
[ -z "$reloads" ] || check_gpus
if [ -z "$failed" ]; then
  now=$(date +%s)
  printf '%s\t%s\t%s\t%s\n' "$now" "${1:-machine}" "${2:-undone}" "${dir##*/}" >>"$state/history"
  # The next look tells what nobody has seen.
  if [ $# -eq 0 ]; then
    printf '%s\t%s\n' "$now" "${dir##*/}" >"$state/undone"
  else
    rm -f "$state/undone"
  fi
  # Renamed first: what is interrupted here is no half generation.
  mv -T "$dir" "$state/.old.${dir##*/}" || exit 1
  [ "$(cat "$state/journal" 2>/dev/null)" = "${dir##*/}" ] && rm -f "$state/journal"
  rm -rf "$state/.old.${dir##*/}"
else
  printf 'failed\t%s\n' "$failed"
  exit 1
fi
