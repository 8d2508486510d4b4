"""Services of one machine that cannot stand side by side: ports, CPUs, memory, GPUs. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import TypeVar

from inferfleet.amounts import cpuset_cpus
from inferfleet.errors import FleetError
from inferfleet.hostprep.check import compute_mode
from inferfleet.hostprep.merge import MACHINE_FILE
from inferfleet.schema.machine import Service
from inferfleet.schema.unreadable import known, readable
from inferfleet.schema.view import View

T = TypeVar("T")
LOOPBACK = "127.0.0.1"


def conflicts(view: View) -> Iterator[FleetError]:
    """Every pair of services that ask for the same port, CPU or GPU, and too much memory."""
    for checked in (_ports, _cpusets, _memory, _gpus):
        yield from readable(checked(view))


def _ports(view: View) -> Iterator[FleetError]:
    taken: dict[int, list[tuple[str, str]]] = {}
    for name, service in view.machine.services.items():
        for at, port, written, address in readable(_own_ports(view, service)):
            for other, other_address in taken.get(port, ()):
                if _meet(address, other_address):
                    what = f"{port} is also {'a' if other == name else 'the'} port of {other}"
                    path = ("services", name, *at)
                    yield view.error(path, what, "give one of them another port", key=not written)
                    break
            taken.setdefault(port, []).append((name, address))


def _own_ports(view: View, service: Service) -> Iterator[tuple[tuple[str, ...], int, bool, str]]:
    """(key, number, whether the machine file says it, address) of every port of a service."""
    address = service.bind or view.machine.bind or LOOPBACK
    if service.port is not None:
        yield ("port",), int(service.port), True, address
    kind = view.kind(service)
    if service.port is None and kind is not None and kind.default_port is not None:
        yield ("port",), int(kind.default_port), False, address
    if kind is None or kind.compose is None or view.runtime(service) != "compose":
        return
    for name, extra in kind.compose.ports.items():
        number = int(service.ports.get(name, extra.default))
        yield ("ports", name), number, name in service.ports, address


def _meet(one: str, two: str) -> bool:
    """Whether listening on both addresses clashes: equal, or one stands for all addresses."""
    return one == two or any(ipaddress.ip_address(address).is_unspecified for address in (one, two))


def _cpusets(view: View) -> Iterator[FleetError]:
    cpusets = _each(view, lambda service: cpuset_cpus(service.cpuset) if service.cpuset else None)
    pinned = [(name, cpus) for name, cpus in cpusets.items() if cpus]
    for (one, first), (two, second) in combinations(pinned, 2):
        if shared := first & second:
            what = f"{two} and {one} both pin CPU {ranges(shared)}"
            yield view.error(("services", two, "cpuset"), what, "pin them to different CPUs")


def ranges(cpus: frozenset[int]) -> str:
    """{0, 1, 2, 5} -> 0-2,5"""
    parts: list[list[int]] = []
    for cpu in sorted(cpus):
        if parts and cpu == parts[-1][-1] + 1:
            parts[-1][1:] = [cpu]
        else:
            parts.append([cpu])
    return ",".join("-".join(str(cpu) for cpu in part) for part in parts)


def _memory(view: View) -> Iterator[FleetError]:
    hardware = view.hardware
    if hardware is None or hardware.memory is None:
        return
    free = hardware.memory - (hardware.reserve or 0)
    limits = {
        name: service.memory
        for name, service in view.machine.services.items()
        if service.memory is not None and service.autostart
    }
    total = sum(limits.values())
    if total > free:
        names = ", ".join(f"{name} {_gib(size)}" for name, size in limits.items())
        last = list(limits)[-1]
        what = (
            f"the memory limits add up to {_gib(total)} ({names}), and {view.machine.hardware} "
            f"has {_gib(free)} ({_gib(hardware.memory)} less {_gib(hardware.reserve or 0)} reserve)"
        )
        hint = "lower a limit, or give one of them autostart: false"
        yield view.error(("services", last, "memory"), what, hint)


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.5g} GiB"


def _gpus(view: View) -> Iterator[FleetError]:
    mode = compute_mode(view)
    if mode is None or mode.value != "exclusive-process":
        return
    chosen = f"exclusive-process{'' if mode.origin == MACHINE_FILE else f' of {mode.origin}'}"
    users = _each(view, lambda service: service if view.uses_gpu(service) else None)
    for (one, first), (two, second) in combinations(users.items(), 2):
        if first and second and known(_same_gpu, first, second):
            what = f"{chosen} lets one process use a GPU, and {one} and {two} share one"
            hint = "use hostprep: {gpu: {compute-mode: default}}, or give them different gpus"
            yield view.error(("hostprep", "gpu", "compute-mode"), what, hint)


def _each(view: View, read: Callable[[Service], T | None]) -> dict[str, T | None]:
    """What read tells of each service; None where it cannot be read."""
    services = view.machine.services
    return {name: known(read, services[name]) for name in services}


def _same_gpu(first: Service, second: Service) -> bool:
    if isinstance(first.gpus, list) and isinstance(second.gpus, list):
        return bool(set(first.gpus) & set(second.gpus))
    return True
