"""What others have that services to be started need, and who they are; pure."""

from __future__ import annotations

from collections.abc import Iterator

from inferfleet.amounts import cpuset_cpus
from inferfleet.capacity.admission.situation import Situation
from inferfleet.capacity.held import Container
from inferfleet.capacity.machine import cards_of
from inferfleet.capacity.words import series
from inferfleet.errors import FleetError
from inferfleet.load.conflicts import ranges
from inferfleet.release.release import Release


def taken(
    situation: Situation, release: Release, stopped: frozenset[str] = frozenset()
) -> tuple[list[FleetError], list[str]]:
    """(what refuses the start, what its reader should know). stopped: ours that make room."""
    others = [one for one in situation.held.containers if one.project != release.project]
    problems = [*_names(situation, release, others), *_gpus(situation, stopped)]
    return problems, [*_volumes(situation, others), *_cpus(situation, others)]


def _names(situation: Situation, release: Release, others: list[Container]) -> Iterator[FleetError]:
    for service in situation.acting:
        unit = release.units[service]
        for one in others:
            if unit.runtime == "compose" and one.name == unit.name:
                owner = f"compose project {one.project}" if one.project else "nobody's project"
                state = "running" if one.running else "stopped"
                yield FleetError(
                    f"the container name {one.name} of service {service} is taken by a {state} "
                    f"container of {owner} ({one.image})",
                    hint=f"rename it (`docker rename {one.name} NEW`), or rename the service",
                )


def _volumes(situation: Situation, others: list[Container]) -> Iterator[str]:
    """Who shares a volume may well be meant to, such as what backs it up."""
    for service in situation.acting:
        for volume in situation.demands.get(service, {}).get("volumes", ()):
            for one in others:
                if one.running and volume in one.mounts:
                    yield f"the volume {volume} of service {service} is in use by {_called(one)}"


def _gpus(situation: Situation, stopped: frozenset[str]) -> Iterator[FleetError]:
    going = {*situation.acting, *situation.leaving, *stopped}
    for service in situation.acting:
        gpus = situation.demands.get(service, {}).get("gpus", "none")
        for card in cards_of(gpus, situation.held.cards):
            users = [user for user in card.users if user not in going]
            if card.mode == "prohibited":
                yield FleetError(
                    f"GPU {card.index} of service {service} lets no process use it (prohibited)",
                    hint="hostprep: {gpu: {compute-mode: default}}, or `nvidia-smi -c 0`",
                )
            elif card.mode.startswith("exclusive") and users:
                yield FleetError(
                    f"GPU {card.index} of service {service} lets one process use it "
                    f"({card.mode}), and {series(users)} does",
                    hint="stop it, use hostprep: {gpu: {compute-mode: default}}, or other gpus",
                )


def _cpus(situation: Situation, others: list[Container]) -> Iterator[str]:
    for service in situation.acting:
        wanted = situation.demands.get(service, {}).get("cpuset")
        own = cpuset_cpus(wanted) if wanted else frozenset()
        for one in others:
            shared = own & _pinned(one)
            if one.running and shared:
                yield f"{service} and {_called(one)} are both pinned to CPU {ranges(shared)}"


def _pinned(one: Container) -> frozenset[int]:
    try:
        return cpuset_cpus(one.cpus) if one.cpus else frozenset()
    except ValueError:
        return frozenset()


def _called(one: Container) -> str:
    return f"container {one.name} ({one.image})"
