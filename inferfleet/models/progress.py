"""What fetching a model asks of its caller: a place to report to, and secrets."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives news of a transfer; called from the thread that fetches."""

    def advance(self, need_key: str, done: int, total: int | None) -> None:
        """done of total bytes of a model are on the machine; total None means unknown."""

    def note(self, text: str) -> None:
        """One sentence worth showing, without a final full stop; never holds a secret."""


class Revealing(Protocol):
    """A secret that gives its value only when asked to."""

    def reveal(self) -> str:
        """The value; never put it in argv, scripts, logs or exceptions."""
