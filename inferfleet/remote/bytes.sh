# bytes: a piece of a file in base64. Variables: path, offset (from 0), length.
set -u
LC_ALL=C
export LC_ALL
tail -c "+$((offset + 1))" -- "$path" 2>/dev/null | head -c "$length" | base64
printf 'end\n'
