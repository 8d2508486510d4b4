# memory: what memory this machine has, whose it is, and who else has what services want to use.
# Variables: root; pinned (yes: it matters which CPUs containers are pinned to, too); models
# (key<tab>path, a line each).
#
# Raw lines of the kernel's files, each with its file's name in front, need no loop of the shell.
set -u
LC_ALL=C
export LC_ALL
tab=$(printf '\t')
grep -sHE '^Mem(Total|Available):' /proc/meminfo
# A machine that is itself a container has less than the kernel says.
for folder in /sys/fs/cgroup /sys/fs/cgroup/memory; do
  grep -sH '' "$folder/memory.max" "$folder/memory.current" \
    "$folder/memory.limit_in_bytes" "$folder/memory.usage_in_bytes"
  grep -sHE '^(total_)?inactive_file ' "$folder/memory.stat"
done
grep -sHE '^(Name|RssAnon|RssShmem):' /proc/[0-9]*/status
# The line of cgroup v2, and of v1 the two that tell a container and a unit.
grep -sHE ':(memory|name=systemd)?:' /proc/[0-9]*/cgroup
for path in "$root"/.inferbase/run/*/child; do
  [ -r "$path" ] && read -r pid _ <"$path" || continue
  name=${path%/child}
  printf 'child\t%s\t%s\n' "${name##*/}" "$pid"
  children=yes
done
[ -z "${children:-}" ] || cat /proc/[0-9]*/stat 2>/dev/null
if command -v docker >/dev/null 2>&1; then
  docker ps -a --no-trunc --format "container$tab{{.ID}}$tab{{.Names}}$tab{{.State}}$tab{{.Label \"com.docker.compose.project\"}}$tab{{.Label \"com.docker.compose.service\"}}$tab{{.Image}}$tab{{.Mounts}}" 2>/dev/null
  if [ -n "$pinned" ]; then
    ids=$(docker ps -q 2>/dev/null)
    [ -z "$ids" ] || docker inspect --format "cpus$tab{{.Id}}$tab{{.HostConfig.CpusetCpus}}" $ids 2>/dev/null
  fi
fi
[ -z "$models" ] || printf '%s\n' "$models" | while IFS=$tab read -r key path; do
  if [ -d "$path" ]; then
    stat -L -c "model$tab$key$tab%s$tab%Y$tab%n" -- "$path"/config.json "$path"/hf_quant_config.json \
      "$path"/*.safetensors.index.json "$path"/*.safetensors "$path"/*.gguf 2>/dev/null
  elif [ -f "$path" ]; then
    # The first of several parts stands for all of them.
    case $path in *-00001-of-?????.gguf) set -- "${path%-00001-of-*}"-?????-of-"${path##*-of-}" ;; *) set -- "$path" ;; esac
    stat -L -c "model$tab$key$tab%s$tab%Y$tab%n" -- "$@" 2>/dev/null
  fi
done
printf 'end\n'
