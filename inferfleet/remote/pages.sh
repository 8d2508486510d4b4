# pages: a model file in huge pages, and out of them again. The caller adds one of look, pin,
# unpin. Variables: key (project-service), path (what the engine loads), who, when, what; for pin:
# need (pages that the file takes). State: /var/lib/inferbase/pages/KEY, fields separated by tabs:
# real path, size, modification time, pages that the pool grew by, boot in which that was.
#
# hugetlbfs takes no write(), so cp, dd and loop devices fail: the file is mapped, and read()
# fills the mapping. No program of coreutils does that; perl and python3 do.
set -u
LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export LC_ALL PATH
umask 022
trap '' HUP PIPE INT
state=${state:-/var/lib/inferbase/pages}
folder=${folder:-/run/inferbase/pages}/$key
pool=/sys/kernel/mm/hugepages/hugepages-2048kB
page=2097152
tab=$(printf '\t')
claim=
mine=

say() { printf "$@" 2>/dev/null; }
one_line() { printf '%s' "$1" | tr '\t\n' '  '; }
number() { IFS= read -r value <"$pool/$1" && printf '%s\n' "$value"; }
# bound PATH: a hugetlbfs lies over it.
bound() {
  while read -r _ _ _ _ point rest; do
    [ "$point" = "$1" ] || continue
    case $rest in *" - hugetlbfs "*) return 0 ;; esac
  done </proc/self/mountinfo
  return 1
}
boot() { cat /proc/sys/kernel/random/boot_id; }
mounted() { bound "$folder"; }
copier() {
  case $(uname -m) in x86_64 | aarch64) command -v perl >/dev/null 2>&1 && echo perl && return ;; esac
  command -v python3 >/dev/null 2>&1 && echo python3 && return
  echo none
}
look() {
  fact() { printf 'fact\t%s\t%s\n' "$1" "$2"; }
  fact user "$(id -un)"
  fact root "$([ "$(id -u)" = 0 ] && echo yes || echo no)"
  real=$(readlink -f "$path" 2>/dev/null)
  fact real "$real"
  if [ -d "$real" ]; then fact kind directory
  elif [ -f "$real" ]; then
    fact kind file
    printf 'stat\t%s\n' "$(stat -c "%s$tab%Y" "$real")"
    bound "$real" && fact bound yes
  fi
  if [ -d "$pool" ]; then
    for name in nr_hugepages free_hugepages resv_hugepages; do fact "$name" "$(number $name)"; done
  fi
  while read -r name kib _; do
    case $name in MemTotal: | MemAvailable:) fact "${name%:}" "$kib" ;; esac
  done </proc/meminfo
  fact copier "$(copier)"
  mounted && fact mounted yes
  [ -f "$state/$key" ] && printf 'kept\t%s\n' "$(cat "$state/$key")"
  printf 'end\n'
}
# grow N: the pool by N pages; sets grown to what the kernel could find.
grow() {
  before=$(number nr_hugepages)
  wanted=$((before + $1)) grown=0
  for attempt in first second; do
    echo "$wanted" >"$pool/nr_hugepages" || return 1
    grown=$(($(number nr_hugepages) - before))
    [ "$grown" -ge "$1" ] && return 0
    # What is free may lie in small pieces, and caches between them.
    if [ "$attempt" = first ]; then
      sync
      echo 1 >/proc/sys/vm/drop_caches
      echo 1 >/proc/sys/vm/compact_memory
    fi
  done 2>/dev/null
  return 1
}
shrink() {
  [ "$1" -gt 0 ] || return 0
  left=$(($(number nr_hugepages) - $1))
  [ "$left" -ge 0 ] || left=0
  echo "$left" >"$pool/nr_hugepages"
}
record() {
  printf '%s\t%s\t%s\t%s\t%s\n' "$real" "$size" "$time" "$1" "$(boot)" >"$state/$key.new" &&
    mv -f "$state/$key.new" "$state/$key"
}
copy() {
  case $(copier) in
    perl) perl -e "$with_perl" "$real" "$folder/model" "$size" ;;
    python3) python3 -c "$with_python" "$real" "$folder/model" "$size" ;;
    *) echo "neither perl nor python3 is there" >&2; return 1 ;;
  esac
}
# drop: everything of a pin, as far as it went; a process that still reads it keeps its pages
# until it ends.
drop() {
  IFS=$tab read -r real size time added booted <"$state/$key" || return 0
  # A start of the machine has given them back already.
  [ "$booted" = "$(boot)" ] || added=0
  bound "$real" && umount -l "$real"
  if mounted; then
    rm -f "$folder/model"
    umount "$folder" 2>/dev/null || umount -l "$folder"
  fi
  rmdir "$folder" 2>/dev/null
  shrink "$added" && rm -f "$state/$key"
}
die() {
  [ -n "$mine" ] && [ -n "${undo:-}" ] && drop
  unlock
  say 'error\t%s\t%s\n' "$1" "$(one_line "$2")"
  exit 1
}
begin() {
  problem=$(mkdir -p "$state" 2>&1) || die io "$problem"
  take_lock
}
pin() {
  begin
  [ -f "$state/$key" ] && drop
  real=$(readlink -f "$path") && [ -f "$real" ] || die io "there is no file $path"
  IFS=$tab read -r size time <<STAT
$(stat -c "%s$tab%Y" "$real")
STAT
  [ "$(((size + page - 1) / page))" = "$need" ] || die moved "the size of $real"
  undo=yes
  record 0 || die io "$state/$key cannot be written"
  say 'step\t%s\n' "taking $need huge pages"
  add=$((need - $(number free_hugepages) + $(number resv_hugepages)))
  [ "$add" -gt 0 ] || add=0
  if ! grow "$add"; then
    echo "$before" >"$pool/nr_hugepages"
    die short "$grown $add"
  fi
  record "$add" || { shrink "$add"; die io "$state/$key cannot be written"; }
  problem=$(mkdir -p "$folder" && mount -t hugetlbfs \
    -o "pagesize=2M,size=$((need * page)),mode=755,nosuid,nodev,noexec" inferbase "$folder" 2>&1) ||
    die io "hugetlbfs cannot be mounted: $problem"
  say 'step\t%s\n' "copying $real"
  problem=$(copy 2>&1) || die io "$problem"
  # What was read once is in the page cache now, where nobody wants it twice.
  dd if="$real" iflag=nocache count=0 2>/dev/null
  problem=$({ chmod 444 "$folder/model" && touch -r "$real" "$folder/model" &&
    mount --bind "$folder/model" "$real" && mount -o remount,bind,ro "$real"; } 2>&1) ||
    die io "$problem"
  unlock
  say 'done\n'
}
unpin() {
  begin
  if [ -f "$state/$key" ] && ! problem=$(drop 2>&1); then
    die io "the pages are not all given back: $problem"
  fi
  unlock
  say 'done\n'
}
with_perl='
my ($from, $to, $size) = @ARGV;
my %calls = (x86_64 => [9, 0], aarch64 => [222, 63]);
my $arch = `uname -m`; chomp $arch;
my ($mmap, $read) = @{$calls{$arch}};
open(my $in, "<", $from) or die "$from: $!\n";
open(my $out, "+>", $to) or die "$to: $!\n";
my $at = syscall($mmap, 0, $size + 0, 3, 1, fileno($out), 0);
die "mmap: $!\n" if $at == -1;
my $done = 0;
while ($done < $size) {
  my $part = $size - $done;
  $part = 1 << 26 if $part > 1 << 26;
  my $got = syscall($read, fileno($in), $at + $done, $part);
  die "$from: $!\n" if $got < 0;
  die "$from became shorter\n" if $got == 0;
  $done += $got;
}'
with_python='
import mmap, os, sys
path, to, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
page = 2 << 20
with open(path, "rb", 0) as source, open(to, "w+b", 0) as target:
    os.ftruncate(target.fileno(), -(-size // page) * page)
    view, done = memoryview(mmap.mmap(target.fileno(), -(-size // page) * page)), 0
    while done < size:
        got = source.readinto(view[done:min(size, done + (1 << 26))])
        if not got:
            sys.exit(path + " became shorter")
        done += got
'
