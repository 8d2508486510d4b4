"""Collects what `capacity` reports of one machine: from its files, and from itself when asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from inferfleet.capacity.admission.admit import ask, local_facts, service_claim
from inferfleet.capacity.admission.situation import Situation
from inferfleet.capacity.engines.claim import demand_claim
from inferfleet.capacity.facts import Known, else_declared, from_source
from inferfleet.capacity.machine import file_memory
from inferfleet.capacity.report import Report, file_held, make_report
from inferfleet.capacity.shape.shape import Shape
from inferfleet.capacity.term import Claim
from inferfleet.errors import FleetError
from inferfleet.models.need import ModelNeed
from inferfleet.models.sources.source import source_text
from inferfleet.operations.asked import Asked, make_asked
from inferfleet.secrets import Secret, resolve

if TYPE_CHECKING:
    from inferfleet.capacity.held import Held
    from inferfleet.run.run import Run
    from inferfleet.run.session import Session

TOKEN = "HF_TOKEN"


def survey(run: Run, name: str, live: bool, asked: Asked | None = None) -> Report:
    """One machine's report. live: ask the machine; this machine is asked in any case."""
    brief = run.brief(name)
    hardware = dict(brief.budget["hardware"])
    demands = dict(brief.budget["services"])
    needs = {need.service: need for need in brief.draft.release.models}
    chosen = run.services[name]
    names = [s for s in brief.draft.release.units if chosen is None or s in chosen]
    together = [s for s in names if chosen is not None or demands[s]["autostart"]]
    if asked:
        demand, need = make_asked(run, name, asked, hardware)
        names = together = [need.service]
        demands[need.service], needs[need.service] = demand, need
    talk = run.session(name, lenient=True) if live or brief.local else None
    if talk:
        held, running = _look(talk, names, demands, needs)
        source = "as the machine says now"
    else:
        held, running = file_held(hardware), frozenset()
        source = f"as inventory/hardware/{hardware['name']}.yaml says"
        if not hardware["name"]:
            source = "no hardware file says what it has; --live asks it"
    secrets = _token(brief.origins)
    known: dict[str, Known] = {}
    claims: dict[str, Claim] = {}
    shapes: dict[str, Shape | None] = {}

    def reclaim(one: Situation, service: str) -> Claim:
        if talk:
            return service_claim(one, service, shapes.get(service))
        demand = one.demands[service]
        memory = file_memory(hardware, demand["gpus"])
        return demand_claim(service, demand, shapes.get(service), memory)

    for service in dict.fromkeys([*names, *sorted(running)]):
        if service in needs:
            known[service] = _facts(talk, needs[service], held, secrets, service in running)
        shapes[service] = known[service].shape if service in known else None
        situation = Situation(demands, hardware, dict(claims), held, names, running)
        claims[service] = reclaim(situation, service)
    situation = Situation(demands, hardware, claims, held, names, running)
    models = {service: source_text(need.source) for service, need in needs.items()}
    return make_report(name, source, situation, known, models, together, reclaim)


def _look(
    talk: Session,
    names: Iterable[str],
    demands: Mapping[str, Mapping[str, Any]],
    needs: Mapping[str, ModelNeed],
) -> tuple[Held, frozenset[str]]:
    """What the machine says of its memory, and which of our services are up."""
    units = talk.release.units
    running = {s for s, state in talk.observe().units.items() if state.up and s in units}
    return ask(talk, [*names, *sorted(running)], demands, needs), frozenset(running)


def _facts(
    talk: Session | None,
    need: ModelNeed,
    held: Held,
    secrets: Mapping[str, Secret],
    up: bool,
) -> Known:
    return else_declared(need, _read_facts(talk, need, held, secrets, up))


def _read_facts(
    talk: Session | None,
    need: ModelNeed,
    held: Held,
    secrets: Mapping[str, Secret],
    up: bool,
) -> Known:
    near = local_facts(talk, need, held, missing=False, up=up) if talk else None
    if near is not None:
        return near
    if talk and need.source.scheme == "pypi":
        return Known(None, why="it is not on the machine yet, and packed in a wheel until then")
    return from_source(need, secrets)


def _token(origins: Mapping[str, Any]) -> Mapping[str, Secret]:
    """The hub's token, if the machine has one that can be had now; no other secret is needed."""
    found: dict[str, Secret] = {}
    if TOKEN in origins:
        with suppress(FleetError):
            found = resolve(origins, [TOKEN])
    return found
