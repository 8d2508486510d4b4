"""Who holds a machine's memory: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Holder:
    """One owner of memory, in bytes. service: one of ours, "" for anyone else.

    host: what cannot be taken from its processes without ending them (no page cache). gpus: by
    index; only what the driver tells.
    """

    label: str
    service: str = ""
    host: int = 0
    gpus: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Card:
    """One GPU. total and free in bytes, None where it shares the machine's memory.

    users: who computes on it by itself, not through MPS.
    """

    index: int
    uuid: str
    total: int | None
    free: int | None
    mode: str = "default"
    users: tuple[str, ...] = ()


@dataclass(frozen=True)
class Container:
    """A container that is there. cpus: which it is pinned to, "" for none or where not asked."""

    name: str
    image: str
    running: bool
    project: str = ""
    service: str = ""
    mounts: tuple[str, ...] = ()
    cpus: str = ""


@dataclass(frozen=True)
class ModelFile:
    """A file of a model on the machine: bytes, and seconds since 1970 of its last change."""

    path: str
    size: int
    time: int


@dataclass(frozen=True)
class Held:
    """One machine's memory now, in bytes, and who has it.

    files: of each model that was asked for, by key. note: why the GPUs could not be asked.
    """

    total: int
    available: int
    holders: tuple[Holder, ...] = ()
    cards: tuple[Card, ...] = ()
    containers: tuple[Container, ...] = ()
    files: Mapping[str, tuple[ModelFile, ...]] = field(default_factory=dict)
    note: str = ""

    def of(self, service: str) -> Holder:
        """What a service of ours holds; nothing when it does not run."""
        for holder in self.holders:
            if holder.service == service:
                return holder
        return Holder(service, service)

    @property
    def foreign(self) -> tuple[Holder, ...]:
        """Everyone else, the largest first."""
        others = [holder for holder in self.holders if not holder.service]
        return tuple(
            sorted(others, key=lambda one: (-one.host - sum(one.gpus.values()), one.label))
        )
