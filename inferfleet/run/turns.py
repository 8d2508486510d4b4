"""Machines of one run that share a disk: each waits while another one has a model's lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# For the machine to let go of a lock whose conversation we have ended.
_LET_GO_SECONDS = 30.0
_LOOK_SECONDS = 0.2


class Turn:
    """One machine that is at work on one model. owner: who holds the model's lock for it, as
    the machine says, "" while it is trying to get it, None while it waits."""

    def __init__(self, machine: str) -> None:
        self.machine = machine
        self.owner: str | None = ""


class Turns:
    """Between the threads that change the machines of one run; key: a model's ModelNeed.key."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._turns: dict[str, list[Turn]] = {}
        self._ended: dict[str, float] = {}

    @contextmanager
    def turn(self, machine: str, key: str) -> Iterator[Turn]:
        """The machine tries to get the model's lock from now on, and lets go of it at the end."""
        mine = Turn(machine)
        with self._changed:
            self._turns.setdefault(key, []).append(mine)
        try:
            yield mine
        finally:
            with self._changed:
                self._turns[key].remove(mine)
                if mine.owner:
                    self._ended[mine.owner] = time.monotonic()
                self._changed.notify_all()

    def taken(self, turn: Turn, owner: str) -> None:
        """The lock is held for the machine."""
        self._set(turn, owner)

    def wait(self, turn: Turn, key: str, owner: str, waits: Callable[[str], None]) -> bool:
        """Wait while another machine of this run holds the lock as owner; False when none of
        them does or did, so that it is another run that holds it. waits: told of the machine."""
        self._set(turn, None)
        told = False
        with self._changed:
            while True:
                others = [one for one in self._turns[key] if one is not turn]
                holding = [one.machine for one in others if one.owner == owner]
                # One that is trying may be the owner without having heard so yet.
                if not holding and all(one.owner != "" for one in others):
                    break
                if holding and not told:
                    waits(holding[0])
                    told = True
                self._changed.wait()
            ended = self._ended.get(owner)
            if ended is None or time.monotonic() - ended > _LET_GO_SECONDS:
                return False
            turn.owner = ""
        time.sleep(_LOOK_SECONDS)
        return True

    def _set(self, turn: Turn, owner: str | None) -> None:
        with self._changed:
            turn.owner = owner
            self._changed.notify_all()
