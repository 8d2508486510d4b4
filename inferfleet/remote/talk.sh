# talk: how a run of host preparation begins and speaks: a record a line, fields separated by tabs.
# It goes on when nobody listens any more.
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
# die KIND DETAIL: nothing was changed.
die() {
  unlock
  say 'error\t%s\t%s\n' "$1" "$(one_line "$2")"
  exit 1
}
