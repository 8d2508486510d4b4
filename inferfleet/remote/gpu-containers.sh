# gpu-containers: systemd that reads its units anew can take the GPU from containers that run; only
# a new start of the container gives it back. Our own are started anew here, others only told of.
gpu_fields='{{.Id}}|{{.Name}}|{{.HostConfig.Runtime}}{{if .HostConfig.DeviceRequests}}-gpu{{end}}|'
gpu_fields=$gpu_fields'{{with .Config.Labels}}{{index . "inferbase.service"}}{{end}}'
has_gpu() {
  timeout 20 docker exec "$1" nvidia-smi -L >/dev/null 2>&1
  case $? in
    # It has no such program, it does not answer or has ended: nothing can be told.
    124 | 126 | 127) return 0 ;;
    0) return 0 ;;
  esac
  [ "$(docker inspect --format '{{.State.Running}}' "$1" 2>/dev/null)" != true ]
}
check_gpus() {
  command -v docker >/dev/null 2>&1 || return 0
  # Without the driver itself it was not the reload.
  ! command -v nvidia-smi >/dev/null 2>&1 || nvidia-smi -L >/dev/null 2>&1 || return 0
  ids=$(docker ps -q 2>/dev/null) && [ -n "$ids" ] || return 0
  # shellcheck disable=SC2086
  docker inspect --format "$gpu_fields" $ids 2>/dev/null | while IFS='|' read -r id name asks service; do
    case $asks in nvidia* | *gpu) ;; *) continue ;; esac
    has_gpu "$id" </dev/null && continue
    did=lost
    if [ -n "$service" ] && docker restart "$id" >/dev/null 2>&1 </dev/null && has_gpu "$id" </dev/null; then
      did=restarted
    fi
    printf 'gpu\t%s\t%s\t%s\n' "$did" "${name#/}" "$service" 2>/dev/null
  done
}
