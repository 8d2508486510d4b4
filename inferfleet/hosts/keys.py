"""Host keys: what known_hosts says about a server, and the judgement on the key it shows."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from re import fullmatch

from inferfleet.errors import FleetError
from inferfleet.hosts.config import USER_KNOWN_HOSTS, Login


@dataclass(frozen=True)
class KnownKey:
    """One usable line of a known_hosts file."""

    type: str
    blob: bytes
    revoked: bool
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.type} {fingerprint(self.blob)} ({self.file}:{self.line})"


def fingerprint(blob: bytes) -> str:
    """SHA256 fingerprint of a public key as ssh-keygen -l prints it."""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode()
    return f"SHA256:{digest.rstrip('=')}"


def known_keys(login: Login) -> list[KnownKey]:
    """Every key the login's known_hosts files hold for it, revoked ones included.

    Lines marked @cert-authority are not trusted: paramiko verifies no host certificates.
    Lines that cannot be read are passed over as OpenSSH does. FleetError when a file exists
    but cannot be opened, since a revocation might stand in it.
    """
    found = []
    for file in login.known_hosts:
        for line in _lines(file):
            if _matches(line.names, login.key_name):
                try:
                    blob = base64.b64decode(line.key, validate=True)
                except binascii.Error:
                    continue
                found.append(KnownKey(line.type, blob, line.revoked, file, line.number))
    return found


def preferred_types(known: Iterable[KnownKey], types: Iterable[str]) -> tuple[str, ...]:
    """The signature algorithms `types`, those of known keys first.

    A server shows the first one it has; asking for another type than the known one would make
    a known server look unknown.
    """
    held = {key.type for key in known if not key.revoked}
    if "ssh-rsa" in held:
        held |= {"rsa-sha2-512", "rsa-sha2-256"}
    return tuple(sorted(types, key=lambda name: name not in held))


def judge(login: Login, known: list[KnownKey], type: str, blob: bytes, jumps: str = "") -> None:
    """Return when the server's key is a known one that nobody has revoked; else FleetError.

    jumps: the hops before this server as `ssh -J` takes them, for the hint.
    """
    address = login.address
    offered = f"{type} {fingerprint(blob)}"
    for key in known:
        if key.revoked and key.blob == blob:
            raise FleetError(
                f"host key of {address} is revoked: {key}",
                "give the machine a new host key; do not connect to this one",
            )
    trusted = [key for key in known if not key.revoked]
    if any(key.blob == blob for key in trusted):
        return
    same = [key for key in trusted if key.type == type]
    if same:
        raise FleetError(
            f"host key of {address} has changed: known {same[0]}, offered {offered}",
            "somebody may stand in between, or the machine was set up anew; if you know why, "
            f"remove the old key: ssh-keygen -R {shlex.quote(login.key_name)}"
            f" -f {_shell_path(same[0].file)}",
        )
    others = f"; known is {', '.join(map(str, trusted))}" if trusted else ""
    raise FleetError(
        f"host key of {address} is not known: {offered}{others}",
        "compare the fingerprint with the one on the machine "
        f"(ssh-keygen -lf /etc/ssh/ssh_host_{_short(type)}_key.pub), then accept it: "
        + _accept(login, type, jumps),
    )


def _accept(login: Login, type: str, jumps: str) -> str:
    """The command that writes the offered key into the first known_hosts file."""
    file = _shell_path(login.known_hosts[0] if login.known_hosts else USER_KNOWN_HOSTS.split()[0])
    host = shlex.quote(login.host)
    rename = ""
    if login.key_name not in (login.address, login.address.lower()):
        rename = f" | sed {shlex.quote(f's/^[^ ]*/{login.key_name}/')}"
    if jumps:
        return (
            f"ssh -J {shlex.quote(jumps)} -p {login.port} -o HostKeyAlgorithms={type}"
            f" -o HostKeyAlias={shlex.quote(login.key_name)} -o UserKnownHostsFile={file}"
            f" {shlex.quote(login.user)}@{host} true"
        )
    return f"ssh-keyscan -p {login.port} -t {_short(type)} {host}{rename} >> {file}"


def _short(type: str) -> str:
    """Name of a key type for ssh-keyscan -t and in host key file names."""
    return type.removeprefix("ssh-").partition("-")[0]


def _shell_path(path: str) -> str:
    home = os.path.expanduser("~/")
    return f"~/{shlex.quote(path[len(home) :])}" if path.startswith(home) else shlex.quote(path)


@dataclass(frozen=True)
class _Line:
    names: str
    type: str
    key: str
    revoked: bool
    number: int


def _lines(file: str) -> tuple[_Line, ...]:
    try:
        stamp = os.stat(file)
        return _read(file, stamp.st_mtime_ns, stamp.st_size)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        raise FleetError(f"cannot read {file}: {error.strerror}") from None


@lru_cache(maxsize=16)
def _read(file: str, changed: int, size: int) -> tuple[_Line, ...]:
    """Cached by time of change and size, so that eight hosts read one file once."""
    lines = []
    with open(file, encoding="utf-8", errors="replace") as text:
        for number, line in enumerate(text, 1):
            words = line.split()
            marker = words.pop(0) if words and words[0].startswith("@") else ""
            if len(words) < 3 or words[0].startswith("#") or marker not in ("", "@revoked"):
                continue
            lines.append(_Line(words[0], words[1], words[2], bool(marker), number))
    return tuple(lines)


def _matches(names: str, name: str) -> bool:
    """sshd(8), SSH_KNOWN_HOSTS FILE FORMAT: hashed, or patterns of which none may negate."""
    if names.startswith("|1|"):
        try:
            salt, digest = (binascii.a2b_base64(part) for part in names[3:].split("|"))
        except ValueError:
            return False
        return hmac.compare_digest(hmac.digest(salt, name.encode(), "sha1"), digest)
    found = False
    for pattern in names.lower().split(","):
        if _glob(pattern.removeprefix("!"), name):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _glob(pattern: str, name: str) -> bool:
    if "*" not in pattern and "?" not in pattern:
        return pattern == name
    return fullmatch(translate(pattern.replace("[", "[[]")), name) is not None
