# The machine's side of fetching a model; store.py speaks to it, one verb a line, each
# followed by its values, one a line. An answer is any number of lines that begin with a
# lower-case letter and a space, and a last one: "ok ...", "no ..." or "fail STATUS TEXT".
# The first three lines: models directory, key, the model's directory. The first answer is
# "ok TOOL PROCESS MACHINE", or "no PROCESS MACHINE" of the one that holds the lock.
# shellcheck disable=SC2015,SC2046,SC2086,SC2094,SC2317
set -u
LC_ALL=C
export LC_ALL
umask 022
child="" held="" store="" copies=""
IFS= read -r root && IFS= read -r key && IFS= read -r dir || exit 1
meta=$root/.inferbase
lock=$meta/$key.lock
tmp=$meta/.$key.$$
parent=${dir%/*}
base=${dir##*/}

leave() {
    trap '' HUP INT TERM
    if [ -n "$child" ]; then kill "$child" 2>/dev/null; wait "$child"; fi
    rm -f "$tmp".*
    [ -z "$copies" ] || rm -rf "$copies"
    [ -z "$held" ] || rm -f "$lock"
    exit "$1"
}
# A closed connection must not leave a download running behind a released lock.
trap '' PIPE
trap 'leave 1' HUP INT TERM

say() { printf '%s\n' "$*" 2>/dev/null || leave 1; }
fail() {
    fail_status=$1
    shift
    say "fail $fail_status $(printf '%s' "$*" | tr '\n\t' '  ')"
}
# Runs a command; when it fails, answers with its own words.
try() {
    words=$("$@" 2>&1 >/dev/null) && return 0
    fail "$?" "$words"
    return 1
}
size() { stat -c %s "$1" 2>/dev/null || echo 0; }
flush() { sync "$1" 2>/dev/null || sync; }

