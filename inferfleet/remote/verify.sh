# verify: reads files and prints their SHA-256. Lines on standard input: bytes, path, of each file;
# a file in huge pages is longer than its content, so only that many bytes count.
set -u
LC_ALL=C
export LC_ALL
while IFS= read -r size && IFS= read -r path; do
  if [ ! -f "$path" ]; then
    echo "no it is gone"
  elif [ "$(stat -Lc %s "$path")" -lt "$size" ]; then
    echo "no it has $(stat -Lc %s "$path") bytes, not $size"
  elif sum=$(head -c "$size" "$path" | sha256sum); then
    echo "ok ${sum%% *}"
  else
    echo "no it cannot be read"
  fi
done
