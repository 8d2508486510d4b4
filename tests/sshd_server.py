"""A real sshd on 127.0.0.1 for tests: its own keys, its own configuration, an ordinary process."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from ports import free_port

PROGRAM = shutil.which("sshd") or "/usr/sbin/sshd"


def require_sshd() -> None:
    """Skip without sshd; on CI its absence is a failure."""
    if os.access(PROGRAM, os.X_OK):
        return
    if os.environ.get("CI") == "true":
        pytest.fail("CI needs openssh-server")
    pytest.skip("openssh-server is not installed")


def make_key(path: Path, type: str = "ed25519", passphrase: str = "") -> Path:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", type, "-N", passphrase, "-C", path.name, "-f", str(path)],
        check=True,
    )
    return path


class Sshd:
    """One server; `known` is its line for known_hosts."""

    def __init__(self, folder: Path, *, types: tuple[str, ...] = ("ed25519",)) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(parents=True, exist_ok=True)
        self.user = getpass.getuser()
        self.port = free_port()
        self.client_key = make_key(folder / "client")
        self.host_keys = [make_key(folder / f"host_{type}", type) for type in types]
        config = folder / "sshd_config"
        config.write_text(
            f"Port {self.port}\n"
            "ListenAddress 127.0.0.1\n"
            + "".join(f"HostKey {key}\n" for key in self.host_keys)
            + f"AuthorizedKeysFile {self.client_key}.pub\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\n"
            "KbdInteractiveAuthentication no\nPermitRootLogin yes\nMaxStartups 100\n"
        )
        self._log = (folder / "log").open("wb")
        command = [PROGRAM, "-D", "-e", "-f", str(config)]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError((folder / "log").read_text()) from None
                time.sleep(0.02)

    def public(self, index: int = 0) -> str:
        """Type and key of one host key."""
        return " ".join(Path(f"{self.host_keys[index]}.pub").read_text().split()[:2])

    @property
    def known(self) -> str:
        name = f"[127.0.0.1]:{self.port}"
        return "".join(f"{name} {self.public(i)}\n" for i in range(len(self.host_keys)))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()
