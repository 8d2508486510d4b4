# compose: one project, named after the last part of the root, from current/compose.yaml.
compose() {
  docker compose --ansi never --progress plain --project-name "$project" \
    --file "$root/current/compose.yaml" "$@"
}
compose_ids() {
  docker ps -aq --filter "label=com.docker.compose.project=$project" \
    --filter "label=com.docker.compose.service=$1"
}
# A replacement that was cut off leaves a container under compose's temporary name, never started,
# on which every later one would stumble.
compose_tidy() {
  for service in "$@"; do
    docker ps -a --filter "label=com.docker.compose.project=$project" \
      --filter "label=com.docker.compose.service=$service" \
      --format '{% raw %}{{.ID}} {{.Names}}{% endraw %}' | while read -r id name; do
      case $name in *_"$(unit_name "$service")") docker rm -f "$id" >/dev/null ;; esac
    done
  done
}
compose_start() { compose_tidy "$@"; compose up --detach --no-deps "$@"; }
compose_replace() { compose_tidy "$@"; compose up --detach --no-deps --force-recreate "$@"; }
compose_stop() {
  for service in "$@"; do
    ids=$(compose_ids "$service") || return 1
    [ -z "$ids" ] || docker stop $ids >/dev/null || return 1
  done
}
compose_remove() {
  compose_stop "$@" || return 1
  for service in "$@"; do
    ids=$(compose_ids "$service") || return 1
    [ -z "$ids" ] || docker rm -f $ids >/dev/null || return 1
  done
}
compose_state() {
  docker ps -a --no-trunc --filter "label=com.docker.compose.project=$project" --format \
    '{% raw %}{{.Label "com.docker.compose.service"}}|{{.State}}|{{.Status}}{% endraw %}' 2>&1 |
    while IFS='|' read -r service status detail; do
      if [ -z "$status" ]; then
        printf 'trouble\tcompose\t%s\n' "$service"
        continue
      fi
      case $status in
        exited | dead) detail="$detail$(compose_gave_up "$service")" ;;
      esac
      case $status in
        running) case $detail in *"(health: starting)"*) status=starting ;; esac ;;
        exited) case $detail in "Exited (0)"* | "Exited (143)"*) status=stopped ;; *) status=failed ;; esac ;;
        dead) status=failed ;;
        created | paused) status=stopped ;;
      esac
      printf 'unit\t%s\t%s\t%s\n' "$service" "$status" "$detail"
    done
}
# A container that has used up its restarts says so here; one that was stopped says nothing.
compose_gave_up() {
  for id in $(compose_ids "$1"); do
    docker inspect --format \
      '{% raw %}{{.RestartCount}} {{.HostConfig.RestartPolicy.MaximumRetryCount}} {{.State.ExitCode}}{% endraw %}' \
      "$id" 2>/dev/null
  done | while read -r count most code; do
    [ "$most" -gt 0 ] && [ "$count" -ge "$most" ] && [ "$code" != 0 ] &&
      printf ', gave up after %s restarts' "$count"
  done
}
compose_logs() {
  for id in $(compose_ids "$1"); do docker logs --tail "$2" ${3:+--follow} "$id" 2>&1; done
}
