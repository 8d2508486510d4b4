"""What differs in the models of services: what is fetched, and who reads other files; pure."""

from __future__ import annotations

from collections.abc import Mapping

from inferfleet.models.need import ModelNeed
from inferfleet.models.observe import ModelState, in_order
from inferfleet.models.watched import in_place, loads_texts, watched
from inferfleet.observe.observed import Observed
from inferfleet.plan.steps import Goal
from inferfleet.release.release import Release

FILES = "its model's files changed since it started"
TEXT = "a text in its model's alias changed"
OTHER = "its model is another one than when it started"
CHECKSUMS = "other checksums are asked of its model"

States = Mapping[str, ModelState]


def outdated(release: Release, observed: Observed, states: States) -> dict[str, str]:
    """Services that run with another model than they would be started with now, and why.

    Of a service that was started by an earlier version, which noted nothing, only what will be
    changed is known.
    """
    found = {}
    for need in release.models:
        unit = observed.units.get(need.service)
        if unit is not None and unit.up:
            reason = _reason(need, observed, states.get(need.key))
            if reason:
                found[need.service] = reason
    return found


def _reason(need: ModelNeed, observed: Observed, state: ModelState | None) -> str:
    noted = observed.loaded.get(need.service)
    paths = watched(need)
    if noted is None:
        if _applied(need, observed) != paths:
            return OTHER
    elif set(noted) != set(paths):
        return TEXT if need.directory in noted else OTHER
    if state is not None and _unfit(need, state):
        return CHECKSUMS
    if noted is None:
        broken = state is not None and state.present and not state.alias_ok
        return TEXT if broken and loads_texts(need) else ""
    for path, now in in_place(need, state).items():
        if now and noted[path] and noted[path] != now:
            return FILES if path == need.directory else TEXT
    return ""


def renamed(release: Release, observed: Observed, services: set[str]) -> bool:
    """Whether the record of the generation in force, by which these services would be started,
    names other paths of their models."""
    return any(
        need.service in services and _applied(need, observed) != watched(need)
        for need in release.models
    )


def _applied(need: ModelNeed, observed: Observed) -> tuple[str, ...]:
    known = observed.manifest.models if observed.manifest else {}
    return known.get(need.service, watched(need))


def to_fetch(
    release: Release, observed: Observed, goal: Goal, starting: set[str], states: States
) -> list[tuple[ModelNeed, str]]:
    """What is brought before services start, and what running ones ask anew; with the reason."""
    found = []
    for need in release.models:
        scheme = need.source.scheme
        if scheme == "ollama" or (scheme == "path" and not need.aliases):
            continue
        state, unit = states.get(need.key), observed.units.get(need.service)
        runs = goal.wants(need.service) and unit is not None and unit.up
        if need.service not in starting and not (runs and state is not None and state.present):
            continue
        if scheme != "path" and (state is None or not state.present):
            why = ""
        elif state is not None and _unfit(need, state):
            why = ": other checksums are asked of it"
        elif state is not None and need.aliases and not state.alias_ok:
            why = ": its alias differs"
        else:
            continue
        found.append((need, f"for {need.service}{why}"))
    return found


def _unfit(need: ModelNeed, state: ModelState) -> bool:
    return state.present and not in_order(need, state)
