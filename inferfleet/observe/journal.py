"""What a run leaves on a machine while it works there: its lock and its journal."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lock:
    """A lock on the machine: who holds it since when for what; alive if that process still is."""

    alive: bool
    pid: int
    who: str
    when: str
    what: str

    @classmethod
    def parse(cls, holder: str, alive: bool) -> Lock:
        pid, _, who, when, what = (holder.split("|") + [""] * 5)[:5]
        return cls(alive, int(pid) if pid.isascii() and pid.isdigit() else 0, who, when, what)

    def __str__(self) -> str:
        return f"{self.who} since {self.when} ({self.what}, process {self.pid})"


@dataclass(frozen=True)
class Journal:
    """The trace of a run that did not finish: from which generation to which, and the way back.

    phase: how far it got (staged, switched, reverting); what is in force `current` alone says.
    remove, stop, replace: as in Undo.
    """

    source: int
    to: int
    phase: str
    who: str
    when: str
    what: str
    remove: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    replace: tuple[str, ...] = ()

    @classmethod
    def parse(cls, line: str) -> Journal | None:
        """From the journal's line with | between fields; None when it is damaged."""
        parts = line.split("|")
        if len(parts) != 9 or not all(p.isascii() and p.isdigit() for p in parts[:2]):
            return None
        if parts[2] not in {"staged", "switched", "reverting"}:
            return None
        lists = [tuple(part.split()) for part in parts[6:]]
        return cls(int(parts[0]), int(parts[1]), *parts[2:6], *lists)  # type: ignore[arg-type]

    def interrupted_at(self, current: int) -> bool:
        """Whether the generation in force is the one the run was on its way to."""
        return self.to == current and self.source != self.to

    def verdict(self, current: int) -> str:
        """One sentence: what the machine is now."""
        if self.source == self.to == current:
            place = f"generation {current} stayed in force, services may be half started or stopped"
        elif current == self.to:
            place = f"it is wholly new (generation {current}), readiness not confirmed"
        elif current == self.source:
            place = "it is wholly old " + (f"(generation {current})" if current else "(nothing)")
        else:
            place = f"generation {current} is in force, neither {self.source} nor {self.to}"
        back = " while it returned" if self.phase == "reverting" else ""
        return f"a run of {self.who} at {self.when} ({self.what}) was interrupted{back}: {place}"
