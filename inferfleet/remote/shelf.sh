# What lies in a models directory, who uses it, and the room on its disk; changes nothing.
# Variables: models (the directory), root (of this inferbase), paths (models that are not ours,
# one a line). Output: records, fields separated by tabs, the last one is end.
# shellcheck disable=SC2010,SC2015,SC2046,SC2086,SC2154
set -u
LC_ALL=C
export LC_ALL
tab=$(printf '\t')
meta=$models/.inferbase
# Names that a process, a mount or a generation can hold.
names=$(mktemp) && found=$(mktemp) || exit 1
trap 'rm -f "$names" "$found"' EXIT

here=$(uname -n)
printf 'here\t%s\n' "$here"
boot=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null || echo -)
# Whether the owner written in a lock may still run; store.sh writes them.
alive() {
    [ "$#" -eq 4 ] && [ "$3" = "$here" ] && [ -r /proc/1/stat ] || return 0
    [ "$4" = "$boot" ] && { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
    born=$2
    set -- ${line##*) }
    case $1 in [ZXx]) return 1 ;; esac
    shift 19
    [ "$1" = "$born" ]
}
# Whether it is certain that nothing lies at a path.
absent() {
    up=$1
    [ ! -e "$up" ] && [ ! -h "$up" ] || return 1
    while [ ! -e "$up" ] && [ ! -h "$up" ]; do
        case $up in */*) up=${up%/*} ;; *) return 1 ;; esac
        up=${up:-/}
    done
    [ -d "$up" ] && [ -x "$up" ]
}

# The disk that the directory is on or will be on.
place=$models
while [ ! -d "$place" ] && [ "$place" != / ]; do
    place=${place%/*}
    place=${place:-/}
done
df -Pk "$place" | { read -r _; read -r _ total _ free _; printf 'disk\t%s\t%s\n' "$((free * 1024))" "$((total * 1024))"; }

for lock in "$meta"/*.lock; do
    [ -f "$lock" ] && alive $(cat "$lock" 2>/dev/null) || continue
    lock=${lock##*/}
    printf 'lock\t%s\n' "${lock%.lock}"
done
for record in "$meta"/*.json; do
    if [ -f "$record" ] && IFS= read -r line <"$record"; then
        name=${record##*/}
        printf 'stamp\t%s\t%s\n' "${name%.json}" "$line"
    fi
done
for entry in "$models"/*/*/* "$models"/*/*/.[!.]*; do
    rel=${entry#"$models"/}
    if [ -h "$entry" ]; then
        case ${entry##*/} in .*) continue ;; esac
        case $(readlink "$entry") in .*@*) ;; *) continue ;; esac
        printf 'link\t%s\t%s\n' "$rel" "$(readlink "$entry")"
        printf '/%s\n' "$rel" >>"$names"
    elif [ -d "$entry" ]; then
        case ${entry##*/} in .*@????????????) ;; *) continue ;; esac
        printf 'store\t%s\n' "$rel"
        printf '%s\n' "/${entry##*/}/" >>"$found"
        (cd "$entry" && find . -type f -exec stat -c '%i %h %s %n' {} +) |
            while IFS= read -r line; do printf 'file\t%s\t%s\n' "$rel" "$line"; done
    fi
done
# Alias directories, each with what one of its links leads to.
if [ -d "$models" ]; then
    find "$models" -maxdepth 6 -name .inferbase-alias -type f 2>/dev/null | while IFS= read -r entry; do
        alias=${entry%/*}
        target=
        for link in "$alias"/*; do
            [ ! -h "$link" ] || { target=$(readlink "$link"); break; }
        done
        case $target in ../*) target=$(cd "$alias" && cd "${target%/*}" 2>/dev/null && pwd) ;; esac
        printf 'alias\t%s\t%s\n' "${alias#"$models"/}" "${target#"$models"/}"
        printf '/%s\n' "${alias#"$models"/}" >>"$names"
    done
fi
# Generations, of every inferbase on this machine that has used the directory. What cannot be
# read may use everything.
if [ -s "$names" ]; then
    absent "$meta/roots" || [ -r "$meta/roots" ] ||
        printf 'elsewhere\t%s (cannot be read)\n' "$meta/roots"
    { printf '%s\n' "$here $root"; cat "$meta/roots" 2>/dev/null; } | sort -u |
        while read -r host other; do
            if [ "$host" != "$here" ]; then
                printf 'elsewhere\t%s\t%s\n' "$host" "$other"
                continue
            fi
            # A service reads what it was started with, also where its processes cannot be looked at.
            [ ! -s "$found" ] || cat "$other"/.inferbase/started/* 2>/dev/null |
                sed -n "s|.*$tab\(\.[^/]*@[^/]*\)\$|/\1/|p" | grep -xF -f "$found" |
                while IFS= read -r name; do printf 'started\t%s\n' "$name"; done
            generations=$other/.inferbase/generations
            ! absent "$generations" || continue
            unread=
            [ -d "$generations" ] && [ -r "$generations" ] && [ -x "$generations" ] || unread=1
            current=$(readlink "$other/current")
            for generation in "$generations"/[0-9]*; do
                [ -d "$generation" ] || continue
                number=${generation##*/}
                [ "${current##*/}" != "$number" ] || number="$number current"
                uses=$(grep -rhosF -f "$names" "$generation")
                [ "$?" -lt 2 ] || unread=1
                [ -n "$uses" ] || continue
                printf '%s\n' "$uses" | sort -u | while IFS= read -r rel; do
                    printf 'use\t%s\t%s\t%s\n' "$other" "$number" "$rel"
                done
            done
            [ -z "$unread" ] || printf 'elsewhere\t%s (cannot be read)\n' "$other"
        done
fi
if [ -s "$found" ]; then
    { grep -hoF -f "$found" /proc/[0-9]*/maps; ls -l /proc/[0-9]*/fd | grep -oF -f "$found"; } \
        2>/dev/null | sort -u | while IFS= read -r name; do printf 'held\t%s\n' "$name"; done
    grep -oF -f "$found" /proc/self/mountinfo | sort -u |
        while IFS= read -r name; do printf 'pages\t%s\n' "$name"; done
fi
printf '%s\n' "$paths" | while IFS= read -r path; do
    [ -n "$path" ] || continue
    if [ -e "$path" ]; then
        kib=$(du -skL "$path" 2>/dev/null)
        printf 'path\t%s\t%s\n' "$path" "${kib%%"$tab"*}"
    fi
done
printf 'end\n'
