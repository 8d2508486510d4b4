"""Asks a machine whether what a plan starts fits beside what runs there, and says so in the plan.

Only plans that start something get here, so that nothing of it costs a run without changes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from inferfleet.capacity.admission import decide
from inferfleet.capacity.asking import held_script, parse_held
from inferfleet.capacity.claim import claim
from inferfleet.capacity.facts import Known, from_parts, from_source
from inferfleet.capacity.held import Held
from inferfleet.capacity.machine import live_memory
from inferfleet.capacity.owners import taken
from inferfleet.capacity.parts import machine_parts
from inferfleet.capacity.shown import from_ollama
from inferfleet.capacity.situation import Situation
from inferfleet.capacity.term import Claim
from inferfleet.errors import FleetError
from inferfleet.models.need import ModelNeed
from inferfleet.steps import Goal, Step

if TYPE_CHECKING:
    from inferfleet.observed import Observed
    from inferfleet.plan import Plan
    from inferfleet.session import Session

HELD_SECONDS = 60.0
# How long a start waits to learn from a hub what its model takes.
SOURCE_SECONDS = 15.0
KIB = 1024


def admit(talk: Session, observed: Observed, plan: Plan, goal: Goal) -> Plan:
    """The plan, with what refuses it, or with the services that are stopped for it."""
    release = talk.release
    acting = [s.target for s in plan.steps if s.action in {"start", "replace"}]
    running = frozenset(
        service
        for service, state in observed.units.items()
        if state.up and service in release.units
    )
    leaving = frozenset(plan.targets("remove"))
    demands: Mapping[str, Mapping[str, Any]] = talk.budget.get("services", {})
    needs = {need.service: need for need in release.models}
    concerned = [*acting, *sorted(running - leaving - set(acting))]
    try:
        held = ask(talk, concerned, demands, needs)
    except FleetError as error:
        return replace(plan, notes=(*plan.notes, f"memory could not be looked at: {error.what}"))
    missing = {need.service for need in plan.fetch}
    claims = {
        service: service_claim(
            talk, service, held, needs.get(service), service in missing, service in running
        )
        for service in concerned
        if service in demands
    }
    situation = Situation(
        demands=demands,
        hardware=talk.budget.get("hardware", {}),
        claims=claims,
        held=held,
        acting=acting,
        running=running,
        leaving=leaving,
        wanted=frozenset(service for service in running if _wanted(talk, goal, service)),
    )
    verdict = decide(situation, goal.evict)
    problems, notes = taken(situation, release, frozenset(verdict.evict))
    steps = [Step("evict", service, why) for service, why in verdict.evict.items()]
    at = next(i for i, s in enumerate(plan.steps) if s.action in {"start", "replace"})
    return replace(
        plan,
        steps=(*plan.steps[:at], *steps, *plan.steps[at:]),
        problems=(*plan.problems, *verdict.problems, *problems),
        notes=(*plan.notes, *notes),
        # After an interrupted run everything that is up is waited for, but not who is stopped.
        wait=tuple(service for service in plan.wait if service not in verdict.evict),
        room=-(-verdict.room // KIB),
    )


def ask(
    talk: Session,
    services: Iterable[str],
    demands: Mapping[str, Mapping[str, Any]],
    needs: Mapping[str, ModelNeed],
) -> Held:
    """What the machine says of its memory, and of the files of these services' models."""
    chosen = [service for service in services if service in demands]
    models = {
        needs[service].key: needs[service].path
        for service in chosen
        if service in needs and needs[service].path.startswith("/")
    }
    script = held_script(
        talk.release.root,
        talk.release.project,
        models,
        gpus=any(demands[service]["gpus"] != "none" for service in chosen),
        pinned=any(demands[service]["cpuset"] for service in chosen),
    )
    answer = talk.host.run(script, sudo=talk.sudo, timeout=HELD_SECONDS)
    return parse_held(answer.out, talk.release.project, talk.release.units)


def service_claim(
    talk: Session, service: str, held: Held, need: ModelNeed | None, missing: bool, up: bool
) -> Claim:
    """What a service takes of this machine. missing: its model is not whole there. up: it runs."""
    demand = talk.budget["services"][service]
    known = model_facts(talk, need, held, missing, up) if need else Known(None)
    memory = live_memory(talk.budget["hardware"], demand["gpus"], held)
    return claim(service, demand["kind"], demand["options"], known.shape, memory, demand["env"])


def model_facts(
    talk: Session, need: ModelNeed, held: Held, missing: bool, up: bool = False
) -> Known:
    """From the files on the machine or the engine that runs there, else from the source."""
    files = held.files.get(need.key, ())
    unit = talk.release.units.get(need.service)
    if up and need.source.scheme == "ollama" and unit and unit.address:
        known = from_ollama(talk.host, need.source.name, unit.address[1])
        if known.shape is not None:
            return known
    if files and not missing:
        return from_parts(machine_parts(talk.host, talk.sudo, files))
    if need.source.scheme == "path":
        return Known(None, why=f"{need.path} is not there")
    found: list[Known] = []
    worker = threading.Thread(
        target=lambda: found.append(from_source(need, talk.secrets)), daemon=True
    )
    worker.start()
    worker.join(SOURCE_SECONDS)
    return found[0] if found else Known(None, why="its source has not answered yet")


def _wanted(talk: Session, goal: Goal, service: str) -> bool:
    """Whether the run itself wants a running service up."""
    unit = talk.release.units[service]
    return goal.wants(service) and (unit.autostart or goal.services is not None)
