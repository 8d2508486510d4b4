# details: what a plan with changes needs to know. Variables: root, paths (a line each, relative to
# current), runtimes and ports (blanks between), near (the folder whose free space counts, or "").
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
          printf 'culprit\t%s\tprocess %s (%s)\n' "$port" "$pid" \
            "$(tr '\0\t\n' '   ' <"/proc/$pid/cmdline" | cut -c 1-80)"
          break
          ;;
      esac
    done
  done
done
exit 0
