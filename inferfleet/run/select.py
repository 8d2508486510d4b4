"""Names from the command line to machines and services; a name that is unknown stops everything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from inferfleet.errors import USAGE, FleetError, FleetErrors
from inferfleet.names import EVERY_MACHINE, nearest

DEFAULT_MACHINE = "local"


@dataclass(frozen=True)
class Listed:
    """What of a machine can be chosen by name: the groups it is in, its services in order."""

    groups: tuple[str, ...]
    services: tuple[str, ...]


def select_machines(
    listing: Mapping[str, Listed], hosts: Sequence[str], groups: Sequence[str]
) -> list[str]:
    """Machines in the order they were asked for, each once; [local] when nothing was.

    "all" stands for every machine; its machines and those of a group come in the order of their
    names. Raises FleetErrors (code USAGE) with every unknown name.
    """
    members: dict[str, list[str]] = {}
    for name, machine in sorted(listing.items()):
        for group in machine.groups:
            members.setdefault(group, []).append(name)
    asked = every(hosts, listing) if hosts or groups else [DEFAULT_MACHINE]
    _refuse_unknown("machine", asked, listing)
    _refuse_unknown("group", groups, members)
    chosen = asked + [name for group in groups for name in members[group]]
    return list(dict.fromkeys(chosen))


def every(hosts: Sequence[str], known: Iterable[str]) -> list[str]:
    """The names asked for, with those of all known machines in place of "all"."""
    found: list[str] = []
    for name in hosts:
        found += sorted(known) if name == EVERY_MACHINE else [name]
    return found


def select_services(machine: Listed, names: Sequence[str]) -> list[str]:
    """The named services of a machine in the machine's order; all of them when none is named.

    Raises FleetErrors (code USAGE) with every unknown name.
    """
    _refuse_unknown("service", names, machine.services)
    return [name for name in machine.services if not names or name in names]


def _refuse_unknown(noun: str, names: Iterable[str], known: Iterable[str]) -> None:
    there = sorted(known)
    errors: list[FleetError] = []
    for name in dict.fromkeys(names):
        if name not in there:
            found = nearest(name, there)
            guess = f"did you mean {found}? " if found else ""
            hint = f"{guess}{noun}s: {', '.join(there) or 'none'}"
            errors.append(FleetError(f"there is no {noun} {name}", hint, code=USAGE))
    if errors:
        raise FleetErrors(errors)
