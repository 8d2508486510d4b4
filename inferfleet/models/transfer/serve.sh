# The side of a machine that another one copies a model from; peer.py speaks to it. Runs as the
# user that logs in, not through sudo. Lines on standard input: the directory of the model's
# files, the public key that may read them, the number of files, size and path of each.
#
# As long as this runs, one line in authorized_keys lets that key, for at most a day, run one
# program that prints one of these files from an offset, and nothing else: no shell, terminal,
# forwarding or agent. The end of the input, at the latest that of the connection, takes the line
# away. What a run that is killed leaves, the next run on the same machine removes; others that
# share the home directory leave it alone.
# shellcheck disable=SC2015,SC2016,SC2088,SC2317
set -u
LC_ALL=C
export LC_ALL
umask 077
work=""
me=$(uname -n | tr -cd 'A-Za-z0-9._-')
keys=$HOME/.ssh/authorized_keys
lock=$HOME/.ssh/inferbase-copy.lock

say() { printf '%s\n' "$*" 2>/dev/null; }
no() {
    say "no $(printf '%s' "$*" | tr '\n' ' ')"
    exit 0
}
# Edits of authorized_keys by runs of ours come one after the other.
locked() {
    tries=0
    until mkdir "$lock" 2>/dev/null; do
        tries=$((tries + 1))
        [ -z "$(find "$lock" -prune -mmin +1 2>/dev/null)" ] || rmdir "$lock" 2>/dev/null
        [ "$tries" -lt 100 ] || return 1
        sleep 0.1 2>/dev/null || sleep 1
    done
    "$@"
    result=$?
    rmdir "$lock"
    return "$result"
}
# without DIRECTORY: authorized_keys without the line whose program lies there.
without() {
    [ -f "$keys" ] || return 0
    new=$HOME/.ssh/inferbase-copy.keys.$$
    # cp -p: the new file keeps owner and mode; grep finds nothing in a file that held only ours.
    cp -p "$keys" "$new" || return 1
    grep -vF -- "$1/serve" "$keys" >"$new"
    [ "$?" -lt 2 ] && mv -f "$new" "$keys" && return 0
    rm -f "$new"
    return 1
}
append() {
    if [ -s "$keys" ] && [ -n "$(tail -c 1 "$keys")" ]; then echo >>"$keys" || return 1; fi
    printf '%s\n' "$1" >>"$keys"
}
# A line that stays needs its directory, by which the next run finds it.
forget() {
    if locked without "$1"; then rm -rf "$1"; else rm -f "$1/serve"; fi
}
leave() {
    trap '' HUP INT TERM
    [ -z "$work" ] || forget "$work"
    exit 0
}

{ IFS= read -r dir && IFS= read -r public && IFS= read -r count; } || exit 1
case $HOME in /*) ;; *) no "the user has no home directory" ;; esac
case $HOME in *[!A-Za-z0-9/._@+-]*) no "the home directory has an unusual name" ;; esac
case $public in ssh-ed25519\ [A-Za-z0-9]*) ;; *) no "that is no public key" ;; esac
case $public in *[!A-Za-z0-9+/=\ -]*) no "that is no public key" ;; esac
[ -d "$HOME/.ssh" ] && [ ! -h "$keys" ] || no "the user has no ~/.ssh of the usual kind"
[ -w "$HOME/.ssh" ] || no "~/.ssh cannot be written"
cd "$dir" 2>/dev/null || no "$dir cannot be entered by $(id -un)"

# What runs that were killed have left.
for old in "$HOME/.ssh/inferbase-copy.$me".*.??????; do
    pid=${old##*/inferbase-copy."$me".}
    pid=${pid%.*}
    # Another machine's name may begin with that of this one.
    case $pid in '' | *[!0-9]*) continue ;; esac
    if [ -d "$old" ] && ! kill -0 "$pid" 2>/dev/null; then forget "$old"; fi
done
trap leave HUP INT TERM
trap '' PIPE
work=$(mktemp -d "$HOME/.ssh/inferbase-copy.$me.$$.XXXXXX" 2>/dev/null) || no "~/.ssh is full"
{
    pwd -P
    while [ "$count" -gt 0 ] && IFS= read -r name; do
        printf '%s\n' "$name"
        count=$((count - 1))
    done
} >"$work/list"
while IFS= read -r line; do
    case $line in /*) continue ;; esac
    name=${line#* }
    [ -r "$name" ] || { reason="$name cannot be read by $(id -un)"; forget "$work"; no "$reason"; }
done <"$work/list"
cat >"$work/serve" <<'SERVE'
set -fu
case ${SSH_ORIGINAL_COMMAND-} in *[!0-9\ ]*) exit 64 ;; esac
set -- ${SSH_ORIGINAL_COMMAND-}
[ "$#" -eq 2 ] && [ "${#1}" -le 6 ] && [ "${#2}" -le 18 ] || exit 64
here=${0%/*}
IFS= read -r dir <"$here/list" && line=$(sed -n "$(($1 + 1))p" "$here/list")
[ "$1" -ge 1 ] && [ -n "$line" ] && cd "$dir" && [ -r "${line#* }" ] || exit 66
# A file in huge pages is longer than its content.
tail -c "+$(($2 + 1))" "./${line#* }" | head -c "$((${line%% *} - $2))"
SERVE
day=$(date -d "@$(($(date +%s) + 86400))" +%Y%m%d%H%M 2>/dev/null) || day=
if [ -z "$day" ]; then forget "$work"; no "its date cannot compute an expiry"; fi
line="restrict,expiry-time=\"$day\",command=\"exec sh $work/serve\" $public"
if ! locked append "$line"; then forget "$work"; no "authorized_keys cannot be written"; fi
say "ok"
# The input stays open as long as the copy is wanted.
while IFS= read -r _; do :; done
leave
