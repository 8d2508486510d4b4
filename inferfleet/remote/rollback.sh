# rollback: the newest generation of host preparation is undone, or one that was interrupted.
# Variables: state, number, who, when, what.
set -u
LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export LC_ALL PATH
umask 022
trap '' HUP PIPE INT
claim=
mine=
say() { printf "$@" 2>/dev/null; }
one_line() { printf '%s' "$1" | tr '\t\n' '  '; }
die() {
  unlock
  say 'error\t%s\t%s\n' "$1" "$(one_line "$2")"
  exit 1
}
[ -L "$state" ] && die symlink "$state is a symbolic link"
take_lock
[ -f "$state/$number/undo.sh" ] || die moved "no generation $number"
printf '%s\n' "$number" >"$state/journal" && sync "$state/journal"
systemctl stop "inferbase-hostprep-undo-$number.timer" >/dev/null 2>&1
if sh "$state/$number/undo.sh"; then say 'undone\tyes\n'; else say 'undone\tno\n'; fi
unlock
