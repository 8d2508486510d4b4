"""The single differences between a release and a machine: files, links, units; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inferfleet.observe.observed import Observed, UnitState
from inferfleet.release.release import Release, Unit


@dataclass(frozen=True)
class Goal:
    """What a run wants. start: also start what is stopped. services: only these (None: all).
    evict: services that are not wanted may be stopped where memory is short."""

    start: bool = True
    services: frozenset[str] | None = None
    restart: bool = False
    evict: bool = False

    def wants(self, service: str) -> bool:
        return self.services is None or service in self.services


@dataclass(frozen=True)
class Step:
    """One difference. action: create, update, delete, link, unlink, fetch, start, replace, remove,
    evict, recover; target: a path, service or model; reason: why, in a few words."""

    action: str
    target: str
    reason: str


def file_steps(release: Release, observed: Observed) -> list[Step]:
    """What differs in the files of the release and of the generation in force."""
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
    return [] if all(_loose(step, release, observed) for step in steps) else steps


def _loose(step: Step, release: Release, observed: Observed) -> bool:
    """Whether a file only differs because another checkout has other paths."""
    file = release.files.get(step.target)
    state = observed.units.get(file.loose) if file else None
    return step.action == "update" and not step.reason and state is not None and state.up


def link_steps(release: Release, observed: Observed) -> list[Step]:
    """Links to make, and links into our generations that the release has not."""
    steps = []
    known = observed.manifest.links if observed.manifest else {}
    inside = f"{release.root}/current/"
    for path, target in sorted(release.links.items()):
        found = observed.links.get(path)
        if found is None and path in known and _at_boot_only(path, release, observed):
            continue
        if found != inside + target:
            steps.append(Step("link", path, f"-> {inside}{target}"))
    ours = {path for path, target in observed.links.items() if target.startswith(inside)}
    steps += [Step("unlink", path, "") for path in sorted(ours - release.links.keys())]
    return steps


def _at_boot_only(path: str, release: Release, observed: Observed) -> bool:
    """A link that starts a unit at boot goes when it is stopped and comes when it is started."""
    if ".wants/" not in path:
        return False
    name = path.rpartition("/")[2].removesuffix(".service")
    for unit in release.units.values():
        if unit.name == name:
            found = observed.units.get(unit.service)
            return found is None or not found.up
    return False


def left_over(release: Release, observed: Observed) -> list[tuple[int, Unit]]:
    """Units that interrupted runs may have left running, each with a generation that knows it.

    The generation in force has no such unit, so nothing there tells of its state.
    """
    if observed.journal is None or observed.current == observed.journal.source:
        return []
    known = observed.manifest.units if observed.manifest else {}
    found: dict[tuple[str, str], tuple[int, Unit]] = {}
    for number, record in sorted(observed.left.items(), reverse=True):
        for service, unit in record.units.items():
            stays = service in known and not moved(known[service], unit)
            wanted = release.units.get(service)
            seen = service in observed.units and wanted is not None and not moved(wanted, unit)
            if not stays and not seen:
                found.setdefault((unit.runtime, unit.name), (number, unit))
    return list(found.values())


def left_steps(left: Sequence[tuple[int, Unit]]) -> list[Step]:
    """What is removed because an interrupted run may have left it."""
    return [
        Step("remove", unit.service, f"an interrupted run may have left {unit.runtime} {unit.name}")
        for _, unit in left
    ]


def unit_steps(
    release: Release,
    observed: Observed,
    goal: Goal,
    reasons: Mapping[str, str],
    outdated: Mapping[str, str],
) -> list[Step]:
    """What to remove, replace and start, in this order of services.

    reasons: why a service's configuration differs; outdated: services to replace because of their
    models, and why.
    """
    steps = []
    old = observed.manifest.units if observed.manifest else {}
    # Whatever was asked for: the new generation does not know it, so nobody would remove it later.
    for service in sorted((observed.units.keys() & old.keys()) - release.units.keys()):
        steps.append(Step("remove", service, "is not in the machine file any more"))
    for service, unit in release.units.items():
        if not goal.wants(service):
            continue
        reason = reasons.get(service, "its configuration changed")
        step = _unit_step(unit, observed, goal, reason, outdated.get(service, ""))
        if step and service in old and moved(old[service], unit) and service in observed.units:
            was = old[service]
            why = f"moves from {was.runtime} {was.name} to {unit.runtime} {unit.name}"
            steps.append(Step("remove", service, why))
            step = Step("start", service, why)
        if step:
            steps.append(step)
    return steps


def moved(old: Unit, new: Unit) -> bool:
    """Whether the service changes what keeps it running, or its name there."""
    return (old.runtime, old.name) != (new.runtime, new.name)


def _unit_step(
    unit: Unit, observed: Observed, goal: Goal, reason: str, outdated: str
) -> Step | None:
    found = observed.units.get(unit.service)
    before = observed.manifest.units.get(unit.service) if observed.manifest else None
    chosen = goal.start and (unit.autostart or goal.services is not None)
    if found is not None and found.up:
        if observed.started.get(unit.service) != unit.digest or (before and moved(before, unit)):
            return Step("replace", unit.service, reason)
        if outdated or goal.restart:
            return Step("replace", unit.service, outdated or "was asked to restart")
        if found.state == "restarting" and chosen:
            return Step("replace", unit.service, f"does not stay up: {found.detail}")
        return None
    if not chosen:
        return None
    if found is None:
        return Step("start", unit.service, "is not there" if before else "is new")
    return Step("start", unit.service, state_words(found))


def state_words(found: UnitState) -> str:
    """'is failed: exit 1'."""
    return f"is {found.state}" + (f": {found.detail}" if found.detail else "")
