"""A running program behind its pipes, and the ways to talk to it that all hosts share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from inferfleet.errors import FleetError
from inferfleet.hosts.host import Result

# A line longer than this is handed out in pieces, so that an endless one cannot fill memory.
LINE_LIMIT = 1 << 20


class Program(Protocol):
    """A started program; write, read_out and read_err may run in threads of their own."""

    def write(self, data: bytes) -> None:
        """Write all of data; raises OSError when the program does not read any more."""

    def close_input(self) -> None:
        """Close standard input; harmless when it is closed."""

    def read_out(self) -> bytes:
        """Next piece of standard output, b"" at its end."""

    def read_err(self) -> bytes:
        """Next piece of standard error, b"" at its end."""

    def wait(self, timeout: float | None) -> int:
        """Exit status, once both outputs have ended.

        Raises TimeoutError, and FleetError when the connection is lost.
        """

    def end(self) -> None:
        """Close standard input and give a watched script (see shell.watched) time to stop."""

    def kill(self) -> None:
        """End the program at once, as far as the transport can; both outputs end."""


class Drain:
    """Collects one output in the background so that the program never waits for its reader."""

    def __init__(self, read: Callable[[], bytes], changed: threading.Condition) -> None:
        self.data = bytearray()
        self.ended = False
        self._read = read
        self._changed = changed
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self) -> None:
        ended = False
        while not ended:
            try:
                chunk = self._read()
            except (OSError, ValueError):
                chunk = b""
            ended = not chunk
            with self._changed:
                self.data += chunk
                self.ended = ended
                self._changed.notify_all()


class Session:
    """A program whose standard error is drained from the start, its output on request."""

    def __init__(self, name: str, program: Program) -> None:
        self.name = name
        self.program = program
        self.changed = threading.Condition()
        self.err = Drain(program.read_err, self.changed)

    def drain_out(self) -> Drain:
        """Collect standard output in the background from now on."""
        return Drain(self.program.read_out, self.changed)

    def send(self, data: bytes) -> None:
        """Write data; that the program has stopped reading is not an error here."""
        try:
            self.program.write(data)
        except OSError:
            return

    def await_end(self, out: Drain, timeout: float | None) -> int:
        """Exit status after the end of both outputs; past timeout seconds kills and raises."""
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            with self.changed:
                if not self.changed.wait_for(lambda: out.ended and self.err.ended, timeout):
                    raise TimeoutError
            return self.program.wait(None if deadline is None else deadline - time.monotonic())
        except TimeoutError:
            self.program.kill()
            raise FleetError(f"{self.name}: the command did not end within {timeout:g} s") from None

    def result(self, out: Drain, status: int) -> Result:
        """What the program left behind."""
        with self.changed:
            return Result(status, _text(out.data), _text(self.err.data))


def collect(session: Session, input: bytes, timeout: float | None) -> Result:
    """Send input and close it, gather both outputs at the same time, wait for the end."""
    out = session.drain_out()

    def feed() -> None:
        session.send(input)
        session.program.close_input()

    if input:
        threading.Thread(target=feed, daemon=True).start()
    else:
        session.program.close_input()
    try:
        return session.result(out, session.await_end(out, timeout))
    except BaseException:
        session.program.kill()
        raise


class Talk:
    """The Conversation of both hosts."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._out = session.drain_out()

    def send(self, data: bytes) -> None:
        """Write all of data; what a script that has ended cannot read is dropped.

        The end of such a script shows in readline() and finish().
        """
        self._session.send(data)

    def readline(self, timeout: float | None = None) -> str | None:
        """Next line without its newline, None at the end; TimeoutError, FleetError when lost."""
        out, changed = self._out, self._session.changed
        with changed:
            if not changed.wait_for(lambda: out.ended or b"\n" in out.data, timeout):
                raise TimeoutError(f"{self._session.name}: no line within {timeout:g} s")
            end = out.data.find(b"\n")
            line = out.data[: end if end >= 0 else None]
            del out.data[: len(line) + 1]
        if end >= 0 or line:
            return _text(line)
        self._session.await_end(out, None)
        return None

    def finish(self, timeout: float | None = None) -> Result:
        """Close standard input and wait for the end; FleetError after timeout seconds."""
        self._session.program.close_input()
        return self._session.result(self._out, self._session.await_end(self._out, timeout))


def lines(session: Session) -> Iterator[str]:
    """Yield standard output line by line; leaving the loop early ends the program."""
    program, rest = session.program, b""
    try:
        while chunk := program.read_out():
            *whole, rest = (rest + chunk).split(b"\n")
            yield from map(_text, whole)
            if len(rest) > LINE_LIMIT:
                yield _text(rest)
                rest = b""
        if rest:
            yield _text(rest)
        program.wait(None)
    finally:
        program.end()


def _text(data: bytes | bytearray) -> str:
    return data.decode("utf-8", "replace")
