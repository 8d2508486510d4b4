# timer: the dead man's timer of a run of host preparation: the machine goes back by itself when
# nobody says that all is well. The caller sets dir, the folder of the generation, and
# units, the folder of systemd's units. Whoever removes
# $dir/armed decides: the timer to undo the run, the run to commit or to undo it itself.
#
# A timer does not outlive its machine's power, so a unit that the next start runs, before there is
# a network, stands beside it.
boot_unit=$units/inferbase-hostprep-undo.service
boot_link=$units/sysinit.target.wants/inferbase-hostprep-undo.service
arm_boot() {
  {
    mkdir -p "${boot_link%/*}" && cat >"$boot_unit" <<END && ln -sfn "$boot_unit" "$boot_link" &&
# Made by inferbase for the time of one run: undoes it when the machine lost its power in it.
[Unit]
Description=undo a run of host preparation that was cut (inferbase)
DefaultDependencies=no
After=local-fs.target
Before=network-pre.target sysinit.target
Conflicts=shutdown.target

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'rm -f $boot_link $boot_unit; rm "\$\$1/armed" && exec sh "\$\$1/undo.sh"' sh $dir
END
      sync "$boot_unit" "${boot_link%/*}" "$dir/armed"
  } >/dev/null 2>&1
}
disarm_boot() { rm -f "$boot_link" "$boot_unit"; }
# arm NAME SECONDS
arm() {
  systemd-run --quiet --collect --on-active="$2" --timer-property=AccuracySec=100ms \
    --unit="inferbase-hostprep-$1-${dir##*/}" \
    /bin/sh -c 'rm "$1/armed" && rm -f "$2" "$3" && exec sh "$1/undo.sh"' \
    sh "$dir" "$boot_link" "$boot_unit" >/dev/null 2>&1
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
