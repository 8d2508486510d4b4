"""The same work on many machines at once; one that fails never hides the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from inferfleet.errors import FleetError

T = TypeVar("T")
MOST_AT_ONCE = 32


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What one machine gave: a value, or the error that stopped it."""

    machine: str
    value: T | None = None
    error: FleetError | None = None


def on_each(machines: Sequence[str], work: Callable[[str], T]) -> list[Answer[T]]:
    """Answers in the order of machines; only FleetError is caught, a bug stays a traceback.

    Errors say whose they are.
    """

    def one(name: str) -> Answer[T]:
        try:
            return Answer(name, value=work(name))
        except FleetError as error:
            return Answer(name, error=error.of(name))

    if len(machines) == 1:
        return [one(machines[0])]
    found: dict[str, Answer[T]] = {}
    bugs: list[BaseException] = []
    waiting = list(reversed(machines))

    def worker() -> None:
        while waiting:
            try:
                name = waiting.pop()
            except IndexError:
                return
            try:
                found[name] = one(name)
            except BaseException as error:
                bugs.append(error)

    # Daemons: an interrupted run ends at once, it does not wait for the slowest machine.
    threads = [
        threading.Thread(target=worker, daemon=True)
        for _ in range(min(MOST_AT_ONCE, len(machines)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if bugs:
        raise bugs[0]
    return [found[name] for name in machines]
