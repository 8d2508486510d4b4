# timer: the dead man's timer of a run of host preparation: the machine goes back by itself when
# nobody says that all is well. The caller sets dir, the folder of the generation. Whoever removes
# $dir/armed decides: the timer to undo the run, the run to commit or to undo it itself.
#
# arm NAME SECONDS
arm() {
  systemd-run --quiet --collect --on-active="$2" --timer-property=AccuracySec=100ms \
    --unit="inferbase-hostprep-$1-${dir##*/}" \
    /bin/sh -c 'rm "$1/armed" && exec sh "$1/undo.sh"' sh "$dir" >/dev/null 2>&1
}
# An undo that the timer has begun is ended with it; the caller sees by undo.sh whether it was
# done and may begin it anew.
disarm() {
  for name in "$@"; do
    set -- "$@" "inferbase-hostprep-$name-${dir##*/}.timer" \
      "inferbase-hostprep-$name-${dir##*/}.service"
    shift
  done
  systemctl stop "$@" >/dev/null 2>&1
}
