"""Machines for the fan-out: ordinary sshd processes on loopback ports, each with its own root."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import BenchmarkError, end, surroundings

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


@dataclass(frozen=True)
class Farm:
    """names: aliases of ssh_config, one a machine. home: a HOME whose .ssh knows all of them."""

    folder: Path
    home: Path
    ports: dict[str, int]

    @property
    def names(self) -> list[str]:
        return list(self.ports)

    @property
    def ssh_config(self) -> Path:
        return self.home / ".ssh" / "config"

    @property
    def key(self) -> Path:
        return self.home / ".ssh" / "id_ed25519"

    def root(self, name: str, tool: str) -> Path:
        """Where a tool keeps its files on a machine."""
        return self.folder / "machines" / name / tool

    def environment(self, **extra: str) -> dict[str, str]:
        """What every tool finds in its environment."""
        return surroundings(HOME=str(self.home), **extra)

    def empty(self, tool: str) -> None:
        """Every machine as it was before the tool came."""
        for name in self.names:
            shutil.rmtree(self.root(name, tool), ignore_errors=True)
            self.root(name, tool).mkdir(parents=True)


@contextmanager
def farm(folder: Path, count: int) -> Iterator[Farm]:
    """Start count servers; all end with the context."""
    if not os.access(SSHD, os.X_OK):
        raise BenchmarkError("the fan-out needs sshd (package openssh-server)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(parents=True, exist_ok=True)
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    key, host_key = home / ".ssh" / "id_ed25519", folder / "host_ed25519"
    for path in (key, host_key):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "benchmark", "-f", str(path)],
            check=True,
        )
    ports = {f"bench{number}": free_port() for number in range(1, count + 1)}
    public = " ".join(host_key.with_suffix(".pub").read_text().split()[:2])
    known = "".join(f"[127.0.0.1]:{port} {public}\n" for port in ports.values())
    (home / ".ssh" / "known_hosts").write_text(known)
    blocks = (_block(name, port, home) for name, port in ports.items())
    (home / ".ssh" / "config").write_text("".join(blocks))
    started = [_start(folder, port, key, host_key) for port in ports.values()]
    try:
        for port, process in zip(ports.values(), started, strict=True):
            _await(port, process)
        yield Farm(folder, home, ports)
    finally:
        for process in started:
            end(process)


def _block(name: str, port: int, home: Path) -> str:
    return (
        f"Host {name}\n  HostName 127.0.0.1\n  Port {port}\n  User {getpass.getuser()}\n"
        f"  IdentityFile {home}/.ssh/id_ed25519\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {home}/.ssh/known_hosts\n  StrictHostKeyChecking yes\n"
    )


def _start(folder: Path, port: int, key: Path, host_key: Path) -> subprocess.Popen[bytes]:
    config = folder / f"sshd_{port}"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host_key}\n"
        f"AuthorizedKeysFile {key}.pub\nStrictModes no\nUsePAM no\nPidFile none\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
        # Without it every command would also run this user's own ~/.bashrc, whatever is in there.
        f"SetEnv HOME={folder / 'home'}\n"
        "Subsystem sftp internal-sftp\n"
    )
    log = (folder / f"sshd_{port}.log").open("wb")
    with log:
        return subprocess.Popen([SSHD, "-D", "-e", "-f", str(config)], stdout=log, stderr=log)


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchmarkError(f"the sshd for port {port} did not start") from None
            time.sleep(0.02)


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
