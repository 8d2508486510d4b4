# Made by inferbase; `invoke hostprep.rollback` takes it away.
#
# gpu.sh WHAT GPU VALUE [back]: one setting of a GPU (its UUID or number, or all) through nvidia-smi.
# Used by a run of host preparation and its undo (back), and at every start for what a reboot loses.
#
# nvidia-smi prints "not supported ... Treating as warning and moving on" and exits 0, so its words
# count too. A clock lock cannot be read back: what was locked is noted in /run, which a reboot
# empties as it undoes the lock.
set -u
LC_ALL=C
export LC_ALL
records=/run/inferbase/gpu
what=$1
gpu=$2
value=$3
back=${4:-}
if [ "$gpu" = all ]; then chosen=; else chosen="-i $gpu"; fi

# smi ARGUMENT...: fails when nvidia-smi does, and when its words say that it did nothing. On the way
# back, what is not supported cannot have been set.
smi() {
  answer=$(nvidia-smi "$@" 2>&1)
  status=$?
  case $answer in
    *"pending "*" state"*) ;; # MIG mode waits for a reset, whatever else the line says
    *"ot supported"* | *"ot Supported"*)
      [ "$status" != 0 ] || status=1
      [ -z "$back" ] || status=0
      ;;
    *ermission* | *"Unable to"* | *"Unknown Error"*) [ "$status" != 0 ] || status=1 ;;
  esac
  [ "$status" = 0 ] || printf '%s\n' "$answer" >&2
  return "$status"
}
note() {
  mkdir -p "$records" || return 1
  [ "$gpu" != all ] || rm -f "$records/$what".*
  printf '%s\n' "$value" >"$records/$what.$gpu"
}
mig_is_on() {
  case $(nvidia-smi $chosen --query-gpu=mig.mode.current --format=csv,noheader 2>&1) in
    *Disabled* | *N/A*) return 1 ;;
    *Enabled*) return 0 ;;
  esac
  return 1
}
# Instances that are in use are not destroyed: nvidia-smi refuses, and so does this.
mig_clear() {
  for verb in -dci -dgi; do
    answer=$(nvidia-smi mig $chosen $verb 2>&1) && continue
    case $answer in
      *"ot Found"* | *"ot found"* | *"No MIG-enabled"*) ;;
      *)
        printf '%s\n' "$answer" >&2
        return 1
        ;;
    esac
  done
}
case $what in
  clocks)
    if [ "$value" = reset ]; then smi $chosen -rgc; else smi $chosen -lgc "$value"; fi && note
    ;;
  memory-clocks)
    if [ "$value" = reset ]; then smi $chosen -rmc; else smi $chosen -lmc "$value"; fi && note
    ;;
  power-limit) smi $chosen -pl "$value" ;;
  compute-mode) smi $chosen -c "$value" ;;
  ecc) smi $chosen -e "$value" ;;
  persistence) smi $chosen -pm "$value" ;;
  mig)
    if [ "$value" = off ]; then
      if mig_is_on; then mig_clear && smi $chosen -mig 0; fi
      exit
    fi
    mig_is_on || smi $chosen -mig 1 || exit 1
    # Cards before Hopper change the mode at a reset: the next start makes the instances.
    if ! mig_is_on; then
      echo "MIG mode changes at the next start"
      exit 0
    fi
    mig_clear || exit 1
    [ "$value" = none ] || smi mig $chosen -cgi "$value" -C
    ;;
  *)
    echo "usage: gpu.sh WHAT GPU VALUE [back]" >&2
    exit 64
    ;;
esac
