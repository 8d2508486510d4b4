"""The same work on many machines at once; one that fails never hides the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    """Answers in the order of machines; only FleetError is caught, a bug stays a traceback."""

    def one(name: str) -> Answer[T]:
        try:
            return Answer(name, value=work(name))
        except FleetError as error:
            return Answer(name, error=error)

    if len(machines) == 1:
        return [one(machines[0])]
    with ThreadPoolExecutor(max_workers=min(MOST_AT_ONCE, max(1, len(machines)))) as pool:
        return list(pool.map(one, machines))
