"""What a machine lets another one do that copies a model from it: read those files, no more."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from inferfleet.hosts.host import Conversation
from inferfleet.hosts.local import LocalHost

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC0 inferbase-copy"
OWN = "ssh-ed25519 AAAAown me@desk"
SCRIPT = files("inferfleet.models.transfer").joinpath("serve.sh").read_text(encoding="ascii")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home, with a key whose line has no line break at its end."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    (home / ".ssh" / "authorized_keys").write_text(OWN)
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "it's a store"
    (folder / "sub").mkdir(parents=True)
    (folder / "m.bin").write_bytes(b"0123456789 padding of a huge page")
    (folder / "sub" / "$(touch x) y").write_bytes(b"abc")
    (tmp_path / "secret").write_text("secret")
    return folder


def keys(home: Path) -> str:
    return (home / ".ssh" / "authorized_keys").read_text()


def open_door(model: Path, key: str = KEY) -> tuple[Conversation, str]:
    talk = LocalHost("m1").converse(SCRIPT)
    lines = [str(model), key, "2", "10 m.bin", "3 sub/$(touch x) y"]
    talk.send("".join(f"{line}\n" for line in lines).encode())
    return talk, talk.readline(20) or ""


@pytest.fixture
def door(home: Path, model: Path) -> Iterator[str]:
    """The line in authorized_keys while a copy is under way."""
    talk, answer = open_door(model)
    assert answer == "ok"
    yield keys(home).splitlines()[-1]
    talk.finish(20)
    assert keys(home) == f"{OWN}\n"
    assert [p.name for p in (home / ".ssh").iterdir()] == ["authorized_keys"]


def asked(door: str, words: str | None) -> tuple[int, bytes]:
    """What sshd would run for that key, whatever the client asked for."""
    found = re.search(r'command="([^"]*)"', door)
    assert found
    env = {"PATH": os.environ["PATH"]}
    if words is not None:
        env["SSH_ORIGINAL_COMMAND"] = words
    done = subprocess.run(["sh", "-c", found[1]], env=env, capture_output=True, check=False)
    return done.returncode, done.stdout


def test_the_line_allows_one_program_for_a_day(door: str) -> None:
    options, _, key = door.partition(" ssh-ed25519")
    assert f"ssh-ed25519{key}" == KEY
    expected = r'restrict,expiry-time="\d{12}",command="exec sh /[^"\s]+/\.ssh/inferbase-copy\.'
    assert re.match(expected, options)


def test_files_are_read_from_an_offset_and_only_their_content(door: str) -> None:
    assert asked(door, "1 0") == (0, b"0123456789")
    assert asked(door, "1 7") == (0, b"789")
    assert asked(door, "1 10") == (0, b"")
    assert asked(door, "2 1") == (0, b"bc")


@pytest.mark.parametrize(
    "words",
    [None, "", "0 0", "3 0", "1", "1 0 0", "1 -5", "x 0", "1 0; id", "$(id) 0", "1 $(id)",
     "../secret 0", "1\n0;id", "* 0", "1e3 0", "9999999 0", "sh"],
)  # fmt: skip
def test_anything_else_is_refused(door: str, words: str | None) -> None:
    status, out = asked(door, words)
    assert status != 0
    assert out == b""


def test_the_end_of_the_connection_takes_the_key_away(home: Path, model: Path) -> None:
    one, _ = open_door(model)
    two, _ = open_door(model)
    assert keys(home).count("inferbase-copy\n") == 2
    one.finish(20)
    assert keys(home).count("inferbase-copy\n") == 1
    two.finish(20)
    assert keys(home) == f"{OWN}\n"


def test_what_a_killed_run_has_left_is_cleared(home: Path, model: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    old = home / ".ssh" / f"inferbase-copy.{os.uname().nodename}.{ended.pid}.abcdef"
    old.mkdir()
    left = f'restrict,command="exec sh {old}/serve" {KEY}\n'
    (home / ".ssh" / "authorized_keys").write_text(f"{OWN}\n{left}")
    talk, answer = open_door(model)
    assert answer == "ok"
    assert str(old) not in keys(home)
    assert not old.exists()
    talk.finish(20)
    assert keys(home) == f"{OWN}\n"


@pytest.mark.parametrize("name", ["another", "{here}.example", "{here}.7"])
def test_a_copy_from_another_machine_with_the_same_home_goes_on(
    home: Path, model: Path, name: str
) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    there = name.format(here=os.uname().nodename)
    theirs = home / ".ssh" / f"inferbase-copy.{there}.{ended.pid}.abcdef"
    theirs.mkdir()
    line = f'restrict,command="exec sh {theirs}/serve" {KEY}\n'
    (home / ".ssh" / "authorized_keys").write_text(f"{OWN}\n{line}")
    talk, answer = open_door(model)
    assert answer == "ok"
    talk.finish(20)
    assert keys(home) == f"{OWN}\n{line}"
    assert theirs.exists()


def test_a_line_that_cannot_be_taken_out_is_harmless_and_goes_later(
    home: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "cp").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "cp").chmod(0o755)
    with monkeypatch.context() as full:
        full.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
        talk, answer = open_door(model)
        assert answer == "ok"
        talk.finish(20)
    line = keys(home).splitlines()[-1]
    assert asked(line, "1 0")[1] == b""
    (left,) = (home / ".ssh").glob("inferbase-copy.*")
    assert [p.name for p in left.iterdir()] == ["list"]
    later, answer = open_door(model)
    assert answer == "ok"
    assert not left.exists()
    later.finish(20)
    assert keys(home) == f"{OWN}\n"


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        ("rm -r .ssh", "no ~/.ssh of the usual kind"),
        ("mv .ssh/authorized_keys k && ln -s ../k .ssh/authorized_keys", "no ~/.ssh of the usual"),
        ("true", "cannot be entered"),
    ],
)
def test_refusals_change_nothing(home: Path, model: Path, spoil: str, why: str) -> None:
    subprocess.run(["sh", "-c", spoil], cwd=home, check=True)
    before = sorted(str(p) for p in home.rglob("*"))
    talk, answer = open_door(model if spoil != "true" else model / "gone")
    talk.finish(20)
    assert answer.startswith("no ")
    assert why in answer
    assert sorted(str(p) for p in home.rglob("*")) == before


def test_a_key_that_is_none_is_refused(home: Path, model: Path) -> None:
    _, answer = open_door(model, 'ssh-ed25519 AAA" command="id')
    assert answer == "no that is no public key"
    assert keys(home) == OWN


def test_a_home_with_an_unusual_name_is_refused(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / 'a"b'))
    _, answer = open_door(model)
    assert "unusual name" in answer
