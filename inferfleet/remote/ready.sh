# ready: which start of a service was seen to answer, so that silence later is not taken for
# loading. Functions; the caller sets root and state (a folder).
#
# start_of SERVICE: what tells this start of it from every other; fails when it does not run.
start_of() {
  while read -r service runtime name _; do
    [ "$service" = "$1" ] || continue
    case $runtime in
      compose)
        docker inspect --format '{{.State.Running}} {{.Id}} {{.State.StartedAt}}' "$name" \
          2>/dev/null | grep '^true '
        ;;
      systemd) systemctl show -p InvocationID "$name.service" 2>/dev/null | grep '=.' ;;
      process) cat "$state/run/$name/child" 2>/dev/null ;;
    esac
    return
  done <"$root/current/.units"
  return 1
}
# note_ready SERVICE: its start of this moment has answered. Without a place for the note: nothing.
note_ready() {
  seen=$(start_of "$1") || return 0
  [ "$(cat "$state/ready/$1" 2>/dev/null)" != "$seen" ] || return 0
  { [ ! -L "$state/ready" ] && mkdir -p "$state/ready" &&
    printf '%s\n' "$seen" >"$state/ready/.$1.$$" &&
    mv -f "$state/ready/.$1.$$" "$state/ready/$1"; } 2>/dev/null
}
# was_ready SERVICE: whether the start that runs now is the one that answered.
was_ready() {
  [ -f "$state/ready/$1" ] && seen=$(start_of "$1") && [ "$(cat "$state/ready/$1")" = "$seen" ]
}
