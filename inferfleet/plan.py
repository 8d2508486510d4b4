"""(Release, Observed) -> Plan: the ordered differences between wanted and found; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from inferfleet.errors import LOCKED, FleetError
from inferfleet.models.need import ModelNeed
from inferfleet.models.observe import ModelState, parse_observed
from inferfleet.models.source import source_text
from inferfleet.models.stale import staleness
from inferfleet.observed import Observed
from inferfleet.release import Release, Unit

ANY = {"0.0.0.0", "::"}


@dataclass(frozen=True)
class Goal:
    """What a run wants. start: also start what is stopped. services: only these (None: all)."""

    start: bool = True
    services: frozenset[str] | None = None
    restart: bool = False

    def wants(self, service: str) -> bool:
        return self.services is None or service in self.services


@dataclass(frozen=True)
class Step:
    """One difference. action: create, update, delete, link, unlink, fetch, start, replace, remove,
    recover; target: a path, service or model; reason: why, in a few words."""

    action: str
    target: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What apply will do to one machine, in order.

    source and to: the generations before and after (equal when no file changes).
    problems: what must be mended first; a plan that has some is never applied.
    notes: what the reader should know, such as an interrupted earlier run.
    """

    machine: str
    source: int
    to: int
    steps: tuple[Step, ...]
    fetch: tuple[ModelNeed, ...] = ()
    problems: tuple[FleetError, ...] = ()
    notes: tuple[str, ...] = ()
    changed_files: tuple[str, ...] = field(default=())

    @property
    def empty(self) -> bool:
        return not self.steps

    def targets(self, action: str) -> list[str]:
        return [step.target for step in self.steps if step.action == action]


def make_plan(
    release: Release,
    observed: Observed,
    goal: Goal,
    reasons: Mapping[str, str] | None = None,
) -> Plan:
    """Compare; reasons: why a unit's digest differs, by service, where the caller knows."""
    files = _file_steps(release, observed)
    links = _link_steps(release, observed)
    units = _unit_steps(release, observed, goal, reasons or {})
    starting = {step.target for step in units if step.action in {"start", "replace"}}
    fetch = _fetch(release, observed, starting)
    recover = [Step("recover", "journal", observed.journal.verdict)] if observed.journal else []
    new = bool(files) or bool(links) or observed.current == 0
    top = max((*observed.generations, observed.current), default=0)
    return Plan(
        machine=release.machine,
        source=observed.current,
        to=top + 1 if new else observed.current,
        steps=(
            *recover,
            *(Step("fetch", source_text(need.source), f"for {need.service}") for need in fetch),
            *files,
            *links,
            *units,
        ),
        fetch=fetch,
        problems=(*_problems(release, observed, units), *_absent_models(fetch, observed)),
        notes=_notes(observed),
        changed_files=tuple(step.target for step in files),
    )


def _file_steps(release: Release, observed: Observed) -> list[Step]:
    if observed.current == 0:
        return [Step("create", path, "") for path in sorted(release.files)]
    known = observed.manifest.files if observed.manifest else {}
    steps = []
    for path in sorted(release.files.keys() | known.keys()):
        wanted, found = release.files.get(path), observed.files.get(path)
        if wanted is None:
            steps.append(Step("delete", path, ""))
        elif found is None:
            steps.append(Step("create", path, "is gone" if path in known else ""))
        elif found[0] != wanted.sha256:
            drifted = path in known and known[path][0] != found[0]
            steps.append(Step("update", path, "was changed on the machine" if drifted else ""))
        elif found[1] != f"{wanted.mode:o}":
            steps.append(Step("update", path, f"mode {found[1]} -> {wanted.mode:o}"))
    return steps


def _link_steps(release: Release, observed: Observed) -> list[Step]:
    steps = []
    known = observed.manifest.links if observed.manifest else {}
    for path, target in sorted(release.links.items()):
        if observed.links.get(path) != f"{release.root}/current/{target}":
            steps.append(Step("link", path, f"-> {release.root}/current/{target}"))
    for path in sorted(known.keys() - release.links.keys()):
        if observed.links.get(path, "!") != "!":
            steps.append(Step("unlink", path, ""))
    return steps


def _unit_steps(
    release: Release, observed: Observed, goal: Goal, reasons: Mapping[str, str]
) -> list[Step]:
    steps = []
    old = observed.manifest.units if observed.manifest else {}
    for service in sorted((observed.units.keys() & old.keys()) - release.units.keys()):
        if goal.wants(service):
            steps.append(Step("remove", service, "is not in the machine file any more"))
    for service, unit in release.units.items():
        if not goal.wants(service):
            continue
        step = _unit_step(unit, observed, goal, reasons.get(service, "its configuration changed"))
        if step and service in old and _moved(old[service], unit) and service in observed.units:
            was = old[service]
            why = f"moves from {was.runtime} {was.name} to {unit.runtime} {unit.name}"
            steps.append(Step("remove", service, why))
            step = Step("start", service, why)
        if step:
            steps.append(step)
    return steps


def _moved(old: Unit, new: Unit) -> bool:
    return (old.runtime, old.name) != (new.runtime, new.name)


