"""interact: a script on a real pseudo-terminal, here and behind SSH."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from sshd_server import Sshd, require_sshd

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    require_sshd()
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.close()


@pytest.fixture(params=["local", "ssh"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Python code that makes the host."""
    if request.param == "local":
        return "from inferfleet.hosts.local import LocalHost; host = LocalHost()"
    server = request.getfixturevalue("server")
    (tmp_path / "known").write_text(server.known)
    return (
        "from inferfleet.hosts.ssh import SshHost; host = SshHost("
        f"'m1', '127.0.0.1', port={server.port}, identity={str(server.client_key)!r},"
        f" known_hosts={str(tmp_path / 'known')!r}, ssh_config='/dev/null')"
    )


def program(make: str, script: str) -> list[str]:
    code = f"import sys; {make}; code = host.interact({script!r}); host.close(); sys.exit(code)"
    return [sys.executable, "-c", code]


def read_all(terminal: int) -> str:
    seen = b""
    while True:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # the other end of a pseudo-terminal is gone
            chunk = b""
        if not chunk:
            return seen.decode()
        seen += chunk


def test_keys_output_size_and_status(make: str) -> None:
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 97, 0, 0))
    before = termios.tcgetattr(theirs)
    script = 'stty size; echo ready; read -r word; echo "got $word"; test -t 1 && exit 6'
    process = subprocess.Popen(
        program(make, script), stdin=theirs, stdout=theirs, cwd=ROOT, start_new_session=True
    )
    seen = b""
    while b"ready" not in seen:
        seen += os.read(ours, 4096)
    os.write(ours, b"word\n")
    assert process.wait(60) == 6
    assert termios.tcgetattr(theirs) == before
    os.close(theirs)
    text = seen.decode() + read_all(ours)
    os.close(ours)
    assert "31 97" in text
    assert "got word" in text


def test_without_a_terminal(make: str) -> None:
    done = subprocess.run(
        program(make, "cat; echo end; exit 3"),
        input=b"typed\n",
        capture_output=True,
        cwd=ROOT,
        check=False,
        timeout=60,
    )
    assert done.returncode == 3
    assert b"typed" in done.stdout
    assert b"end" in done.stdout
