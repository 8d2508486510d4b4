"""Logs of many services at once, line by line as they come."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from inferfleet.errors import FleetError
from inferfleet.session import Session, control

if TYPE_CHECKING:
    from inferfleet.run import Run


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
    writing = threading.Lock()

    def one(pair: tuple[Session, str]) -> FleetError | None:
        session, service = pair
        label = f"{session.host.name} {service} | " if several else ""
        words = ["logs", service, str(lines), *(["follow"] if follow else [])]
        try:
            with contextlib.closing(_lines(session, words)) as found:
                for line in found:
                    with writing:
                        sys.stdout.write(run.redact(f"{label}{line}\n"))
                        sys.stdout.flush()
        except FleetError as error:
            return error
        return None

    with ThreadPoolExecutor(max_workers=max(1, len(sessions))) as pool:
        return [error for error in pool.map(one, sessions) if error]


def _lines(session: Session, words: list[str]) -> Generator[str, None, None]:
    yield from session.host.stream(control(session.release.root, *words), sudo=session.sudo)
