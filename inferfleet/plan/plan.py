"""(Release, Observed) -> Plan: the ordered differences between wanted and found; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inferfleet.errors import FleetError
from inferfleet.models.need import ModelNeed
from inferfleet.models.observe import parse_observed
from inferfleet.models.sources.source import source_text
from inferfleet.observe.observed import Observed
from inferfleet.plan.models import outdated, renamed, to_fetch
from inferfleet.plan.obstacles import PortTaken, lock_problems, problems
from inferfleet.plan.steps import (
    Goal,
    Step,
    file_steps,
    left_over,
    left_steps,
    link_steps,
    state_words,
    unit_steps,
)
from inferfleet.release.release import Release, Unit

__all__ = ["Goal", "Plan", "PortTaken", "Step", "down_plan", "make_plan"]


@dataclass(frozen=True)
class Plan:
    """What apply will do to one machine, in order.

    source and to: the generations before and after (equal when no file changes).
    wait: services that have to be ready before it counts as done. room: KiB of main memory that
    must be free again before services start, 0 where none are stopped for them. hidden: files
    whose content is never shown. confirm: whether its end proves the generation good to return to.
    problems: what must be mended first; a plan that has some is never applied.
    notes: what the reader should know, such as an interrupted earlier run. left: of the steps that
    remove, the first ones: generation and service, left running by an interrupted run.
    """

    machine: str
    source: int
    to: int
    steps: tuple[Step, ...]
    fetch: tuple[ModelNeed, ...] = ()
    problems: tuple[FleetError, ...] = ()
    notes: tuple[str, ...] = ()
    changed_files: tuple[str, ...] = ()
    hidden: frozenset[str] = frozenset()
    wait: tuple[str, ...] = ()
    confirm: bool = True
    room: int = 0
    left: tuple[tuple[int, str], ...] = ()

    @property
    def empty(self) -> bool:
        return not self.steps

    def targets(self, action: str) -> list[str]:
        return [step.target for step in self.steps if step.action == action]

    @property
    def gone(self) -> list[str]:
        """Services of the generation in force that are removed: all but what is left."""
        gone = self.targets("remove")
        for _, service in self.left:
            gone.remove(service)
        return gone


def make_plan(
    release: Release,
    observed: Observed,
    goal: Goal,
    reasons: Mapping[str, str] | None = None,
    forced: bool = False,
) -> Plan:
    """Compare; reasons: why a unit's digest differs, by service, where the caller knows.

    forced: damaged records of the machine do not stop it.
    """
    files = file_steps(release, observed)
    links = link_steps(release, observed)
    left = left_over(release, observed)
    states = parse_observed(observed.model_lines)
    due = outdated(release, observed, states)
    units = [*left_steps(left), *unit_steps(release, observed, goal, reasons or {}, due)]
    starting = {step.target for step in units if step.action in {"start", "replace"}}
    fetch = to_fetch(release, observed, goal, starting, states)
    recover = _recover(observed)
    new = bool(files) or bool(links) or observed.current == 0
    new = new or renamed(release, observed, starting)
    top = max((*observed.generations, observed.current), default=0)
    return Plan(
        machine=release.machine,
        source=observed.current,
        to=top + 1 if new else observed.current,
        steps=(
            *recover,
            *(Step("fetch", source_text(need.source), reason) for need, reason in fetch),
            *files,
            *links,
            *units,
        ),
        fetch=tuple(need for need, _ in fetch),
        problems=problems(release, observed, units, forced),
        notes=(
            *_notes(observed),
            *(f"{name}: {text}" for name, text in release.notices.items() if name in starting),
        ),
        changed_files=tuple(step.target for step in files),
        hidden=_hidden(release, observed),
        # After an interrupted run nobody has seen that what runs is ready.
        wait=tuple(
            service
            for service in release.units
            if service in starting
            or (recover and service in observed.units and observed.units[service].up)
        ),
        left=_pairs(left),
    )


def down_plan(release: Release, observed: Observed, services: frozenset[str] | None) -> Plan:
    """Stop and remove what runs; nothing is written but the lock and the history."""
    known = observed.manifest.units if observed.manifest else {}
    # Whatever was asked for: the journal, which alone tells of it, goes with this run.
    left = left_over(release, observed)
    steps = left_steps(left) + [
        Step("remove", service, state_words(state))
        for service, state in observed.units.items()
        if service in known
        and (services is None or service in services)
        and (state.state != "stopped" or known[service].runtime == "compose")
    ]
    ended = {step.target for step in steps}
    # Nothing runs of these, but from now on that is no making of room any more.
    steps += [
        Step("remove", service, "was evicted")
        for service in sorted(observed.evicted & known.keys() - ended)
        if services is None or service in services
    ]
    return Plan(
        release.machine,
        observed.current,
        observed.current,
        (*_recover(observed), *steps),
        problems=(*lock_problems(release.machine, observed), *observed.damage),
        notes=_notes(observed),
        confirm=False,
        left=_pairs(left),
    )


def _pairs(left: Sequence[tuple[int, Unit]]) -> tuple[tuple[int, str], ...]:
    return tuple((number, unit.service) for number, unit in left)


def _recover(observed: Observed) -> list[Step]:
    if observed.journal is None:
        return []
    return [Step("recover", "journal", observed.journal.verdict(observed.current))]


def _hidden(release: Release, observed: Observed) -> frozenset[str]:
    """Secret now or before: a file that stops being secret still held one."""
    known = observed.manifest.files if observed.manifest else {}
    return frozenset(
        path
        for path in release.files.keys() | known.keys()
        if (path in release.files and release.files[path].secret)
        or (path in known and known[path][2])
        or path.startswith(("secrets/", "env/"))
    )


def _notes(observed: Observed) -> tuple[str, ...]:
    notes = list(observed.troubles)
    old = observed.manifest.units if observed.manifest else {}
    if observed.manifest:
        left = {service for record in observed.left.values() for service in record.units}
        for service in sorted(observed.units.keys() - old.keys() - left):
            notes.append(f"{service} runs in our compose project but is not ours: left alone")
    if observed.lock and not observed.lock.alive:
        notes.append(f"the lock of a dead run will be taken over: {observed.lock}")
    return tuple(notes)
