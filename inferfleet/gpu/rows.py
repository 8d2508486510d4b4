"""GPUs as rows of tables; pure."""

from __future__ import annotations

from collections import Counter
from typing import Any

from inferfleet.gpu.facts import Gpu, GpuFacts

COLUMNS = ["machine", "gpu", "name", "driver", "memory", "util", "temp", "power", "clocks", "pcie",
           "ecc", "mig", "note"]  # fmt: skip
PROCESS_COLUMNS = ["machine", "gpu", "pid", "service", "memory", "kind", "process"]
GIB = 1 << 30


def gpu_rows(machine: str, facts: GpuFacts) -> list[dict[str, Any]]:
    """One row for each GPU; one that says why there is none."""
    if not facts.gpus:
        return [{"machine": machine, "note": facts.note or "no GPU"}]
    rows = []
    for gpu in facts.gpus:
        total, used = facts.memory(gpu)
        rows.append(
            {
                "machine": machine,
                "gpu": gpu.index,
                "name": gpu.name,
                "driver": f"{facts.driver}, CUDA {facts.cuda}" if facts.cuda else facts.driver,
                "memory": memory_words(total, used),
                "util": _unit(gpu.utilization, "%"),
                "temp": _unit(gpu.temperature, "C"),
                "power": _power(gpu),
                "clocks": _pair(gpu.clocks.graphics, gpu.max_clocks.graphics, "MHz"),
                "pcie": _link(gpu),
                "ecc": _ecc(gpu),
                "mig": _mig(gpu),
                "note": "; ".join(notes(facts, gpu)) or None,
            }
        )
    return rows


def process_rows(machine: str, facts: GpuFacts) -> list[dict[str, Any]]:
    """One row for each process on each GPU."""
    return [
        {
            "machine": machine,
            "gpu": gpu.index,
            "pid": process.pid,
            "service": process.owner or None,
            "memory": None if process.memory is None else f"{process.memory / GIB:.1f} GiB",
            "kind": process.kind or None,
            "process": process.name or None,
        }
        for gpu in facts.gpus
        for process in gpu.processes
    ]


def notes(facts: GpuFacts, gpu: Gpu) -> list[str]:
    """What a reader should know of a GPU: throttling, errors, what waits for a reboot."""
    found = []
    if gpu.memory_total is None and facts.host_total is not None:
        found.append("memory is the machine's")
    if gpu.reasons:
        found.append("clocks held by " + ", ".join(gpu.reasons))
    errors = Counter(x.number for x in facts.xids or () if _same_bus(x.bus, gpu.bus))
    if errors:
        found.append("XID " + ", ".join(f"{n} (x{times})" for n, times in sorted(errors.items())))
    if gpu.ecc.uncorrected:
        found.append(f"{gpu.ecc.uncorrected} uncorrected memory errors")
    for word, one in (("ECC", gpu.ecc), ("MIG", gpu.mig)):
        if one.pending is not None and one.pending != one.current:
            found.append(f"{word} {'on' if one.pending else 'off'} after a reboot")
    if gpu.compute_mode not in (None, "default"):
        found.append(str(gpu.compute_mode))
    if gpu.persistence is False:
        found.append("no persistence")
    return found


def memory_words(total: int | None, used: int | None) -> str | None:
    """Used and total in GiB."""
    if total is None:
        return None
    return f"{'?' if used is None else f'{used / GIB:.1f}'} of {total / GIB:.1f} GiB"


def _same_bus(one: str, two: str) -> bool:
    """Whether 0000:61:00 of the kernel log is 00000000:61:00.0 of the driver."""
    return _slot(one) is not None and _slot(one) == _slot(two)


def _slot(bus: str) -> tuple[int, ...] | None:
    parts = bus.partition(".")[0].split(":")
    try:
        return tuple(int(part, 16) for part in parts)
    except ValueError:
        return None


def _unit(value: float | int | None, unit: str) -> str | None:
    return None if value is None else f"{value} {unit}"


def _pair(now: float | int | None, most: float | int | None, unit: str) -> str | None:
    if now is None and most is None:
        return None
    left = "?" if now is None else f"{now:.0f}"
    return f"{left} of {most:.0f} {unit}" if most is not None else f"{left} {unit}"


def _power(gpu: Gpu) -> str | None:
    words = _pair(gpu.power.draw, gpu.power.limit, "W")
    low, high = gpu.power.minimum, gpu.power.maximum
    return f"{words} ({low:.0f}-{high:.0f})" if words and low and high else words


def _link(gpu: Gpu) -> str | None:
    link = gpu.link
    if link.generation is None:
        return None
    now, most = (f"{link.generation}x{link.width}", f"{link.max_generation}x{link.max_width}")
    return f"gen {now}" if now == most else f"gen {now} of {most}"


def _ecc(gpu: Gpu) -> str | None:
    if gpu.ecc.current is None:
        return None
    if not gpu.ecc.current:
        return "off"
    return f"on, {gpu.ecc.corrected or 0}+{gpu.ecc.uncorrected or 0} errors"


def _mig(gpu: Gpu) -> str | None:
    if gpu.mig.current is None:
        return None
    if not gpu.mig.current:
        return "off"
    if any(one.profile is None for one in gpu.mig.instances):
        return f"{len(gpu.mig.instances)} instances"
    counted = Counter(one.profile for one in gpu.mig.instances)
    return ", ".join(f"{n}x {name}" for name, n in sorted(counted.items())) or "no instances"
