# details: what a plan with changes needs to know. Variables: root, paths (a line each, relative to
# current), runtimes and ports (blanks between), near (the folder whose free space counts, or "").
# Of the ground under services that start: gpus (runtimes of those that use GPUs, blanks between),
# locks (yes or ""), mounts (folders, a line each), pins (service<tab>key, a line each).
set -u
LC_ALL=C
export LC_ALL
[ -z "$paths" ] || printf '%s\n' "$paths" | while IFS= read -r path; do
  [ -f "$root/current/$path" ] && [ -r "$root/current/$path" ] || continue
  printf 'content\t%s\t%s\n' "$path" "$(base64 <"$root/current/$path" | tr -d '\n')"
done
[ -z "$near" ] || df -Pk "$near" 2>/dev/null | while read -r _ _ _ free _; do
  case $free in *[!0-9]*) ;; *) printf 'free_kb\t%s\n' "$free" ;; esac
done
one_line() { tr '\t\n' '  ' | cut -c 1-300; }
for runtime in $runtimes; do
  case $runtime in
    compose)
      if ! command -v docker >/dev/null 2>&1; then
        printf 'tool\tdocker\tis not installed\n'
      elif ! answer=$(docker version --format '{{.Server.Version}}' 2>&1); then
        printf 'tool\tdocker\t%s\n' "$(printf '%s' "$answer" | one_line)"
      elif ! answer=$(docker compose version --short 2>&1); then
        printf 'tool\tcompose\tis not installed\n'
      else
        case $answer in
          1.* | v1.*) printf 'tool\tcompose\tis version %s\n' "$answer" ;;
        esac
      fi
      ;;
    systemd)
      if [ ! -d /run/systemd/system ]; then
        printf 'tool\tsystemd\tdoes not run here\n'
      elif [ "$(id -u)" != 0 ]; then
        printf 'tool\tsystemd\tneeds root, and this is %s\n' "$(id -un)"
      fi
      ;;
  esac
done
# The driver's own word is asked for only where its devices are.
if [ -n "$gpus" ]; then
  if [ -e /dev/nvidiactl ] || [ -e /dev/dxg ]; then
    if command -v nvidia-smi >/dev/null 2>&1; then
      answer=$(nvidia-smi -L </dev/null 2>&1) ||
        printf 'ground\tgpu\tits driver does not answer: %s\n' "$(printf '%s' "$answer" | one_line)"
    fi
  else
    card=
    for vendor in /sys/bus/pci/devices/*/vendor; do
      { IFS= read -r id <"$vendor"; } 2>/dev/null && [ "$id" = 0x10de ] && card=yes
    done
    if [ -n "$card" ]; then
      printf 'ground\tgpu\tthe driver of the NVIDIA card is not loaded\n'
    else
      printf 'ground\tgpu\tthis machine has no NVIDIA device\n'
    fi
  fi
  case " $gpus " in
    *" compose "*)
      found=
      for name in nvidia-container-runtime-hook nvidia-container-runtime; do
        command -v "$name" >/dev/null 2>&1 && found=yes
      done
      for spec in /etc/cdi/*nvidia* /var/run/cdi/*nvidia*; do [ -e "$spec" ] && found=yes; done
      [ -n "$found" ] || printf 'ground\ttoolkit\tmissing\n'
      ;;
  esac
fi
# Max locked memory: the hard limit, in bytes, or "unlimited".
[ -z "$locks" ] || while read -r one two three _ hard _; do
  [ "$one $two $three" = "Max locked memory" ] && printf 'ground\tlock\t%s\n' "$hard"
done </proc/self/limits
if [ -n "$mounts" ]; then
  set -f
  IFS='
'
  set -- $mounts
  unset IFS
  set +f
  stat -L -c 'ground	device	%d %n' -- / "$@" 2>/dev/null
fi
# What is pinned has its copy in memory, which a start of the machine empties.
[ ! -d /var/lib/inferbase/pages ] || printf '%s\n' "$pins" | while IFS='	' read -r service key; do
  [ -f "/var/lib/inferbase/pages/$key" ] && [ ! -e "/run/inferbase/pages/$key/model" ] &&
    printf 'ground\tgone\t%s\n' "$service"
done
[ -n "$ports" ] || exit 0
# Sockets that listen (state 0A): local address in hexadecimal, and inode. Read only now: where
# nothing is to be started, walking the kernel's tables would be most of the observation's time.
listening=$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
  while read -r _ address _ status _ _ _ _ _ inode _; do
    [ "$status" = 0A ] && echo "$address $inode"
  done)
for port in $ports; do
  hex=$(printf '%04X' "$port")
  printf '%s\n' "$listening" | while read -r address inode; do
    case $address in *":$hex") ;; *) continue ;; esac
    printf 'listen\t%s\n' "$address"
    name=$(docker ps --filter "publish=$port" --format 'container {{.Names}} ({{.Image}})' \
      </dev/null 2>/dev/null | head -n 1)
    [ -n "$name" ] && printf 'culprit\t%s\t%s\n' "$port" "$name"
    # One listing of all open files: a fork for each would take seconds on a busy machine.
    ls -l /proc/[0-9]*/fd 2>/dev/null | while read -r line; do
      case $line in
        /proc/*/fd:) pid=${line#/proc/} pid=${pid%/fd:} ;;
        *"socket:[$inode]"*)
          unit=
          while IFS=: read -r _ _ path; do
            case $path in *.service) unit=" of ${path##*/}" ;; esac
          done 2>/dev/null <"/proc/$pid/cgroup"
          printf 'culprit\t%s\tprocess %s%s (%s)\n' "$port" "$pid" "$unit" \
            "$(tr '\0\t\n' '   ' <"/proc/$pid/cmdline" | cut -c 1-80)"
          break
          ;;
      esac
    done
  done
done
exit 0
