"""What must be mended before a plan can be carried out; pure."""

from __future__ import annotations

from collections.abc import Sequence

from inferfleet.errors import LOCKED, FleetError
from inferfleet.observe.observed import Observed
from inferfleet.plan.steps import Step, left_over
from inferfleet.release.release import Release

ANY = {"0.0.0.0", "::"}


class PortTaken(FleetError):
    """A port that a service needs is in use; the caller may find out by whom."""

    def __init__(self, service: str, port: int, ip: str, culprit: str = "") -> None:
        by = f" by {culprit}" if culprit else ""
        super().__init__(
            f"port {port} of service {service} is already taken on {ip}{by}",
            hint="stop it, or give the service another `port`",
        )
        self.service, self.port, self.ip = service, port, ip


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


def problems(
    release: Release, observed: Observed, steps: Sequence[Step], forced: bool = False
) -> tuple[FleetError, ...]:
    """All of them; of a machine that another run is changing, only that: the rest is half a state.

    forced: damaged records are overruled by an explicit choice of the user.
    """
    found = lock_problems(release.machine, observed)
    if found:
        return tuple(found)
    if not forced:
        found.extend(observed.damage)
    if observed.facts.get("symlink"):
        found.append(
            FleetError(
                f"{observed.facts['symlink']} is a symbolic link",
                hint="set `root` to the real directory",
            )
        )
    if observed.foreign_current is not None:
        what = (
            "is not a link" if observed.foreign_current == "!" else "does not point to a generation"
        )
        found.append(
            FleetError(
                f"{release.root}/current {what}", hint="move it away; inferbase makes its own"
            )
        )
    for path in sorted(release.links):
        if observed.links.get(path) == "!":
            found.append(
                FleetError(f"{path} exists and is not a link of inferbase", hint="move it away")
            )
    if "Read-only" in observed.facts.get("unwritable", ""):
        found.append(
            FleetError(
                f"{observed.facts.get('near')} is on a read-only file system",
                hint="mount it for writing; Linux takes writing away when a disk fails: see dmesg",
            )
        )
    elif observed.facts.get("writable") == "no":
        found.append(
            FleetError(
                f"{observed.facts.get('user')} may not write to {observed.facts.get('near')}",
                hint=f"give {release.root} to that user, or set `sudo: true` in the machine file",
            )
        )
    return (*found, *_port_problems(release, observed, steps))


def needed_addresses(
    release: Release, observed: Observed, steps: Sequence[Step]
) -> dict[str, tuple[str, int]]:
    """Where services will listen that do not listen there already, by service."""
    old = observed.manifest.units if observed.manifest else {}
    # Without a manifest our own service is known by its name alone.
    own = {**release.units, **old}
    freed = {
        own[service].address
        for service, state in observed.units.items()
        if state.up and service in own
    }
    freed |= {unit.address for _, unit in left_over(release, observed)}
    acting = [step.target for step in steps if step.action in {"start", "replace"}]
    addresses = {service: release.units[service].address for service in acting}
    return {
        service: address
        for service, address in addresses.items()
        if address is not None and address not in freed
    }


def _port_problems(release: Release, observed: Observed, steps: Sequence[Step]) -> list[FleetError]:
    """Ports that a unit will need and that something else listens on."""
    found: list[FleetError] = []
    for service, (wanted, number) in needed_addresses(release, observed, steps).items():
        taken = [
            ip
            for ip, port in observed.listeners
            if port == number and (ip == wanted or ip in ANY or wanted in ANY)
        ]
        if taken:
            found.append(PortTaken(service, number, sorted(taken)[0]))
    return found
