# reach: whether this machine can open an ssh connection to another one and finds the right host
# key there; it offers no key of its own, so being refused the login is the good answer.
# Variables: address, port, user, key (type and base64 of the host key).
set -u
LC_ALL=C
export LC_ALL
command -v ssh >/dev/null 2>&1 && command -v ssh-keygen >/dev/null 2>&1 || {
  echo "no $(uname -n) has no ssh client"
  exit 0
}
known=$(mktemp) || { echo "no /tmp is full"; exit 0; }
trap 'rm -f "$known"' EXIT
printf 'inferbase-source %s\n' "$key" >"$known"
words=$(ssh -F /dev/null -T -n -x -a -p "$port" -l "$user" -o BatchMode=yes -o LogLevel=ERROR \
  -o PreferredAuthentications=none -o IdentityFile=none -o IdentityAgent=none \
  -o ConnectTimeout=5 -o StrictHostKeyChecking=yes -o HostKeyAlias=inferbase-source \
  -o CheckHostIP=no -o "UserKnownHostsFile=$known" -o GlobalKnownHostsFile=/dev/null \
  -o UpdateHostKeys=no -- "$address" true 2>&1 </dev/null)
case $words in
*"Permission denied"*) echo ok ;;
*) echo "no $(printf '%s' "${words:-ssh let anybody in}" | tail -n 1 | tr -d '\r')" ;;
esac
