# undo: runs after the steps of one undo, whose failures have set failed. Nobody need be watching:
# a timer, the next start of the machine, or the next run may be the caller.
if [ -z "$failed" ]; then
  printf '%s\tmachine\tundone\t%s\n' "$(date +%s)" "${dir##*/}" >>"$state/history"
  [ "$(cat "$state/journal" 2>/dev/null)" = "${dir##*/}" ] && rm -f "$state/journal"
  # Renamed first: what is interrupted here is no half generation.
  mv -T "$dir" "$state/.old.${dir##*/}" && rm -rf "$state/.old.${dir##*/}"
else
  printf 'failed\t%s\n' "$failed"
  exit 1
fi
