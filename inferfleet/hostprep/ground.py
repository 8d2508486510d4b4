"""One machine in one run of host preparation: look, judge, act, undo."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from inferfleet.errors import FleetError
from inferfleet.events import Listener
from inferfleet.hostprep.act import Acted, act, generations, interrupted, look, undo
from inferfleet.hostprep.facts import Facts
from inferfleet.hostprep.judge import Prepared, judge
from inferfleet.hostprep.registry import left_behind, load_kinds, signs
from inferfleet.hostprep.setting import Ground
from inferfleet.hosts.connect import open_host
from inferfleet.hosts.host import Host

if TYPE_CHECKING:
    from inferfleet.hosts.early import Early
    from inferfleet.run.brief import Brief


@dataclass(frozen=True)
class Seen:
    """One look at one machine, judged. record: of the newest generation. broken: number of a
    run that never came to its end. notes: lines for the reader."""

    session: GroundSession
    facts: Facts
    prepared: Prepared
    record: Mapping[str, Any] | None
    broken: int | None
    notes: tuple[str, ...] = ()


class GroundSession:
    """Talks to one machine about its host. Raises FleetError for what the user must know."""

    def __init__(
        self,
        brief: Brief,
        ground: Ground,
        sudo_password: Callable[[], str],
        early: Early | None = None,
    ) -> None:
        """early: connections already begun; the one that confirms a change is always new."""
        self._brief, self._ground, self._password = brief, ground, sudo_password
        self._host = open_host(brief.name, brief.reach, sudo_password, early)
        self._kinds = load_kinds(wanted.kind for wanted in ground.settings)

    def see(self, mend: bool = False) -> Seen:
        """Look and judge; mend: undo first what an interrupted run has left."""
        facts = self._look()
        broken = interrupted(self._ground, facts)
        notes: tuple[str, ...] = ()
        if broken is not None and mend:
            undo(self._host, self._ground, broken, self._brief.sudo)
            notes = (f"the unfinished run {broken} was undone",)
            facts, broken = self._look(), None
        elif broken is not None:
            notes = (f"run {broken} was interrupted: the next hostprep.apply undoes it first",)
        notes += unseen(self._ground, facts)
        prepared = judge(self._ground, facts, self._kinds)
        return Seen(self, facts, prepared, _record(self._ground, facts), broken, notes)

    def apply(self, seen: Seen, listener: Listener) -> Acted:
        """Make what was seen as it is wanted."""
        return act(
            self._host,
            None if self._brief.local else self._open,
            self._ground,
            seen.prepared,
            self._kinds,
            number=max(generations(self._ground, seen.facts), default=0) + 1,
            sudo=self._brief.sudo,
            listener=listener,
        )

    def rollback(self, seen: Seen) -> Acted:
        """Undo the newest generation."""
        numbers = generations(self._ground, seen.facts)
        if not numbers:
            raise FleetError(f"{self._host.name}: there is nothing to undo")
        return undo(self._host, self._ground, numbers[-1], self._brief.sudo)

    def _look(self) -> Facts:
        """Once; again only when kinds that are not wanted any more have left something."""
        facts = look(self._host, self._ground, self._kinds, self._brief.sudo, signs(self._kinds))
        others = left_behind(self._kinds, facts)
        if others:
            self._kinds = load_kinds(self._kinds.keys() | others)
            facts = look(self._host, self._ground, self._kinds, self._brief.sudo)
        return facts

    def _open(self) -> Host:
        return open_host(self._brief.name, self._brief.reach, self._password)


def unseen(ground: Ground, facts: Facts) -> tuple[str, ...]:
    """What the machine has undone by itself, with nobody there to be told."""
    when, _, number = (facts.value(f"{ground.state}/undone") or "").partition("\t")
    if not when.isdigit():
        return ()
    time = datetime.fromtimestamp(int(when), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return (f"run {number} was undone by the machine itself at {time}: its operator was lost",)


def _record(ground: Ground, facts: Facts) -> Mapping[str, Any] | None:
    numbers = generations(ground, facts)
    if not numbers:
        return None
    try:
        found: Mapping[str, Any] = json.loads(
            facts.text(f"{ground.state}/{numbers[-1]}/record.json") or ""
        )
    except ValueError:
        return None
    return found