# Start time of a process in clock ticks (field 22 of proc(5)); nothing for one that has ended.
started() {
    { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
    set -- ${line##*) }
    case $1 in [ZXx]) return 1 ;; esac
    shift 19
    printf '%s\n' "$1"
}
boot() { cat /proc/sys/kernel/random/boot_id 2>/dev/null || echo -; }
# Whether the owner written in a lock still runs; one of another machine counts as running.
alive() {
    [ "$3" = "$(uname -n)" ] || return 0
    [ "$4" = "$(boot)" ] || return 1
    if [ -e "/proc/$$/stat" ]; then [ "$(started "$1")" = "$2" ]; else kill -0 "$1" 2>/dev/null; fi
}
take_lock() {
    tries=0
    while :; do
        mine="$$ $(started "$$" || echo -) $(uname -n) $(boot)"
        if ! words=$({ printf '%s\n' "$mine" >"$tmp.own"; } 2>&1); then
            # What the shell says of a full disk differs.
            [ "$(free)" -ge 65536 ] || words="$words: No space left"
            fail 1 "$words"
            return 1
        fi
        if ln "$tmp.own" "$lock" 2>/dev/null; then break; fi
        tries=$((tries + 1))
        if [ "$tries" -gt 50 ]; then fail 1 "cannot create $lock"; return 1; fi
        owner=$(cat "$lock" 2>/dev/null) || continue
        set -- $owner
        if [ "$#" -eq 4 ] && alive "$@"; then say "no $1 $3"; return 1; fi
        # A dead lock is removed by one run at a time, lest a second one removes the first's.
        if mkdir "$lock.break" 2>/dev/null; then
            [ "$(cat "$lock" 2>/dev/null)" != "$owner" ] || rm -f "$lock"
            rmdir "$lock.break"
        else
            [ -z "$(find "$lock.break" -prune -mmin +1 2>/dev/null)" ] || rmdir "$lock.break"
            sleep 0.1 2>/dev/null || sleep 1
        fi
    done
    held=1
    # What runs that were killed have left.
    rm -f "$meta/.$key."[0-9]*.*
}

free() {
    df -Pk "$root" | { read -r _; read -r _ _ _ kib _; echo "$((kib * 1024))"; }
}
tool() {
    for name in curl wget; do
        if command -v "$name" >/dev/null 2>&1; then echo "$name"; return; fi
    done
    echo none
}

listing() {
    if [ -d "$1" ]; then (cd "$1/" && find . -type f -exec stat -c 'f %s %n' {} +); fi
}
# Names in a directory, or the name of a file, for an alias.
names() {
    if [ -d "$1" ]; then
        (cd "$1/" && for n in * .[!.]*; do if [ -e "$n" ]; then say "e $n"; fi; done)
    elif [ -e "$1" ]; then
        say "e ${1##*/}"
    else
        say "no"
        return
    fi
    say "ok"
}

progress() {
    nap=0.02
    while kill -0 "$child" 2>/dev/null; do
        say "p $(size "$1")"
        sleep "$nap" 2>/dev/null || sleep 1
        case $nap in 0.02) nap=0.05 ;; 0.05) nap=0.1 ;; *) nap=0.3 ;; esac
    done
    wait "$child"
    status=$?
    child=
}
# The address and the header reach curl on its standard input, never as arguments.
get() {
    IFS= read -r part && IFS= read -r how && IFS= read -r url && IFS= read -r header || leave 1
    part=$store/$part.part
    try mkdir -p "${part%/*}" || return
    follow='-L --max-redirs 10'
    [ -z "$header" ] || follow=
    case $url in https:*) only=https ;; *) only=http,https ;; esac
    if [ "$how" = curl ]; then
        {
            printf 'url = "%s"\n' "$url"
            [ -z "$header" ] || printf 'header = "%s"\n' "$header"
        } | curl -K - -sS --fail --globoff --proto "=$only" $follow --connect-timeout 20 \
            --speed-limit 1 --speed-time 120 -C "$(size "$part")" -o "$part" \
            -w '%{http_code}' >"$tmp.out" 2>"$tmp.err" &
    else
        printf '%s\n' "$url" | wget -nv -c -t 1 -T 120 -i - -O "$part" >"$tmp.out" 2>"$tmp.err" &
    fi
    child=$!
    progress "$part"
    code=0
    [ "$how" != curl ] || code=$(cat "$tmp.out")
    case $code in 3??) status=22 ;; esac
    if [ "$status" -eq 0 ]; then
        say "ok $(size "$part")"
    else
        fail "$status" "${code:-0} $(tail -n 2 "$tmp.err")"
    fi
}
put() {
    IFS= read -r part && read -r count || leave 1
    part=$store/$part.part
    try mkdir -p "${part%/*}" || leave 1
    words=$(head -c "$count" 2>&1 >>"$part")
    status=$?
    # After a failed write the rest of the bytes still stands in the input: give up.
    if [ "$status" -ne 0 ]; then fail "$status" "$words"; leave 1; fi
    say "ok $(size "$part")"
}
# Replaces a small file in one step: directory, name, number of bytes, the bytes.
put_small() {
    IFS= read -r where && IFS= read -r name && read -r count || leave 1
    try mkdir -p "$where" || leave 1
    words=$(head -c "$count" 2>&1 >"$where/.$name.new")
    status=$?
    if [ "$status" -ne 0 ]; then rm -f "$where/.$name.new"; fail "$status" "$words"; leave 1; fi
    flush "$where/.$name.new"
    try mv -fT "$where/.$name.new" "$where/$name" && say "ok"
}
digest() {
    IFS= read -r part || leave 1
    part=$store/$part.part
    set -- $(sha256sum <"$part") && sum=$1
    set -- $({ printf 'blob %s\0' "$(size "$part")"; cat "$part"; } | sha1sum) && say "ok $sum $1"
}
digest_plain() {
    IFS= read -r part || leave 1
    set -- $(sha256sum <"$store/$part.part") && say "ok $1"
}
digest_kept() {
    IFS= read -r part || leave 1
    set -- $(sha256sum <"$store/$part") && say "ok $1"
}
keep() {
    IFS= read -r part || leave 1
    flush "$store/$part.part"
    try mv -fT "$store/$part.part" "$store/$part" && say "ok"
}
reuse() {
    IFS= read -r part && IFS= read -r old || leave 1
    mkdir -p "$(dirname "$store/$part")"
    if ln "$root/$old" "$store/$part" 2>/dev/null; then say "ok"; else say "no"; fi
}
# The records of all whole models, each with the directory of its files below the root.
known() {
    for record in "$meta"/*.json; do
        [ -f "$record" ] && IFS= read -r line <"$record" || continue
        name=$(printf '%s\n' "$line" | sed -n 's/.*"store":"\([^"/]*\)".*/\1/p')
        for place in "$root"/*/*/"$name"; do
            [ -z "$name" ] || [ ! -d "$place" ] || break
        done
        record=${record##*/}
        if [ -n "$name" ] && [ -d "$place" ]; then
            say "s ${record%.json}$(printf '\t')${place#"$root"/}$(printf '\t')$line"
        fi
    done
    say "ok"
}
remember() {
    old=$(readlink "$dir") || old=
    if [ -n "$old" ] && [ "$old" != "${store##*/}" ] && [ -f "$meta/$key.json" ]; then
        try cp "$meta/$key.json" "$tmp.old" || return
        flush "$tmp.old"
        try mv -fT "$tmp.old" "$meta/$key$old.json" || return
    fi
    say "ok"
}
switch() {
    if [ -e "$dir" ] && [ ! -h "$dir" ]; then say "no"; return; fi
    if [ "$(readlink "$dir")" = "${store##*/}" ]; then say "ok"; return; fi
    rm -f "$parent/.$base.link"
    try ln -s "${store##*/}" "$parent/.$base.link" || return
    try mv -fT "$parent/.$base.link" "$dir" || return
    flush "$parent"
    say "ok switched"
}
sweep() {
    for other in "$parent/.$base@"*; do
        [ ! -f "$meta/$key${other##*/}.json" ] || continue
        if [ "$other" != "$store" ] && [ -d "$other" ]; then rm -rf "$other"; fi
    done
    say "ok"
}
tidy() {
    if [ -n "$store" ]; then find "$store" -depth -type d -exec rmdir {} + 2>/dev/null; fi
    say "ok"
}
remove() {
    IFS= read -r path || leave 1
    case /$path/ in *//* | */../* | */./*) fail 1 "$path is not below the models directory"; return ;; esac
    try rm -rf "${root:?}/$path" || return
    climb "$path"
    say "ok"
}
# Removes empty directories above a path, up to the models directory.
climb() {
    above=$1
    while case $above in */*) ;; *) false ;; esac; do
        above=${above%/*}
        rmdir "$root/$above" 2>/dev/null || break
    done
}
empty() {
    IFS= read -r path || leave 1
    if rmdir "$root/$path" 2>/dev/null; then climb "$path"; fi
    say "ok"
}
root() {
    IFS= read -r line || leave 1
    line="$(uname -n) $line"
    if ! grep -qxF -- "$line" "$meta/roots" 2>/dev/null; then
        words=$(printf '%s\n' "$line" 2>&1 >>"$meta/roots") || { fail 1 "$words"; return; }
    fi
    say "ok"
}
# A key pair that lives as long as this conversation, in memory where the machine has a place.
copy_key() {
    if ! command -v ssh >/dev/null || ! command -v ssh-keygen >/dev/null; then say "no"; return; fi
    for base_dir in "${XDG_RUNTIME_DIR:-}" /dev/shm "${TMPDIR:-/tmp}"; do
        case $base_dir in *[[:space:]]*) continue ;; esac
        [ -n "$base_dir" ] && copies=$(mktemp -d "$base_dir/inferbase-copy.XXXXXX" 2>/dev/null) && break
        copies=
    done
    [ -n "$copies" ] && try ssh-keygen -q -t ed25519 -N '' -C inferbase-copy -f "$copies/key" || return
    say "ok $(cat "$copies/key.pub")"
}
copy_from() {
    IFS= read -r from && IFS= read -r port && IFS= read -r user && IFS= read -r known || leave 1
    printf 'inferbase-source %s\n' "$known" >"$copies/known"
    say "ok"
}
copy() {
    IFS= read -r part && IFS= read -r number || leave 1
    part=$store/$part.part
    try mkdir -p "${part%/*}" || return
    ssh -F /dev/null -T -n -x -a -p "$port" -l "$user" -i "$copies/key" -o BatchMode=yes \
        -o IdentitiesOnly=yes -o IdentityAgent=none -o ConnectTimeout=10 -o LogLevel=ERROR \
        -o StrictHostKeyChecking=yes -o HostKeyAlias=inferbase-source -o CheckHostIP=no \
        -o "UserKnownHostsFile=$copies/known" -o GlobalKnownHostsFile=/dev/null \
        -o UpdateHostKeys=no -o ServerAliveInterval=15 -o ServerAliveCountMax=4 \
        -- "$from" "$number $(size "$part")" 2>"$tmp.err" >>"$part" &
    child=$!
    progress "$part"
    if [ "$status" -eq 0 ]; then
        say "ok $(size "$part")"
    else
        fail "$status" "0 $(tail -n 2 "$tmp.err")"
    fi
}
mklink() {
    IFS= read -r where && IFS= read -r name && IFS= read -r target && IFS= read -r ours || leave 1
    if [ -e "$where/$name" ] && [ ! -h "$where/$name" ] && [ "$ours" != 1 ]; then say "no"; return; fi
    if [ "$(readlink "$where/$name")" = "$target" ]; then say "ok"; return; fi
    try mkdir -p "$where" || return
    rm -f "$where/.$name.new"
    try ln -s "$target" "$where/.$name.new" || return
    try mv -fT "$where/.$name.new" "$where/$name" && say "ok changed"
}
show() {
    IFS= read -r name || leave 1
    if [ -f "$name" ]; then set -- $(sha256sum <"$name"); say "ok $1"; else say "no"; fi
}
text() {
    IFS= read -r name || leave 1
    if [ -f "$name" ] && IFS= read -r line <"$name"; then say "t $line"; fi
    say "ok"
}

if [ -h "$meta" ]; then fail 1 "$meta is a symbolic link"; exit 1; fi
try mkdir -p "$meta" || exit 1
take_lock || leave 1
say "ok $(tool) $$ $(uname -n)"
while IFS= read -r verb; do
    case $verb in
    free) say "ok $(free)" ;;
    list) [ -z "$dir" ] || listing "$dir"; say "ok $(readlink "$dir")" ;;
    real) if [ -d "$dir" ] && [ ! -h "$dir" ]; then say "ok"; else say "no"; fi ;;
    store) IFS= read -r name; store=$parent/$name; try mkdir -p "$store" && say "ok" ;;
    stored) listing "$store"; say "ok" ;;
    part_size) IFS= read -r name; say "ok $(size "$store/$name.part")" ;;
    get | put | put_small | digest | digest_plain | digest_kept | keep | reuse | switch) "$verb" ;;
    mklink | show | text | known | remember | sweep | tidy | remove | empty | root) "$verb" ;;
    copy_key | copy_from | copy) "$verb" ;;
    names) IFS= read -r name; names "$name" ;;
    drop) IFS= read -r name; rm -f "$store/$name.part"; say "ok" ;;
    unlink) IFS= read -r name; rm -f "$name"; say "ok" ;;
    *) fail 1 "unknown verb $verb"; leave 1 ;;
    esac
done
leave 0
