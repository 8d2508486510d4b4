# gpu: the GPUs of this machine, whose processes use them, and what the kernel says of them.
# Variables: root, project (compose), pids (blanks between; asked of nvidia-smi when ask=yes), ask.
set -u
LC_ALL=C
export LC_ALL
tab=$(printf '\t')
if [ "$ask" = yes ]; then
  if command -v nvidia-smi >/dev/null 2>&1; then
    report=$(nvidia-smi -q -x 2>&1)
    printf 'smi\t%s\n' "$?"
    # The list of clocks that a card can have is nine tenths of the report and of no use here.
    printf '%s\n' "$report" | grep -v 'supported_graphics_clock>'
    printf '\001\n'
    pids=$(printf '%s\n' "$report" | while read -r line; do
      case $line in '<pid>'*'</pid>') line=${line#<pid>} && printf '%s ' "${line%</pid>}" ;; esac
    done)
    case $report in
      *'<current_mig>Enabled<'*)
        nvidia-smi -L 2>/dev/null | while IFS= read -r line; do printf 'list\t%s\n' "$line"; done
        ;;
    esac
  else
    printf 'smi\tabsent\n\001\n'
  fi
fi
while read -r key value _; do
  case $key in MemTotal: | MemAvailable:) printf 'memory\t%s\t%s\n' "$key" "$value" ;; esac
done </proc/meminfo
containers=
for pid in $pids; do
  case $pid in '' | *[!0-9]*) continue ;; esac
  group=
  while IFS=: read -r _ _ path; do
    case $path in
      *docker* | *.service* | *libpod* | *kubepods*) group=$path ;;
    esac
  done 2>/dev/null <"/proc/$pid/cgroup" || continue
  case $group in *docker*) containers=yes ;; esac
  session=
  if { IFS= read -r stat <"/proc/$pid/stat"; } 2>/dev/null; then
    # The command's name may hold spaces: fields are counted after its last parenthesis.
    set -f
    set -- ${stat##*) }
    set +f
    session=${4:-}
  fi
  printf 'process\t%s\t%s\t%s\n' "$pid" "$session" "$group"
done
for path in "$root"/.inferbase/run/*/child; do
  [ -r "$path" ] && read -r pid _ <"$path" || continue
  name=${path%/child}
  printf 'child\t%s\t%s\n' "${name##*/}" "$pid"
done
[ -z "$containers" ] || docker ps --no-trunc --filter "label=com.docker.compose.project=$project" \
  --format 'container{{"\t"}}{{.ID}}{{"\t"}}{{.Label "com.docker.compose.service"}}' 2>/dev/null
if [ "$ask" = yes ] || [ -c /dev/nvidiactl ]; then
  if log=$(dmesg 2>/dev/null); then
    printf 'log\tread\n'
    case $log in
      *'NVRM: Xid'*)
        printf '%s\n' "$log" | grep 'NVRM: Xid' | tail -n 50 | tr '\t' ' ' |
          while IFS= read -r line; do printf 'xid\t%s\n' "$line"; done
        ;;
    esac
  fi
fi
printf 'end\n'
