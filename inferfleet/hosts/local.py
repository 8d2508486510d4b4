"""This machine as a host."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

from inferfleet.errors import FleetError
from inferfleet.hosts import shell
from inferfleet.hosts.base import ScriptHost
from inferfleet.hosts.forward import Peer, dial, relay
from inferfleet.hosts.program import Program

CHUNK = 1 << 16
# A watched script gets five seconds after its end was asked for; see shell.watched.
GRACE_SECONDS = 6.0
# Addresses a service listens on that is reached at 127.0.0.1.
LOOPBACK = ("127.0.0.1", "localhost", "0.0.0.0")


class LocalHost(ScriptHost):
    """Runs scripts with sh on this machine; there is nothing to connect or to close.

    sudo_password: asked only when sudo wants a password.
    """

    def __init__(self, name: str = "local", sudo_password: Callable[[], str] | None = None) -> None:
        super().__init__(name, sudo_password)

    def connect(self) -> None:
        """Nothing to open."""

    def close(self) -> None:
        """Nothing to close."""

    def interact(self, script: str, *, sudo: bool = False) -> int:
        """Run a script on this terminal; its exit status (128 + n after signal n)."""
        process = subprocess.Popen(["sh", "-c", shell.on_terminal(script, sudo=sudo)])
        while True:
            try:
                return _status(process.wait())
            except KeyboardInterrupt:
                continue  # the terminal has sent it to the script too, which decides

    @contextmanager
    def forward(self, port: int, local_port: int = 0, address: str = "127.0.0.1") -> Iterator[int]:
        """Yield port itself where 127.0.0.1 has it; else relay local_port to address:port."""
        if local_port in (0, port) and address in LOOPBACK:
            yield port
            return

        def connect() -> Peer:
            return dial(address, port)

        with relay(connect, local_port) as bound:
            yield bound

    def _start(self, line: str) -> Program:
        try:
            return LocalProgram(line)
        except OSError as error:
            raise FleetError(f"{self.name}: cannot start sh: {error.strerror}") from None


class LocalProgram:
    """sh in a session of its own, so that a signal reaches all it has started."""

    def __init__(self, line: str) -> None:
        self._process = subprocess.Popen(
            ["sh", "-c", line],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        pipes = self._process.stdin, self._process.stdout, self._process.stderr
        self._in, self._out, self._err = (pipe for pipe in pipes if pipe is not None)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._in.fileno(), view[:CHUNK]) :]
        except ValueError:
            raise BrokenPipeError("standard input is closed") from None

    def close_input(self) -> None:
        self._in.close()

    def read_out(self) -> bytes:
        return _read(self._out)

    def read_err(self) -> bytes:
        return _read(self._err)

    def wait(self, timeout: float | None) -> int:
        try:
            return _status(self._process.wait(timeout))
        except subprocess.TimeoutExpired:
            raise TimeoutError from None

    def end(self) -> None:
        self._in.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_SECONDS)
        self.kill()

    def kill(self) -> None:
        if self._process.returncode is not None:
            return  # waited for: its number may be another process's by now
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # root's processes are beyond our signals
            self._process.wait(1.0)


def _read(pipe: IO[bytes]) -> bytes:
    data = os.read(pipe.fileno(), CHUNK)
    if not data:
        pipe.close()
    return data


def _status(code: int) -> int:
    return code if code >= 0 else 128 - code
