"""What a machine can be asked to do: the Host protocol and its result types."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Result:
    """Outcome of one script: exit status, and its output as text (UTF-8, bad bytes replaced)."""

    exit: int
    out: str
    err: str


class Conversation(Protocol):
    """A running script that is spoken to line by line; closing its input ends it."""

    def send(self, data: bytes) -> None:
        """Write all of data to the script's standard input."""

    def readline(self, timeout: float | None = None) -> str | None:
        """Next line of standard output without its newline, None at its end.

        Raises TimeoutError after timeout seconds, FleetError when the connection is lost.
        """

    def finish(self, timeout: float | None = None) -> Result:
        """Close standard input, wait for the end; Result.out holds what was not read yet."""


class Host(Protocol):
    """A machine; LocalHost and SshHost implement it. All scripts are POSIX sh.

    Scripts are code, never data: every value in them is quoted by the caller with
    shlex.quote, and nothing secret stands in them (they are visible in process lists);
    secrets travel on standard input only. With sudo=True the script runs as root.
    Methods raise FleetError when the machine cannot be reached or refuses the login.
    """

    name: str

    def connect(self) -> None:
        """Open the connection now; harmless when it is open."""

    def run(
        self, script: str, *, input: bytes = b"", sudo: bool = False, timeout: float | None = None
    ) -> Result:
        """Run a script to its end in one round trip; a non-zero exit does not raise."""

    def converse(self, script: str, *, sudo: bool = False) -> Conversation:
        """Start a script and keep talking to it."""

    def read(self, script: str, *, sudo: bool = False) -> Iterator[bytes]:
        """Yield the output of a script as it comes, unchanged; closing the iterator ends it.

        Raises FleetError with the script's own words when it fails.
        """

    def stream(self, script: str, *, sudo: bool = False) -> Iterator[str]:
        """Yield output lines of a script as they come; closing the iterator ends the script."""

    def interact(self, script: str, *, sudo: bool = False) -> int:
        """Run a script on this terminal (with a pseudo-terminal); its exit status."""

    def forward(
        self, port: int, local_port: int = 0, address: str = "127.0.0.1"
    ) -> AbstractContextManager[int]:
        """Make address:port of the machine reachable on 127.0.0.1 here; yields the local port.

        local_port 0 picks a free one; the local machine yields port itself when it can.
        """

    def close(self) -> None:
        """Close the connection; harmless when it is closed."""
