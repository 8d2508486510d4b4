"""How full and how busy the GPUs are, in the words of status; pure."""

from __future__ import annotations

from inferfleet.gpu.rows import memory_words
from inferfleet.gpu.trouble import explain
from inferfleet.observe.observed import Observed

MIB = 1 << 20
FIELDS = 6


def brief_lines(observed: Observed) -> list[str]:
    """A line for each GPU, or one that says why the driver does not answer."""
    found = []
    for line in observed.gpu_lines:
        fields = [field.strip().strip("[]") for field in line.split(",")]
        if len(fields) != FIELDS or not fields[0].isdigit():
            error = explain(line, None if line == "absent" else 1)
            return [f"{error.what}; {error.hint}"]
        index, name, total, used, busy, warm = fields
        words = memory_words(*_memory(observed, total, used))
        parts = [
            words or "memory unknown",
            f"{busy} % busy" if busy.isdigit() else "",
            f"{warm} C" if warm.isdigit() else "",
        ]
        found.append(f"{index} {name}: {', '.join(part for part in parts if part)}")
    return found


def _memory(observed: Observed, total: str, used: str) -> tuple[int | None, int | None]:
    """Bytes; those of the machine where the driver reports none, because the two share it."""
    if total.isdigit():
        return int(total) * MIB, int(used) * MIB if used.isdigit() else None
    whole, free = observed.facts.get("MemTotal", ""), observed.facts.get("MemAvailable", "")
    if whole.isdigit() and free.isdigit():
        return int(whole) * 1024, (int(whole) - int(free)) * 1024
    return None, None
