# generation: one kept generation. Variables: place (its directory).
set -u
cd "$place" 2>/dev/null || exit 1
printf 'manifest\t%s\n' "$(cat .manifest)"
while IFS= read -r path; do
  case $path in secrets/* | env/*) continue ;; esac
  [ -r "$path" ] && printf 'content\t%s\t%s\n' "$path" "$(base64 <"$path" | tr -d '\n')"
done <.files
exit 0
