# steps: what a run of host preparation does to a machine, and its undo. The caller sets dir, the
# folder of the generation: files that are replaced are kept in $dir/files, those that were not
# there are marked in $dir/absent. A path is kept once, before its first change.
keep_file() {
  [ -e "$dir/files$1" ] || [ -e "$dir/absent$1" ] && return 0
  if [ -L "$1" ]; then
    echo "$1 is a symbolic link"
    return 1
  fi
  if [ -e "$1" ]; then
    mkdir -p "$dir/files${1%/*}" && cp -p "$1" "$dir/files$1.new" && sync "$dir/files$1.new" &&
      mv "$dir/files$1.new" "$dir/files$1"
  else
    mkdir -p "$dir/absent${1%/*}" && : >"$dir/absent$1"
  fi
}
# put_file PATH MODE BASE64: beside its place first, then renamed over it.
put_file() {
  keep_file "$1" && mkdir -p "${1%/*}" || return 1
  new=$1.inferbase-new
  rm -f "$new"
  (umask 077 && printf '%s' "$3" | base64 -d >"$new") || return 1
  if [ -e "$1" ]; then
    chown --reference="$1" "$new" && chmod --reference="$1" "$new" || return 1
  else
    chmod "$2" "$new" || return 1
  fi
  sync "$new" && mv -fT "$new" "$1" && sync "${1%/*}"
}
drop_file() {
  keep_file "$1" && rm -f "$1"
}
restore_file() {
  if [ -e "$dir/files$1" ]; then
    cmp -s "$dir/files$1" "$1" && return 0
    mkdir -p "${1%/*}" && cp -p "$dir/files$1" "$1.inferbase-new" && sync "$1.inferbase-new" &&
      mv -fT "$1.inferbase-new" "$1"
  elif [ -e "$dir/absent$1" ]; then
    rm -f "$1"
  fi
}
write_value() {
  if [ ! -e "$1" ]; then
    echo "there is no $1"
    return 1
  fi
  { printf '%s\n' "$2" >"$1"; } 2>/dev/null && return 0
  # Some shells do not say why; this program does.
  problem=$({ env printf '%s\n' "$2" >"$1"; } 2>&1) && return 0
  echo "$1 does not take $2: ${problem##*: }"
  return 1
}
# write_back PATH VALUE: a value that is in force needs no writing, which may be refused.
write_back() {
  # Not `read`, which takes one byte at a time: values of /proc/sys come whole or not at all.
  now=$(tr -s '\t\n ' ' ' 2>/dev/null <"$1")
  case $now in "$2" | "$2 " | *"[$2]"*) return 0 ;; esac
  write_value "$@"
}
run_program() { "$@"; }
run_quietly() { "$@" >/dev/null 2>&1 || :; }