def _unit_step(unit: Unit, observed: Observed, goal: Goal, reason: str) -> Step | None:
    found = observed.units.get(unit.service)
    before = observed.manifest.units.get(unit.service) if observed.manifest else None
    up = found is not None and found.up
    chosen = goal.start and (unit.autostart or goal.services is not None)
    if up:
        if observed.started.get(unit.service) != unit.digest or (before and _moved(before, unit)):
            return Step("replace", unit.service, reason)
        if goal.restart:
            return Step("replace", unit.service, "was asked to restart")
        assert found is not None
        if found.state == "restarting" and chosen:
            return Step("replace", unit.service, f"does not stay up: {found.detail}")
        return None
    if not chosen:
        return None
    if found is None:
        return Step("start", unit.service, "is not there" if before else "is new")
    # A container that exists keeps its old configuration when it is merely started.
    action = "start" if observed.started.get(unit.service) == unit.digest else "replace"
    return Step(action, unit.service, f"is {found.state} ({found.detail})")


def _fetch(release: Release, observed: Observed, starting: set[str]) -> tuple[ModelNeed, ...]:
    """Models to bring before the start; those only the source knows to be stale are not asked."""
    states = parse_observed(observed.model_lines)
    return tuple(
        need
        for need in release.models
        if need.service in starting
        and need.source.scheme != "ollama"
        and staleness(need, states.get(need.key), None) in {"missing", "partial", "stale"}
    )


def _absent_models(fetch: tuple[ModelNeed, ...], observed: Observed) -> list[FleetError]:
    """Models that should be on the machine already, cannot be fetched, and are not there."""
    states = parse_observed(observed.model_lines)
    return [
        FleetError(
            f"the model {need.source.name} of service {need.service} is not on the machine",
            hint="put it there, or give the model a source that can be fetched",
        )
        for need in fetch
        if need.source.scheme == "path" and not _present(states, need)
    ]


def _present(states: Mapping[str, ModelState], need: ModelNeed) -> bool:
    return need.key in states and states[need.key].present


def _notes(observed: Observed) -> tuple[str, ...]:
    notes = list(observed.troubles)
    old = observed.manifest.units if observed.manifest else {}
    for service in sorted(observed.units.keys() - old.keys()):
        notes.append(f"{service} runs in our compose project but is not ours: left alone")
    if observed.lock and not observed.lock.alive:
        notes.append(f"the lock of a dead run will be taken over: {observed.lock}")
    return tuple(notes)


def lock_problems(machine: str, observed: Observed) -> list[FleetError]:
    """The error of a lock whose process lives, if there is one."""
    if observed.lock is None or not observed.lock.alive:
        return []
    return [
        FleetError(
            f"{machine} is locked by {observed.lock}",
            hint="wait until that run ends; the lock goes with its process",
            code=LOCKED,
        )
    ]


def _problems(release: Release, observed: Observed, steps: list[Step]) -> tuple[FleetError, ...]:
    problems = lock_problems(release.machine, observed)
    if observed.facts.get("symlink"):
        problems.append(
            FleetError(
                f"{observed.facts['symlink']} is a symbolic link",
                hint="set `root` to the real directory",
            )
        )
    if observed.foreign_current is not None:
        what = (
            "is not a link" if observed.foreign_current == "!" else "does not point to a generation"
        )
        problems.append(
            FleetError(
                f"{release.root}/current {what}", hint="move it away; inferbase makes its own"
            )
        )
    for path in sorted(release.links):
        if observed.links.get(path) == "!":
            problems.append(
                FleetError(f"{path} exists and is not a link of inferbase", hint="move it away")
            )
    if observed.facts.get("writable") == "no":
        problems.append(
            FleetError(
                f"{observed.facts.get('user')} may not write to {observed.facts.get('near')}",
                hint=f"give {release.root} to that user, or set `sudo: true` in the machine file",
            )
        )
    problems.extend(_port_problems(release, observed, steps))
    return tuple(problems)


def _port_problems(release: Release, observed: Observed, steps: list[Step]) -> list[FleetError]:
    """Ports that a unit will need and that something else listens on."""
    old = observed.manifest.units if observed.manifest else {}
    freed = {
        old[service].address
        for service, state in observed.units.items()
        if state.up and service in old
    }
    problems: list[FleetError] = []
    for step in steps:
        if step.action not in {"start", "replace"}:
            continue
        address = release.units[step.target].address
        if address is None or address in freed:
            continue
        taken = [
            ip
            for ip, port in observed.listeners
            if port == address[1] and (ip == address[0] or ip in ANY or address[0] in ANY)
        ]
        if taken:
            problems.append(PortTaken(step.target, address[1], sorted(taken)[0]))
    return problems


class PortTaken(FleetError):
    """A port that a service needs is in use; the caller may find out by whom."""

    def __init__(self, service: str, port: int, ip: str, culprit: str = "") -> None:
        by = f" by {culprit}" if culprit else ""
        super().__init__(
            f"port {port} of service {service} is already taken on {ip}{by}",
            hint="stop it, or give the service another `port`",
        )
        self.service, self.port, self.ip = service, port, ip
