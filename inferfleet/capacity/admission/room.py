"""The arithmetic of one pool of memory; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from inferfleet.capacity.words import series, size

Amounts = Mapping[str, int]


@dataclass(frozen=True)
class Room:
    """The arithmetic of one pool of memory, in bytes.

    needs: of the services to be started. kept: of those of ours that stay. share: the host's own
    (the larger of the reserve and what others have); others: who has most of it. used: what
    others have now. asks: what must be free for a service to start, whatever it takes of it then.
    """

    pool: str
    total: int
    share: int
    reserve: int
    needs: Amounts
    kept: Amounts
    others: tuple[tuple[str, int], ...] = ()
    used: int = 0
    asks: Amounts = field(default_factory=dict)

    @property
    def need(self) -> int:
        return sum(self.needs.values())

    @property
    def left(self) -> int:
        return self.total - self.share - sum(self.kept.values())

    @property
    def free(self) -> int:
        """What is free before the start; the reserve of the host is free, too."""
        return self.total - self.used - sum(self.kept.values())

    @property
    def fits(self) -> bool:
        return self.need <= self.left and not self._refused()

    def without(self, services: Iterable[str]) -> Room:
        """The same room as if these were not to be started."""
        gone = set(services)
        return replace(
            self,
            needs={name: amount for name, amount in self.needs.items() if name not in gone},
            asks={name: amount for name, amount in self.asks.items() if name not in gone},
        )

    def _refused(self) -> tuple[str, ...]:
        """Services that would not even begin with what is free."""
        return tuple(name for name, amount in self.asks.items() if amount > self.free)

    def words(self, named: bool = False) -> str:
        """Why it does not fit, or that it does, as a sentence without its end.

        named: a service that is alone here is one of several that were asked about.
        """
        if self.need <= self.left and (refused := self._refused()):
            name = refused[0]
            asks = f"{name if named else 'it'} starts only where {size(self.asks[name])} are free"
            less = [f"{size(self.used)} {self._share_words(True)}"] if self.used else []
            less += [f"{size(amount)} of {name}" for name, amount in self.kept.items() if amount]
            place = f"{size(max(self.free, 0))} of {size(self.total)} {self.pool} are"
            return f"{asks}, and {place}" + (f" (less {series(less)})" if less else "")
        needs = {name: amount for name, amount in self.needs.items() if amount}
        own = f"{series(needs) if named else 'it'} needs {size(self.need)}"
        if len(needs) > 1:
            each = series(f"{name} {size(amount)}" for name, amount in needs.items())
            own = f"together they need {size(self.need)} ({each})"
        less = [f"{size(self.share)} {self._share_words()}"] if self.share else []
        less += [f"{size(amount)} of {name}" for name, amount in self.kept.items() if amount]
        place = f"{size(max(self.left, 0))} of {size(self.total)} {self.pool} "
        place += "are left" + (f" (less {series(less)})" if less else "")
        return f"{own}, and {place}"

    def _share_words(self, used: bool = False) -> str:
        if self.share <= self.reserve and not used:
            return "kept for the host"
        named = [f"{label} {size(amount)}" for label, amount in self.others]
        return "of others" + (f": {series(named)}" if named else "")
