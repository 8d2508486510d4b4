"""What both hosts do alike once they can start a command line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from inferfleet.errors import FleetError
from inferfleet.hosts import shell
from inferfleet.hosts.host import Conversation, Result
from inferfleet.hosts.program import Program, Session, Talk, collect, lines
from inferfleet.hosts.sudo import Sudo


class ScriptHost(ABC):
    """run, converse and stream over `_start`, which each host brings."""

    def __init__(self, name: str, sudo_password: Callable[[], str] | None) -> None:
        self.name = name
        self._sudo = Sudo(name, self._session, sudo_password)

    def run(
        self, script: str, *, input: bytes = b"", sudo: bool = False, timeout: float | None = None
    ) -> Result:
        """Run a script to its end in one round trip; a non-zero exit does not raise.

        timeout: seconds from the start of the script, FleetError when they are over.
        """
        session, prefix = self._open(script, sudo)
        return collect(session, prefix + input, timeout)

    def converse(self, script: str, *, sudo: bool = False) -> Conversation:
        """Start a script and keep talking to it; it decides itself what a lost input means."""
        session, prefix = self._open(script, sudo)
        if prefix:
            session.send(prefix)
        return Talk(session)

    def read(self, script: str, *, sudo: bool = False) -> Iterator[bytes]:
        """Yield standard output as it comes; a script that fails is a FleetError at its end."""
        session, prefix = self._open(script, sudo)
        if prefix:
            session.send(prefix)
        session.program.close_input()
        try:
            while chunk := session.program.read_out():
                yield chunk
            status = session.program.wait(None)
        finally:
            session.program.kill()
        if status:
            words = bytes(session.err.data).decode("utf-8", "replace").strip()
            raise FleetError(f"{self.name}: {words or f'exit status {status}'}")

    def stream(self, script: str, *, sudo: bool = False) -> Iterator[str]:
        """Yield lines of both outputs as they come; closing the iterator ends the script."""
        session, prefix = self._open(shell.watched(script), sudo)
        if prefix:
            session.send(prefix)
        yield from lines(session)

    def _open(self, script: str, sudo: bool) -> tuple[Session, bytes]:
        """A started script, and what its input has to begin with."""
        if sudo:
            return self._sudo.open(script), b""
        command = shell.plain(script)
        return self._session(command.line), command.prefix

    def _session(self, line: str) -> Session:
        return Session(self.name, self._start(line))

    @abstractmethod
    def _start(self, line: str) -> Program:
        """Start a command line with all three pipes; FleetError when that cannot be done."""
