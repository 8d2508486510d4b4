"""The way back: what the machine needs to know to return from a plan that failed; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from inferfleet.observe.observed import Observed
from inferfleet.plan.plan import Plan
from inferfleet.plan.steps import moved
from inferfleet.release.release import Release, Unit

# Folders under .inferbase with a file for each service.
RECORDS = ("started", "loaded", "restarts", "ready", "evicted")


@dataclass(frozen=True)
class Undo:
    """back: the generation to return to, 0 for none. old: its units.

    Under the generation that failed, remove and stop name services to end; under the old one
    replace names those that ran before. links: path -> target to make; unlinks: paths. forget:
    paths under .inferbase that go with what was removed; lost: those that go when there is no
    way back any more.
    """

    back: int
    old: Mapping[str, Unit]
    remove: tuple[str, ...]
    stop: tuple[str, ...]
    replace: tuple[str, ...]
    links: Mapping[str, str]
    unlinks: tuple[str, ...]
    forget: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    def returns(self, plan: Plan) -> bool:
        """Whether there is anything to return to."""
        return self.back != plan.to or bool(self.remove or self.stop or self.replace)


def way_back(release: Release, observed: Observed, plan: Plan) -> Undo:
    """From plan.to to what was good last.

    After an interrupted run that is the generation this run came from: what is in force now
    has never been seen ready. Where the generation stayed, it is the services that ran then.
    """
    journal, stayed = observed.journal, None
    if journal is not None and not journal.interrupted_at(observed.current):
        journal, stayed = None, journal
    base = observed.origin if journal else observed.manifest
    back = journal.source if journal else observed.current
    old = base.units if base else {}
    before = old.keys() if base or not back else observed.units.keys()
    up = {service for service, state in observed.units.items() if state.up}
    if journal:
        up = set(journal.replace)
    found = frozenset(up)
    doubtful: set[str] = set()
    if stayed:
        # Some may have been stopped to make room for others, which nobody has seen ready.
        doubtful = {*stayed.stop, *stayed.remove} if stayed.source == stayed.to else set()
        up = (up - doubtful) | (set(stayed.replace) & set(before))
    acted = [step.target for step in plan.steps if step.action in {"replace", "start"}]
    gone = [*plan.targets("remove"), *plan.targets("evict")]
    switched = back != plan.to
    new = release.units
    elsewhere = {s for s in acted if s in old and s in new and moved(old[s], new[s])}
    remove = [s for s in acted if s not in before or s in elsewhere]
    stop = [s for s in acted if s in before and s not in up and s not in elsewhere]
    again = ({*gone, *(acted if switched else ())} & up) | (up - found)
    if journal:
        remove += [s for s in journal.remove if s in new]
        stop += [s for s in journal.stop if s in new]
        again |= up
    elif stayed:
        remove += [s for s in stayed.remove if s in doubtful & found & new.keys()]
        stop += [s for s in stayed.stop if s in doubtful & found & new.keys()]
    links = base.links if base else {}
    inside = f"{release.root}/current/"
    made = {*plan.targets("link"), *(release.links if journal else ())}
    lost = made | {*plan.targets("unlink"), *(links if journal else ())}
    ended = [new[service] for service in remove if service in new]
    return Undo(
        back=back,
        old=old,
        remove=_once(remove),
        stop=_once(stop),
        replace=tuple(s for s in before if s in again),
        links={path: inside + links[path] for path in sorted(lost & links.keys())},
        unlinks=tuple(sorted(made - links.keys())),
        forget=_traces(ended, old),
        lost=_lost(release, observed, plan),
    )


def _lost(release: Release, observed: Observed, plan: Plan) -> tuple[str, ...]:
    """What of removed services goes with them; of those that are only stopped, nothing."""
    known = observed.manifest.units if observed.manifest else {}
    switched = plan.to != plan.source
    removed = [observed.left[number].units[service] for number, service in plan.left]
    if switched:
        removed += [known[s] for s in plan.targets("remove") if s in known]
    return _traces(removed, release.units if switched else known)


def _traces(removed: Iterable[Unit], staying: Mapping[str, Unit]) -> tuple[str, ...]:
    """Paths under .inferbase that these units have and those that stay have not."""
    names = {unit.name for unit in staying.values() if unit.runtime == "process"}
    found = []
    for unit in removed:
        if unit.runtime == "process" and unit.name not in names:
            found.append(f"run/{unit.name}")
        if unit.service not in staying:
            found += [f"{record}/{unit.service}" for record in RECORDS]
    return _once(found)


def _once(names: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
