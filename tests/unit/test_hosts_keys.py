"""known_hosts: which lines count, and what is said about a key, without a connection."""

from __future__ import annotations

import base64
import hashlib
import hmac
import subprocess
from pathlib import Path

import pytest
from sshd_server import make_key
from tools import needs

from inferfleet.errors import FleetError
from inferfleet.hosts import keys
from inferfleet.hosts.config import Login

BLOB = b"\x00\x00\x00\x0bssh-ed25519key one"
OTHER = b"\x00\x00\x00\x0bssh-ed25519key two"
TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256")


def b64(blob: bytes) -> str:
    return base64.b64encode(blob).decode()


def login(tmp_path: Path, text: str, name: str = "m1", port: int = 22) -> Login:
    file = tmp_path / "known"
    file.write_text(text)
    return Login("m1", port, "me", name, (str(file), str(tmp_path / "absent")))


def hashed(name: str) -> str:
    salt = b"s" * 20
    return f"|1|{b64(salt)}|{b64(hmac.digest(salt, name.encode(), hashlib.sha1))}"


NAMES = {
    "m1": True,
    "M1": True,
    "m2,m1": True,
    "m11": False,
    "m?": True,
    "*": True,
    "m*,!m1": False,
    "!m1,m*": False,
    "!m2,m*": True,
    "[m1]:2222": False,
    hashed("m1"): True,
    hashed("m2"): False,
    "|1|broken": False,
    "|1|not|base64": False,
}


@pytest.mark.parametrize("names", NAMES)
def test_names(tmp_path: Path, names: str) -> None:
    found = keys.known_keys(login(tmp_path, f"{names} ssh-ed25519 {b64(BLOB)} comment\n"))
    assert [key.blob for key in found] == ([BLOB] if NAMES[names] else [])


@pytest.mark.parametrize("names", ["[m1]:2222", "[m*]:2222", "[m1]:*", hashed("[m1]:2222")])
def test_names_with_a_port(tmp_path: Path, names: str) -> None:
    text = f"m1 ssh-ed25519 {b64(OTHER)}\n{names} ssh-ed25519 {b64(BLOB)}\n"
    assert [key.line for key in keys.known_keys(login(tmp_path, text, "[m1]:2222", 2222))] == [2]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# m1 ssh-ed25519 AAAA",
        "m1 ssh-ed25519",
        "m1 ssh-ed25519 ~~~",
        "@odd m1 ssh-ed25519 AAAA",
    ],
)
def test_lines_that_say_nothing(tmp_path: Path, line: str) -> None:
    assert keys.known_keys(login(tmp_path, f"{line}\n")) == []


def test_certificate_authorities_are_not_trusted(tmp_path: Path) -> None:
    text = f"@cert-authority * ssh-ed25519 {b64(BLOB)}\n"
    assert keys.known_keys(login(tmp_path, text)) == []


def test_changed_file_is_read_again(tmp_path: Path) -> None:
    assert keys.known_keys(login(tmp_path, "")) == []
    assert len(keys.known_keys(login(tmp_path, f"m1 ssh-ed25519 {b64(BLOB)}\n"))) == 1


def test_unreadable_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "known").mkdir()
    with pytest.raises(FleetError, match=r"cannot read .*known"):
        keys.known_keys(Login("m1", 22, "me", "m1", (str(tmp_path / "known"),)))


def test_known_types_come_first(tmp_path: Path) -> None:
    known = keys.known_keys(login(tmp_path, f"m1 ssh-rsa {b64(BLOB)}\n"))
    assert keys.preferred_types(known, TYPES) == (*TYPES[2:], *TYPES[:2])
    assert keys.preferred_types([], TYPES) == TYPES


def test_known_key_passes(tmp_path: Path) -> None:
    where = login(tmp_path, f"m1 ssh-ed25519 {b64(OTHER)}\nm1 ssh-ed25519 {b64(BLOB)}\n")
    keys.judge(where, keys.known_keys(where), "ssh-ed25519", BLOB)


def judged(where: Login, jumps: str = "") -> FleetError:
    with pytest.raises(FleetError) as caught:
        keys.judge(where, keys.known_keys(where), "ssh-ed25519", BLOB, jumps)
    return caught.value


def test_unknown_key(tmp_path: Path) -> None:
    error = judged(login(tmp_path, ""))
    assert error.what == f"host key of m1 is not known: ssh-ed25519 {keys.fingerprint(BLOB)}"
    assert error.hint == (
        "compare the fingerprint with the one on the machine "
        "(ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then accept it: "
        f"ssh-keyscan -p 22 -t ed25519 m1 >> {tmp_path}/known"
    )


def test_unknown_type_of_key_shows_the_known_one(tmp_path: Path) -> None:
    error = judged(login(tmp_path, f"m1 ssh-rsa {b64(OTHER)}\n"))
    known = f"ssh-rsa {keys.fingerprint(OTHER)} ({tmp_path}/known:1)"
    assert error.what.endswith(f"{keys.fingerprint(BLOB)}; known is {known}")


def test_unknown_key_behind_hops(tmp_path: Path) -> None:
    error = judged(login(tmp_path, "", "[m1]:23", 23), "a@one,b@[two]:3")
    assert error.hint.endswith(
        "ssh -J 'a@one,b@[two]:3' -p 23 -o HostKeyAlgorithms=ssh-ed25519"
        f" -o HostKeyAlias='[m1]:23' -o UserKnownHostsFile={tmp_path}/known me@m1 true"
    )


def test_unknown_alias_is_written_under_its_name(tmp_path: Path) -> None:
    error = judged(login(tmp_path, "", "rack7"))
    assert error.hint.endswith(f"m1 | sed 's/^[^ ]*/rack7/' >> {tmp_path}/known")


def test_changed_key(tmp_path: Path) -> None:
    error = judged(login(tmp_path, f"\nm1 ssh-ed25519 {b64(OTHER)}\n"))
    assert error.what == (
        "host key of m1 has changed: "
        f"known ssh-ed25519 {keys.fingerprint(OTHER)} ({tmp_path}/known:2), "
        f"offered ssh-ed25519 {keys.fingerprint(BLOB)}"
    )
    assert f"ssh-keygen -R m1 -f {tmp_path}/known" in error.hint


def test_revoked_key_is_refused_though_known(tmp_path: Path) -> None:
    text = f"m1 ssh-ed25519 {b64(BLOB)}\n@revoked * ssh-ed25519 {b64(BLOB)}\n"
    assert judged(login(tmp_path, text)).what == (
        f"host key of m1 is revoked: ssh-ed25519 {keys.fingerprint(BLOB)} ({tmp_path}/known:2)"
    )


def test_home_is_written_as_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert judged(login(tmp_path, "")).hint.endswith(" >> ~/known")


@needs("ssh-keygen")
def test_fingerprint_is_that_of_ssh_keygen(tmp_path: Path) -> None:
    public = Path(f"{make_key(tmp_path / 'key')}.pub")
    shown = subprocess.run(
        ["ssh-keygen", "-lf", str(public)], capture_output=True, check=True, text=True
    ).stdout
    blob = base64.b64decode(public.read_text().split()[1])
    assert keys.fingerprint(blob) == shown.split()[1]
