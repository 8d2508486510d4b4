"""What services need of the ground under them, and what of it is missing when they start; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from inferfleet.errors import FleetError

if TYPE_CHECKING:
    from inferfleet.hostprep.setting import Ground
    from inferfleet.release.release import Release
    from inferfleet.schema.fleet import Fleet

TOOLKIT = (
    "install the NVIDIA Container Toolkit, run `nvidia-ctk runtime configure --runtime=docker`, "
    "and restart Docker"
)
DRIVER = "install NVIDIA's driver (`invoke hostprep.check` says which), or use `gpus: none`"


@dataclass(frozen=True)
class Footing:
    """What one service needs. locks: its engine is to lock its memory, and nothing but the
    user's own limit says how much it may. mounts: directories that must lie on disks of their
    own, because something of the service lies in them."""

    locks: bool = False
    mounts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Missing:
    """What details.sh said of the ground. gpu: "" or what is wrong with the driver. toolkit:
    containers can have GPUs. lock_limit: bytes that a process may lock, None for no limit.
    devices: directory -> device number, of those that are there; root: the root disk's. gone:
    services whose pinned pages a start of the machine took."""

    gpu: str = ""
    toolkit: bool = True
    lock_limit: int | None = None
    devices: Mapping[str, str] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()


def make_footings(fleet: Fleet, name: str, release: Release, ground: Ground) -> dict[str, Footing]:
    """By service, of those that need anything that is not in the release itself."""
    machine = fleet.machines[name]
    mounts = [one.key for one in ground.of("storage") if one.value.get("mount")]
    found = {}
    for service, entry in machine.services.items():
        paths = [release.root, entry.program or ""]
        paths += [volume.source for volume in entry.volumes]
        for need in release.models:
            if need.service == service:
                paths += [need.path, need.models_dir]
        # llama.cpp's --load-mode mlock or mmap+mlock; older builds have --mlock.
        wish = "mlock" in str(entry.options.get("load-mode", "")) or entry.options.get("mlock")
        locks = bool(wish) and release.units[service].runtime == "process"
        below = tuple(mount for mount in mounts if any(_below(path, mount) for path in paths))
        if locks or below:
            found[service] = Footing(locks, below)
    return found


def footing_variables(
    release: Release, footings: Mapping[str, Footing], acting: Iterable[str]
) -> dict[str, str]:
    """Variables of details.sh for these services."""
    chosen = list(acting)
    own = [footings[service] for service in chosen if service in footings]
    units = [release.units[service] for service in chosen]
    return {
        "gpus": " ".join(sorted({unit.runtime for unit in units if unit.gpu})),
        "locks": "yes" if any(footing.locks for footing in own) else "",
        "mounts": "\n".join(sorted({mount for footing in own for mount in footing.mounts})),
        "pins": "\n".join(f"{service}\t{release.project}-{service}" for service in chosen),
    }


def parse_missing(records: Iterable[tuple[str, str]]) -> Missing:
    """From the records of details.sh that begin with `ground`: what, and the rest of the line."""
    gpu, toolkit, limit = "", True, None
    devices: dict[str, str] = {}
    gone = set()
    for what, rest in records:
        if what == "gpu":
            gpu = rest
        elif what == "toolkit":
            toolkit = False
        elif what == "lock" and rest.isdigit():
            limit = int(rest)
        elif what == "device":
            device, _, path = rest.partition(" ")
            devices[path] = device
        elif what == "gone":
            gone.add(rest)
    return Missing(gpu, toolkit, limit, devices, frozenset(gone))


def footing_problems(
    release: Release,
    footings: Mapping[str, Footing],
    acting: Iterable[str],
    missing: Missing,
) -> tuple[list[FleetError], list[str]]:
    """(what refuses a plan that starts these services, what its reader should know)."""
    problems: list[FleetError] = []
    notes: list[str] = []
    away: dict[str, list[str]] = {}
    root = missing.devices.get("/")
    for service in acting:
        unit, footing = release.units[service], footings.get(service, Footing())
        if unit.gpu and missing.gpu:
            problems.append(FleetError(f"{service} needs a GPU, and {missing.gpu}", DRIVER))
        elif unit.gpu and unit.runtime == "compose" and not missing.toolkit:
            what = f"{service} needs a GPU, and Docker has neither the nvidia runtime nor CDI"
            problems.append(FleetError(what, TOOLKIT))
        for mount in footing.mounts if root else ():
            if missing.devices.get(mount, root) == root:
                away.setdefault(mount, []).append(service)
        if footing.locks and missing.lock_limit is not None:
            notes.append(
                f"{service} is to lock its memory, and this user may lock "
                f"{missing.lock_limit >> 10} KiB: hostprep: {{limits: {{memlock: infinity}}}} "
                "lifts that at the next login"
            )
        if service in missing.gone:
            notes.append(
                f"{service} was pinned in huge pages, which a start of the machine took: it reads "
                f"its disk until `invoke models.pin --service {service}`"
            )
    for mount, services in away.items():
        problems.append(
            FleetError(
                f"{mount} is not mounted, and {', '.join(services)} would lie on the root disk",
                "mount the disk that belongs there; `invoke hostprep.check` watches it",
            )
        )
    return problems, notes


def _below(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder}/")
