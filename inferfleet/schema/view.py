"""One machine of a fleet with everything that a check of it may ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from inferfleet.errors import USAGE, FleetError, Where
from inferfleet.schema.fleet import Fleet
from inferfleet.schema.hardware import Hardware
from inferfleet.schema.kind import Kind
from inferfleet.schema.machine import Machine, Service
from inferfleet.schema.nodes import dotted


class Locate(Protocol):
    """(file kind, name, *path) -> the place of that value, or of its key."""

    def __call__(self, kind: str, name: str, *path: str | int, key: bool = False) -> Where: ...


@dataclass(frozen=True)
class View:
    """One machine with everything that a check of it may ask."""

    name: str
    machine: Machine
    fleet: Fleet
    locate: Locate

    def error(
        self, path: tuple[str | int, ...], what: str, hint: str = "", *, key: bool = False
    ) -> FleetError:
        where = self.locate("machine", self.name, *path, key=key)
        return FleetError(f"{dotted(path)}: {what}", hint, where, USAGE)

    @property
    def hardware(self) -> Hardware | None:
        return self.fleet.hardware.get(self.machine.hardware or "")

    def kind(self, service: Service) -> Kind | None:
        return self.fleet.kinds.get(service.kind)

    def runtime(self, service: Service) -> str | None:
        """The runtime a service gets; None when its kind is unknown and nobody names one."""
        kind = self.kind(service)
        first = kind.runtimes[0] if kind and kind.runtimes else None
        return service.runtime or self.machine.runtime or first

    def uses_gpu(self, service: Service) -> bool:
        """Whether a service gets GPUs: as it says, else if its kind can use those there are."""
        if service.gpus is not None:
            return service.gpus not in ("none", [])
        kind = self.kind(service)
        hardware = self.hardware
        return bool(kind and kind.gpu and hardware and hardware.gpu)
