# memory-guard: while less than a floor is available for a few seconds, the largest inference
# process is ended. Variables: floor (KiB), engines (beginnings of names, blanks between).
# For tests: proc (a folder like /proc), pause (seconds between looks), rounds (0: for ever).
set -uf
LC_ALL=C
export LC_ALL
proc=${proc:-/proc}
pause=${pause:-1}
rounds=${rounds:-0}
limit=3   # looks in a row below the floor before something is ended
settle=60 # looks after that in which memory may come back: drivers give it late

# available: sets kib to what is available, without a new process: there may be no memory for one.
available() {
  kib=
  while read -r key value _; do
    [ "$key" = MemAvailable: ] && kib=$value && break
  done <"$proc/meminfo"
  [ -n "$kib" ]
}
is_engine() {
  for engine in $engines; do
    case $1 in "$engine"*) return 0 ;; esac
  done
  return 1
}
# size_of PID: sets size to its resident and swapped KiB, name to its name.
size_of() {
  size=0 name=
  while read -r key value _; do
    case $key in
      Name:) name=$value ;;
      VmRSS: | VmSwap:) size=$((size + value)) ;;
    esac
  done 2>/dev/null <"$proc/$1/status"
}
# What the driver has given each process is not resident memory of it. MiB, PID,MIB a line.
gpu_use() {
  command -v nvidia-smi >/dev/null 2>&1 || return 0
  timeout 5 nvidia-smi --query-compute-apps=pid,used_memory --format=csv,noheader,nounits 2>/dev/null
}
find_largest() {
  victim= most=0 victim_name=
  gpu=$(gpu_use)
  set +f
  for folder in "$proc"/[0-9]*; do
    pid=${folder##*/}
    [ -r "$folder/status" ] || continue
    size_of "$pid"
    mine=
    while IFS=', ' read -r user mib _; do
      [ "$user" = "$pid" ] || continue
      mine=yes
      case $mib in '' | *[!0-9]*) ;; *) size=$((size + mib * 1024)) ;; esac
    done <<USE
$gpu
USE
    [ -n "$mine" ] || is_engine "$name" || continue
    [ "$size" -gt "$most" ] && victim=$pid most=$size victim_name=$name
  done
  set -f
  [ -n "$victim" ]
}
end_it() {
  if ! find_largest; then
    echo "$kib KiB are available, $floor should be, and no inference process is there to end"
    return
  fi
  echo "$kib KiB are available, $floor should be: ending $victim_name ($victim, $most KiB)"
  kill -TERM "$victim" 2>/dev/null
  tries=0
  while [ "$tries" -lt 5 ] && kill -0 "$victim" 2>/dev/null; do
    sleep "$pause"
    tries=$((tries + 1))
  done
  kill -KILL "$victim" 2>/dev/null
}
low=0 quiet=0 round=0
while [ "$rounds" = 0 ] || [ "$round" -lt "$rounds" ]; do
  round=$((round + 1))
  available || { echo "$proc/meminfo has no MemAvailable" >&2; exit 1; }
  if [ "$quiet" -gt 0 ]; then
    quiet=$((quiet - 1))
  elif [ "$kib" -ge "$floor" ]; then
    low=0
  else
    low=$((low + 1))
    if [ "$low" -ge "$limit" ]; then
      end_it
      low=0 quiet=$settle
    fi
  fi
  sleep "$pause"
done
