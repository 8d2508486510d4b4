# look: functions that only read; calls of them follow.
set -u
LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export LC_ALL PATH
# files PATTERN...: the text of what is there and readable, each line behind its path and a NUL.
files() {
  count=$#
  seen=
  for path in "$@"; do
    if [ ! -f "$path" ]; then
      # A link to /dev/null stands for an empty file: so files of systemd are masked.
      if [ -h "$path" ] && [ -c "$path" ]; then printf 'there\t%s\n' "$path"; fi
      continue
    fi
    # Two patterns may find one file.
    case $seen in *"|$path|"*) continue ;; esac
    seen="$seen|$path|"
    if [ -r "$path" ]; then
      printf 'there\t%s\n' "$path"
      set -- "$@" "$path"
    else
      printf 'closed\t%s\n' "$path"
    fi
  done
  shift "$count"
  [ $# -ne 0 ] || return 0
  # One process for all of them; -a because a stray byte must not hide a file. What it cannot
  # read, though it may open it, is told after everything else.
  { problems=$(grep -a -H --null '' -- "$@" 2>&1 >&3); } 3>&1
  [ -z "$problems" ] || printf '%s\n' "$problems"
}
stats() {
  stat -c 'stat	%n	%F	%a	%U	%G	%d' -- "$@" 2>/dev/null
}
# probe NAME PROGRAM ARGUMENT...: its output between a line \001NAME and \002STATUS.
probe() {
  printf '\001%s\n' "$1"
  shift
  if command -v "$1" >/dev/null 2>&1; then
    "$@" </dev/null 2>&1
    printf '\002%s\n' "$?"
  else
    printf '\002-1\n'
  fi
}
