"""What no single file can show: names that must exist, values that must fit each other. Pure.

The fleet may hold UNREADABLE where a file is wrong: each check stands alone, so that one that
needs such a value is left out and the others are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from inferfleet.errors import USAGE, FleetError
from inferfleet.gateway.check import check_gateways
from inferfleet.hostprep.check import check_ground, check_profiles
from inferfleet.hostprep.merge import profile_settings
from inferfleet.load.conflicts import conflicts
from inferfleet.load.service import check_service
from inferfleet.models.check import check_models, check_service_models
from inferfleet.names import name_hint
from inferfleet.schema.fleet import Fleet
from inferfleet.schema.machine import Machine, Service
from inferfleet.schema.nodes import dotted
from inferfleet.schema.profile import Profile
from inferfleet.schema.unreadable import known, readable
from inferfleet.schema.view import Locate, View


def check(fleet: Fleet, locate: Locate) -> list[FleetError]:
    """Every contradiction in fleet."""
    errors: list[FleetError] = []
    for name, profile in fleet.profiles.items():
        errors.extend(readable(check_profiles(replace(fleet, profiles={name: profile}), locate)))
    errors.extend(check_models(fleet, locate))
    for name in fleet.kinds:
        errors.extend(readable(_kind(fleet, name, locate)))
    # A machine that names a profile with mistakes is checked as if the profile set nothing.
    sound = {name: one for name, one in fleet.profiles.items() if known(_sets, one)}
    profiles, fleet = fleet.profiles, replace(fleet, profiles=sound)
    for name, machine in fleet.machines.items():
        view = View(name, machine, fleet, locate)
        for checked in (_ssh, _home, _hardware, _jump, check_service_models, check_gateways):
            errors.extend(readable(checked(view)))
        errors.extend(conflicts(view))
        errors.extend(readable(check_ground(view, profiles)))
        for service_name, service in (known(_services, view) or {}).items():
            errors.extend(readable(check_service(view, service_name, service)))
    return errors


def _services(view: View) -> dict[str, Service]:
    return dict(view.machine.services)


def _said(machine: Machine, key: str) -> bool:
    return bool(getattr(machine, key))


def _sets(profile: Profile) -> bool:
    return all(map(bool, profile_settings("", profile)))


def _kind(fleet: Fleet, name: str, locate: Locate) -> Iterator[FleetError]:
    kind = fleet.kinds[name]
    port = kind.metrics.port if kind.metrics else None
    ports = kind.compose.ports if kind.compose else {}
    if port is not None and port not in ports:
        path = ("metrics", "port")
        what = f"{dotted(path)}: the container has no port {port}"
        hint = name_hint(port, ports, "ports of compose")
        yield FleetError(what, hint, locate("service", name, *path), USAGE)


def _ssh(view: View) -> Iterator[FleetError]:
    machine = view.machine
    if machine.address is not None:
        return
    for key in ("user", "port", "jump"):
        if known(_said, machine, key):
            what = "is for machines reached over SSH, and this one has no address"
            yield view.error((key,), what, f"add address, or remove {key}", key=True)


def _home(view: View) -> Iterator[FleetError]:
    if view.machine.address is None:
        return
    for key in ("root", "models"):
        if (getattr(view.machine, key) or "").startswith("~"):
            hint = "write it in full, such as /opt/inferbase"
            yield view.error((key,), "~/ has a meaning only on this machine itself", hint)


def _hardware(view: View) -> Iterator[FleetError]:
    name, hardware = view.machine.hardware, view.fleet.hardware
    if name is not None and name not in hardware:
        hint = name_hint(name, hardware, "hardware")
        yield view.error(("hardware",), f"there is no hardware {name}", hint)


def _jump(view: View) -> Iterator[FleetError]:
    route = [view.name]
    jump = view.machine.jump
    while jump is not None and jump in view.fleet.machines:
        route.append(jump)
        if jump in route[:-1]:
            if jump == view.name:  # each machine of the circle reports it, at its own key
                yield view.error(("jump",), f"leads back to itself: {' -> '.join(route)}")
            return
        jump = view.fleet.machines[jump].jump
