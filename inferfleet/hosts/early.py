"""TCP connections begun before it is known how to log in.

sshd starts a process for every connection and waits for our first word. What Python must import
to say it takes as long, so a connection that an earlier run has made is begun again first: to the
address found then, for the same words of the inventory and the same ssh_config. What ssh_config
and the name server say now decides all the same: a connection that is not wanted is closed unused.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

# Not more at once than work is done at once; sshd drops some of more than ten (MaxStartups).
MOST = 32
# sshd gives up on a silent client after LoginGraceTime, 120 s unless configured shorter.
STALE_SECONDS = 10.0
CONFIGURATIONS = ("~/.ssh/config", "/etc/ssh/ssh_config")


class Early:
    """Remembered addresses of machines, one file each in a private folder, and open sockets.

    folder: None remembers nothing. words: machine -> what the inventory says about the way there.
    """

    def __init__(self, folder: Path | None, words: Mapping[str, str]) -> None:
        self._folder = folder
        self._words = words
        self._stamp = " ".join(str(_changed(path)) for path in CONFIGURATIONS)
        self._begun: dict[str, tuple[tuple[str, int], socket.socket, float]] = {}

    def begin(self) -> None:
        """Start connecting to the machines whose addresses are remembered; never waits."""
        for name in list(self._words)[:MOST]:
            address = self._remembered(name)
            if address is not None:
                self._begin(name, address)

    def take(self, name: str, host: str, port: int, timeout: float) -> socket.socket | None:
        """The connection begun for a machine, once it stands; None when there is none to that
        host, and whatever is wrong with it: the caller then makes its own."""
        if name not in self._begun:
            return None
        address, sock, since = self._begun.pop(name)
        fresh = time.monotonic() - since < STALE_SECONDS
        if fresh and _leads_to(address, host, port) and _stands(sock, timeout):
            return sock
        sock.close()
        return None

    def remember(self, name: str, sock: socket.socket) -> None:
        """Begin where this connection of the machine leads to the next time."""
        address = sock.getpeername()[:2]
        if self._folder is None or name not in self._words or self._remembered(name) == address:
            return
        path = self._folder / f"{name}.address"
        new = path.with_name(f"{path.name}.{os.getpid()}")
        with suppress(OSError):
            handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(f"{self._line(name)}\n{address[0]}\n{address[1]}\n")
            new.replace(path)

    def _line(self, name: str) -> str:
        return f"{self._stamp} {self._words[name]}"

    def _remembered(self, name: str) -> tuple[str, int] | None:
        if self._folder is None:
            return None
        try:
            line, host, port = (self._folder / f"{name}.address").read_text("utf-8").splitlines()
            return (host, int(port)) if line == self._line(name) else None
        except (OSError, ValueError):
            return None

    def _begin(self, name: str, address: tuple[str, int]) -> None:
        sock = None
        with suppress(OSError):
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            sock.connect_ex(address)  # EINPROGRESS, or an error that take finds
            self._begun[name] = (address, sock, time.monotonic())


def _changed(path: str) -> int:
    try:
        return os.stat(os.path.expanduser(path)).st_mtime_ns
    except OSError:
        return 0


def _leads_to(address: tuple[str, int], host: str, port: int) -> bool:
    """True when that numeric address is one of the host's."""
    if address == (host, port):
        return True
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return address in [entry[4][:2] for entry in found]


def _stands(sock: socket.socket, timeout: float) -> bool:
    """Wait until a socket is connected; False when it is not, or the other side has closed."""
    try:
        if not select.select([], [sock], [], timeout)[1]:
            return False
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return False
        return sock.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
