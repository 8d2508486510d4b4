"""Asks a machine whether what a plan starts fits beside what runs there, and says so in the plan.

Only plans that start something get here, so that nothing of it costs a run without changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from inferfleet.capacity.admission.admission import decide, enough
from inferfleet.capacity.admission.asking import held_script, parse_held
from inferfleet.capacity.admission.owners import taken
from inferfleet.capacity.admission.remedy import remedies, words
from inferfleet.capacity.admission.shown import from_ollama
from inferfleet.capacity.admission.situation import LLAMAS, Situation
from inferfleet.capacity.engines.claim import demand_claim
from inferfleet.capacity.facts import Known, else_declared, from_parts
from inferfleet.capacity.held import Held
from inferfleet.capacity.lookups import Lookups
from inferfleet.capacity.machine import live_memory
from inferfleet.capacity.shape.parts import machine_parts
from inferfleet.capacity.shape.shape import Shape
from inferfleet.capacity.term import Claim
from inferfleet.errors import FleetError
from inferfleet.models.need import ModelNeed
from inferfleet.models.observe import in_order, parse_observed
from inferfleet.plan.steps import Goal, Step
from inferfleet.release.release import Unit

if TYPE_CHECKING:
    from inferfleet.observe.observed import Observed
    from inferfleet.plan.plan import Plan
    from inferfleet.run.session import Session

HELD_SECONDS = 60.0
# How long a start waits to learn from hubs what its models take.
SOURCE_SECONDS = 5.0
KIB = 1024


def admit(talk: Session, observed: Observed, plan: Plan, goal: Goal) -> Plan:
    """The plan, with what refuses it, or with the services that are stopped for it."""
    release = talk.release
    acting = [s.target for s in plan.steps if s.action in {"start", "replace"}]
    # What an interrupted run left of a service that moved is not what runs of it now.
    left = {service for _, service in plan.left}
    leaving = frozenset(plan.gone) | (left - release.units.keys())
    running = frozenset(
        service
        for service, state in observed.units.items()
        if state.up and (service in release.units or service in leaving)
    )
    demands: Mapping[str, Mapping[str, Any]] = talk.budget.get("services", {})
    needs = {need.service: need for need in release.models}
    concerned = [*acting, *sorted(running - leaving - set(acting))]
    try:
        before = observed.manifest.units if observed.manifest else {}
        held = ask(talk, concerned, demands, needs, before)
    except FleetError as error:
        return replace(plan, notes=(*plan.notes, f"memory could not be looked at: {error.what}"))
    there = parse_observed(observed.model_lines)
    missing = frozenset(n.service for n in plan.fetch if not in_order(n, there.get(n.key)))
    chosen = [needs[name] for name in concerned if name in demands and name in needs]
    shapes = model_shapes(talk, held, chosen, missing, running)
    situation = Situation(
        demands=demands,
        hardware=talk.budget.get("hardware", {}),
        claims={},
        held=held,
        acting=acting,
        running=running,
        leaving=leaving,
        wanted=frozenset(service for service in running if _wanted(talk, goal, service)),
    )
    situation = claimed(situation, shapes)
    verdict = decide(situation, goal.evict)
    if verdict.problems and situation.may_stop():
        # What fits itself into the memory that is free takes more once others are stopped.
        wider = claimed(situation, shapes, situation.may_stop())
        if enough(wider):
            situation, verdict = wider, decide(wider, goal.evict)
    if verdict.problems:
        verdict = decide(situation, goal.evict, advice(situation, shapes))
    problems, notes = taken(situation, release, frozenset(verdict.evict))
    steps = [Step("evict", service, why) for service, why in verdict.evict.items()]
    at = next(i for i, s in enumerate(plan.steps) if s.action in {"start", "replace"})
    return replace(
        plan,
        steps=(*plan.steps[:at], *steps, *plan.steps[at:]),
        problems=(*plan.problems, *verdict.problems, *problems),
        notes=(*plan.notes, *_unseen(situation), *verdict.notes, *notes),
        # After an interrupted run everything that is up is waited for, but not who is stopped.
        wait=tuple(service for service in plan.wait if service not in verdict.evict),
        room=-(-verdict.room // KIB),
    )


def ask(
    talk: Session,
    services: Iterable[str],
    demands: Mapping[str, Mapping[str, Any]],
    needs: Mapping[str, ModelNeed],
    before: Mapping[str, Unit] | None = None,
) -> Held:
    """What the machine says of its memory, and of the files of these services' models.

    before: units of the generation in force, of which some may have left the release.
    """
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
    return parse_held(answer.out, talk.release.project, {**(before or {}), **talk.release.units})


def model_shapes(
    talk: Session,
    held: Held,
    needs: Iterable[ModelNeed],
    missing: frozenset[str],
    running: frozenset[str],
) -> dict[str, Shape]:
    """The shapes of these models by service, of those that can be known in time.

    missing: whose model is not whole on the machine.
    """
    known: dict[str, Known] = {}
    far, chosen = [], list(needs)
    for need in chosen:
        service = need.service
        near = local_facts(talk, need, held, service in missing, service in running)
        if near is None:
            far.append(need)
        else:
            known[service] = near
    lookups = Lookups(far, talk.secrets, SOURCE_SECONDS)
    known |= {need.service: lookups.known(need) for need in far}
    told = {need.service: else_declared(need, known[need.service]) for need in chosen}
    return {service: one.shape for service, one in told.items() if one.shape}


def local_facts(
    talk: Session, need: ModelNeed, held: Held, missing: bool, up: bool
) -> Known | None:
    """From the files on the machine or the engine that runs there; None: only its source knows."""
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
    return None


def claimed(
    situation: Situation, shapes: Mapping[str, Shape], stopped: Iterable[str] = ()
) -> Situation:
    """The situation with what its services take, once these are stopped.

    What llama.cpp takes goes by what the others leave, and what is started by what stays.
    """
    names = [name for name in (*situation.staying, *situation.acting) if name in situation.demands]
    names.sort(key=lambda name: situation.demands[name]["engine"] in LLAMAS)
    found = replace(situation, claims={})
    for name in names:
        one = service_claim(found, name, shapes.get(name), stopped)
        found = replace(found, claims={**found.claims, name: one})
    return found


def advice(situation: Situation, shapes: Mapping[str, Shape]) -> dict[str, str]:
    """By service to be started, with which of its settings all of them would fit."""

    def again(other: Situation, service: str) -> Claim:
        return service_claim(other, service, shapes.get(service))

    found = {name: words(remedies(situation, name, again)) for name in situation.acting}
    return {name: said for name, said in found.items() if said}


def service_claim(
    situation: Situation, service: str, shape: Shape | None, stopped: Iterable[str] = ()
) -> Claim:
    """What a service takes of this machine beside those whose claims are known."""
    demand = situation.demands[service]
    freed = situation.freed(service, stopped)
    memory = live_memory(situation.hardware, demand["gpus"], situation.held, freed)
    if demand["gpus"] != "none" and not memory.device and not demand.get("estimate"):
        return Claim(service, "device", None)
    return demand_claim(service, demand, shape, memory)


def _unseen(situation: Situation) -> list[str]:
    """Services to be started on GPUs of which nothing is known."""
    found = []
    for service in situation.acting:
        gpus = situation.demands.get(service, {}).get("gpus", "none")
        if gpus != "none" and not live_memory(situation.hardware, gpus, situation.held).device:
            asked = gpus if isinstance(gpus, str) else ", ".join(gpus)
            why = situation.held.note or "the driver lists no such GPU"
            found.append(f"whether {service} fits is not known: gpus {asked}: {why}")
    return found


def _wanted(talk: Session, goal: Goal, service: str) -> bool:
    """Whether the run itself wants a running service up."""
    unit = talk.release.units.get(service)
    if unit is None:
        return False
    return goal.wants(service) and (unit.autostart or goal.services is not None)
