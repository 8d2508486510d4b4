"""Logs of many services at once, line by line as they come."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Generator
from queue import SimpleQueue
from typing import TYPE_CHECKING

from inferfleet.errors import FleetError
from inferfleet.run.session import Session, control

if TYPE_CHECKING:
    from inferfleet.run.run import Run


def stream_logs(run: Run, lines: int, follow: bool) -> list[FleetError]:
    """Print to stdout; lines are named when there is more than one service.

    Returns what went wrong, per machine; the others go on.
    """
    sessions: list[tuple[Session, str]] = []
    for name in run.machines:
        session = run.session(name, lenient=True)
        chosen = run.services[name]
        for service in session.release.units:
            if chosen is None or service in chosen:
                sessions.append((session, service))
    several = len(sessions) > 1
    lines_found: SimpleQueue[tuple[str, FleetError | None] | None] = SimpleQueue()

    def one(session: Session, service: str) -> None:
        label = f"{session.host.name} {service} | " if several else ""
        words = ["logs", service, str(lines), *(["follow"] if follow else [])]
        try:
            with contextlib.closing(_lines(session, words)) as found:
                for line in found:
                    lines_found.put((f"{label}{line}\n", None))
        except FleetError as error:
            lines_found.put(("", error))
        finally:
            lines_found.put(None)

    # Daemons: an interrupt must not wait for a log that has no end.
    for pair in sessions:
        threading.Thread(target=one, args=pair, daemon=True).start()
    errors: list[FleetError] = []
    going = len(sessions)
    while going:
        entry = lines_found.get()
        if entry is None:
            going -= 1
        elif entry[1]:
            errors.append(entry[1])
        else:
            sys.stdout.write(run.redact(entry[0]))
            sys.stdout.flush()
    return errors


def _lines(session: Session, words: list[str]) -> Generator[str, None, None]:
    yield from session.host.stream(control(session.release.root, *words), sudo=session.sudo)
