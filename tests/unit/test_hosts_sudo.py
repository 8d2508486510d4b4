"""Becoming root: with the real sudo where it is installed, and every answer sudo can give."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from inferfleet.errors import FleetError
from inferfleet.hosts.local import LocalHost

# Behaves as sudo does towards a user whose password is "right" and who has no grace period.
FAKE_SUDO = """#!/bin/sh
if [ "$1" = -n ]; then echo 'sudo: a password is required' >&2; exit 1; fi
[ "$1 $2" = '-S -p' ] || exit 99
prompt=$3; shift 4
for attempt in 1 2 3; do
    printf %s "$prompt" >&2
    IFS= read -r line || { echo 'sudo: no password was provided' >&2; exit 1; }
    if [ "$line" = right ]; then exec "$@"; fi
    echo 'Sorry, try again.' >&2
    echo "$line" >>attempts
done
echo 'sudo: 3 incorrect password attempts' >&2
exit 1
"""


@pytest.fixture
def not_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH whose `id` says that we are not root, so that sudo is asked."""
    return programs(tmp_path, monkeypatch, id="#!/bin/sh\necho 1000\n")


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> Path:
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a user whom sudo lets in without password")
def test_root_needs_no_sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(tmp_path, monkeypatch, sudo="#!/bin/sh\nexit 99\n")
    result = LocalHost().run("id -u; cat", input=b"data", sudo=True)
    assert (result.exit, result.out, result.err) == (0, "0\ndata", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a user whom sudo lets in without password")
@pytest.mark.skipif(shutil.which("sudo") is None, reason="sudo is not installed")
def test_real_sudo_without_password(not_root: Path) -> None:
    result = LocalHost().run("env | grep ^SUDO_UID; cat; echo e >&2", input=b"data", sudo=True)
    assert (result.exit, result.out, result.err) == (0, "SUDO_UID=0\ndata", "e\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a user whom sudo lets in without password")
@pytest.mark.skipif(shutil.which("sudo") is None, reason="sudo is not installed")
def test_password_line_that_real_sudo_leaves_is_kept_from_the_script(not_root: Path) -> None:
    host = LocalHost(sudo_password=lambda: "unread")
    host._sudo._secret = "unread"
    result = host.run("env | grep ^SUDO_UID; cat", input=b"data\n\n", sudo=True)
    assert (result.exit, result.out, result.err) == (0, "SUDO_UID=0\ndata\n\n", "")


@pytest.fixture
def strict(not_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return programs(not_root, monkeypatch, sudo=FAKE_SUDO)


def test_password_is_asked_for_once_and_taken_from_the_stream(strict: Path) -> None:
    asked = []

    def password() -> str:
        asked.append(1)
        return "right"

    host = LocalHost(sudo_password=password)
    for _ in range(2):
        result = host.run("cat; echo e >&2; exit 5", input=b"\x00da\nta", sudo=True)
        assert (result.exit, result.out, result.err) == (5, "\x00da\nta", "e\n")
    assert asked == [1]


def test_conversation_and_stream_with_a_password(strict: Path) -> None:
    host = LocalHost(sudo_password=lambda: "right")
    talk = host.converse('read -r word; echo "$word"', sudo=True)
    talk.send(b"hello\n")
    assert talk.readline(30) == "hello"
    assert talk.finish(30).exit == 0
    assert list(host.stream("echo one; echo two >&2", sudo=True)) == ["one", "two"]


def test_long_script_with_a_password(strict: Path) -> None:
    host = LocalHost(sudo_password=lambda: "right")
    result = host.run(f": '{'x' * 200_000}'\ncat", input=b"data", sudo=True)
    assert (result.exit, result.out) == (0, "data")


def test_wrong_password_is_tried_once_and_never_shown(strict: Path) -> None:
    host = LocalHost("m1", sudo_password=lambda: "wr0ng")
    with pytest.raises(FleetError, match="sudo on m1 failed: the password was refused") as caught:
        host.run("cat", input=b"data", sudo=True)
    assert "wr0ng" not in str(caught.value)
    assert (strict / "attempts").read_text() == "wr0ng\n"


def test_no_password_to_give(strict: Path) -> None:
    with pytest.raises(FleetError, match="sudo on m1 failed: sudo: a password is required"):
        LocalHost("m1").run("true", sudo=True)


def test_no_sudo_at_all(not_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sh", "cat"):
        (not_root / name).symlink_to(shutil.which(name) or name)
    monkeypatch.setenv("PATH", str(not_root))
    host = LocalHost("m1", sudo_password=lambda: pytest.fail("asked for a password in vain"))
    with pytest.raises(FleetError, match=r"sudo on m1 failed: .*not found"):
        host.run("true", sudo=True)


def test_failing_script_is_not_a_failing_sudo(strict: Path) -> None:
    result = LocalHost(sudo_password=lambda: "right").run("exit 1", sudo=True)
    assert (result.exit, result.err) == (1, "")
