"""A measured figure beside its bound, and how figures are shown and kept."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
LIBRARIES = ("invoke", "fabric", "paramiko", "pydantic", "jinja2", "pyyaml", "xllamacpp")


@dataclass(frozen=True)
class Figure:
    """bound: the most (at_most) or the least that measured may be; None: told for comparison."""

    name: str
    measured: float
    unit: str
    bound: float | None = None
    at_most: bool = True

    @property
    def met(self) -> bool | None:
        if self.bound is None:
            return None
        return self.measured <= self.bound if self.at_most else self.measured >= self.bound


def table(figures: Sequence[Figure]) -> str:
    """Figure, target, measured, met?"""
    rows = [("figure", "target", "measured", "met?")]
    for figure in figures:
        sign = "<=" if figure.at_most else ">="
        target = "" if figure.bound is None else f"{sign} {figure.bound:g} {figure.unit}"
        met = {None: "", True: "yes", False: "NO"}[figure.met]
        rows.append((figure.name, target, f"{figure.measured:.3g} {figure.unit}", met))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def keep(
    name: str, figures: Sequence[Figure], details: Mapping[str, Any], load: tuple[float, ...]
) -> Path:
    """Write benchmarks/results/NAME.json: the last run, with the machine it ran on.

    load: the machine's load averages before the run; those after it are added.
    """
    path = RESULTS / f"{name}.json"
    content = {
        "when": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine(),
        "load": {"before": load, "after": os.getloadavg()},
        "figures": [{**asdict(figure), "met": figure.met} for figure in figures],
        "details": details,
    }
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def machine() -> dict[str, Any]:
    """The processor, its cores, memory and the versions of what was measured."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "ssh": subprocess.run(["ssh", "-V"], capture_output=True, text=True).stderr.strip(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
