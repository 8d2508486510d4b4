"""Room on a machine's disk for a model: what it takes, and whether it is there."""

from __future__ import annotations

from collections.abc import Mapping

from inferfleet.errors import FleetError
from inferfleet.models.sources.origin import Contents

# Room left on a disk besides the model, for the rest of the machine to go on.
RESERVE_BYTES = 64 << 20


def bytes_there(contents: Contents, sizes: Mapping[str, int]) -> int:
    """Of the wanted bytes, those that lie in the directory already, unfinished files included."""
    return sum(
        min(sizes.get(file.path) or sizes.get(f"{file.path}.part", 0), file.size or 0)
        for file in contents.files
    )


def check_space(
    machine: str, where: str, what: str, free: int, total: int | None, there: int
) -> None:
    """Raises FleetError with the arithmetic when total bytes, less there, do not fit in free."""
    missing = (total or 0) - there
    if missing <= 0 or missing + RESERVE_BYTES <= free:
        return
    short = size(missing + RESERVE_BYTES - free)
    raise FleetError(
        f"{machine}: not enough room in {where} for {what}: {size(total or 0)} - {size(there)} "
        f"there already + {size(RESERVE_BYTES)} reserve - {size(free)} free = {short} short",
        f"free {short} on this disk (`invoke models.prune --host {machine}` removes what no "
        "service uses), or choose another models directory",
    )


def size(count: int) -> str:
    """Bytes for people, in powers of 1024."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
