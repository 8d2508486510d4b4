# doctor: what a machine has, a key and a value a line. Variables: root, runtimes.
set -u
LC_ALL=C
export LC_ALL
one_line() { printf '%s' "$1" | tr '\t\n' '  ' | cut -c 1-200; }
fact() { printf '%s\t%s\n' "$1" "$(one_line "$2")"; }
fact now "$(date +%s)"
fact uid "$(id -u)"
fact user "$(id -un 2>/dev/null || id -u)"
fact arch "$(uname -m)"
fact kernel "$(uname -r)"
fact host "$(uname -n)"
while read -r key value _; do
  case $key in MemTotal:) fact memory_kb "$value" ;; esac
done </proc/meminfo
cpus=0
while IFS=: read -r key value; do
  case $key in
    processor*) cpus=$((cpus + 1)) ;;
    "model name"*) model=${value# } ;;
  esac
done </proc/cpuinfo
fact cpus "$cpus"
fact cpu "${model:-}"
if [ -r /etc/os-release ]; then
  fact os "$(. /etc/os-release && printf '%s' "${PRETTY_NAME:-}")"
fi
near=$root
while [ ! -d "$near" ]; do near=${near%/*}; near=${near:-/}; done
fact near "$near"
df -Pk "$near" 2>/dev/null | while read -r _ _ _ free _; do
  case $free in *[!0-9]*) ;; *) fact free_kb "$free" ;; esac
done
if command -v docker >/dev/null 2>&1; then
  if answer=$(docker version --format '{{.Server.Version}}' 2>&1); then
    fact docker "$answer"
  else
    fact docker-trouble "$answer"
  fi
  if answer=$(docker compose version --short 2>&1); then
    fact compose "$answer"
  else
    fact compose-trouble "the plugin is not installed"
  fi
fi
if [ -d /run/systemd/system ]; then
  fact systemd yes
  systemctl --version 2>/dev/null | { read -r line && fact systemd-version "$line"; }
  case $(cat /etc/systemd/logind.conf /etc/systemd/logind.conf.d/*.conf 2>/dev/null) in
    *RemoveIPC=no*) ;;
    *) [ -d /run/systemd/users ] && fact removeipc yes ;;
  esac
fi
if command -v nvidia-smi >/dev/null 2>&1; then
  if answer=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>&1); then
    fact gpu "$(printf '%s' "$answer" | tr '\n' ';')"
  else
    fact gpu-trouble "$answer"
  fi
fi
exit 0
