"""What long work says while it goes on; whoever shows it decides how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """machine and service ("" for the machine itself), what goes on, and a short detail.

    kind: step (a named step of apply), log (a line of a tool), wait (readiness), note,
    fetch (done and total bytes count). doing: what is done to the bytes of a fetch.
    """

    machine: str
    kind: str
    text: str
    service: str = ""
    done: int = 0
    total: int | None = None
    doing: str = "fetching"


Listener = Callable[[Event], None]


def silent(_event: Event) -> None:
    """A listener that ignores everything."""
