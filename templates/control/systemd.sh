# systemd: one unit a service, a link in /etc/systemd/system to current/systemd/.
systemd_units=/etc/systemd/system
systemd_wants=$systemd_units/multi-user.target.wants
systemd_name() { echo "$(unit_name "$1").service"; }
systemd_reload() {
  # A reload can take the GPU away from running containers: only when a unit really changed.
  # Which digest systemd has loaded is noted here; times of files do not tell.
  stale=
  mkdir -p "$state/loaded"
  for service in "$@"; do
    [ "$(cat "$state/loaded/$service" 2>/dev/null)" = "$(unit_field "$service" digest)" ] || stale=yes
    case $(systemctl show -p NeedDaemonReload -p LoadState "$(systemd_name "$service")") in
      *NeedDaemonReload=yes* | *LoadState=not-found*) stale=yes ;;
    esac
  done
  [ -z "$stale" ] || systemd_load
}
systemd_load() {
  systemctl daemon-reload || return 1
  for service in $(services_of systemd); do
    unit_field "$service" digest >"$state/loaded/$service"
  done
  compose_check_gpus
}
compose_check_gpus() {
  for service in $(services_of compose gpu); do
    for id in $(docker ps -q --filter "label=com.docker.compose.project=$project" \
      --filter "label=com.docker.compose.service=$service"); do
      docker exec "$id" nvidia-smi -L >/dev/null 2>&1 && continue
      echo "$service lost its GPU in the daemon-reload: restarting it"
      docker restart "$id" >/dev/null
    done
  done
}
systemd_act() {
  action=$1
  shift
  systemd_reload "$@" || return 1
  for service in "$@"; do
    unit=$(systemd_name "$service")
    if [ "$(unit_field "$service" boot)" = boot ] && [ ! -L "$systemd_wants/$unit" ]; then
      # A service that was stopped has lost it, so that a reboot does not bring it back.
      mkdir -p "$systemd_wants" &&
        ln -sfn "$root/current/systemd/$unit" "$systemd_wants/$unit" || return 1
    fi
    systemctl reset-failed "$unit" 2>/dev/null
    systemctl "$action" "$unit" || return 1
  done
}
systemd_start() { systemd_act start "$@"; }
systemd_replace() { systemd_act restart "$@"; }
systemd_stop() {
  for service in "$@"; do
    unit=$(systemd_name "$service")
    rm -f "$systemd_wants/$unit"
    # One whose file is gone may run all the same, one that does not run may be unknown.
    case $(systemctl show -p LoadState -p ActiveState "$unit") in
      *=not-found*ActiveState=inactive* | *ActiveState=inactive*=not-found*) continue ;;
    esac
    systemctl stop "$unit" || return 1
    systemctl reset-failed "$unit" 2>/dev/null
  done
  return 0
}
systemd_remove() { systemd_stop "$@"; }
systemd_state() {
  for service in $(services_of systemd); do
    unit=$(systemd_name "$service")
    active= sub= restarts=0 code=0 since=0 burst=0 window=
    while IFS='=' read -r key value; do
      case $key in
        ActiveState) active=$value ;;
        SubState) sub=$value ;;
        NRestarts) restarts=$value ;;
        ExecMainStatus) code=$value ;;
        ActiveEnterTimestampMonotonic) since=$value ;;
        StartLimitBurst) burst=$value ;;
        StartLimitIntervalUSec) window=$value ;;
      esac
    done <<SHOW
$(systemctl show -p ActiveState -p SubState -p NRestarts -p ExecMainStatus -p StartLimitBurst \
    -p StartLimitIntervalUSec -p ActiveEnterTimestampMonotonic "$unit" 2>&1)
SHOW
    case $active/$sub in
      */auto-restart) status=restarting ;;
      active/*) status=running ;;
      activating/* | reloading/*) status=starting ;;
      failed/*) status=failed ;;
      inactive/* | deactivating/*) status=stopped ;;
      *) status=unknown ;;
    esac
    detail="$sub, restarts $restarts, exit $code"
    case $status in
      running)
        read -r up _ </proc/uptime
        detail="up $((${up%%.*} - ${since:-0} / 1000000)) s, restarts $restarts"
        ;;
      failed)
        [ "$restarts" -ge "${burst:-0}" ] || [ "$((restarts + 1))" = "$burst" ] &&
          detail="$detail, gave up after $((burst - 1)) restarts in $window"
        ;;
    esac
    printf 'unit\t%s\t%s\t%s\n' "$service" "$status" "$detail"
  done
}
systemd_logs() {
  journalctl --no-pager --output cat --unit "$(systemd_name "$1")" --lines "$2" ${3:+--follow}
}
