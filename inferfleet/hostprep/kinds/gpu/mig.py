"""MIG: the instances that each GPU is divided into, by profile names (1g.12gb, 3g.47gb)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from inferfleet.gpu.facts import Gpu
from inferfleet.hostprep.facts import Facts, Look
from inferfleet.hostprep.kinds.gpu.nvidia import (
    Cards,
    Part,
    boot_line,
    each,
    kept,
    missing,
    set_gpu,
    unset_gpu,
)
from inferfleet.hostprep.setting import Change, Finding, Ground, Verdict, Wanted

PROBE = "nvidia-smi mig -lgi"
# mig-manager makes instances of its own at every start.
MANAGER = "/etc/systemd/system/multi-user.target.wants/nvidia-mig-manager.service"
_LISTED = re.compile(r"\|\s*(\d+)\s+MIG (\S+)\s+\d+\s+\d+\s")
_PROFILE = re.compile(r"(\d)g\.(\d+)gb")
# A GPU has seven compute slices and eight memory slices.
COMPUTE, MEMORY = 7, 8


def mig_look() -> Look:
    """The instances by their profiles, which the report does not name."""
    return Look((MANAGER,), {PROBE: ("nvidia-smi", "mig", "-lgi")})


def layouts(facts: Facts) -> dict[int, Counter[str]]:
    """GPU number -> how many instances of each profile it has."""
    found: dict[int, Counter[str]] = {}
    for match in _LISTED.finditer(facts.probe(PROBE).out):
        found.setdefault(int(match[1]), Counter())[match[2]] += 1
    return found


def mig_part(wanted: Wanted, ground: Ground, facts: Facts, found: Cards) -> Part:
    """The layout of every GPU that is named."""
    wish: Mapping[str, list[str]] = wanted.value
    none = all(not profiles for profiles in wish.values())
    if ground.lacks("mig"):
        verdict: Verdict = "ok" if none else "unsupported"
        return Part(Finding(wanted, "off", "-", verdict, "" if none else "the hardware has no mig"))
    if not found.gpus:
        # A driver that is out of order must not lose what a start makes.
        lines = boot_lines(wish, None)
        if not kept(lines, facts):
            return Part(missing(wanted, found))
        return Part(missing(wanted, found, "at every start"), boot=lines)
    chosen = _chosen(wish, found.gpus)
    there = layouts(facts)
    live = each({gpu.index: _words(gpu, there.get(gpu.index, Counter())) for gpu in found.gpus})
    lines = boot_lines(wish, found.gpus)
    persisted = "at every start" if kept(lines, facts) else "-"
    problem = _problem(wish, chosen, ground, there)
    if problem:
        return Part(Finding(wanted, live, persisted, "advice", problem), boot=lines)
    if MANAGER in facts.files:
        remedy = "nvidia-mig-manager makes its own layout: systemctl disable it, or leave gpu.mig"
        return Part(Finding(wanted, live, persisted, "overridden", remedy), boot=lines)
    if not none and all(gpu.mig.current is None for gpu, _ in chosen):
        return Part(Finding(wanted, live, "-", "unsupported", "no GPU here can be divided"))
    if any(gpu.mig.instances and gpu.index not in there for gpu, _ in chosen):
        return Part(Finding(wanted, "-", persisted, "unknown", "only root may list the instances"),
                    boot=lines)  # fmt: skip
    changes = tuple(
        _change(wanted, gpu, there.get(gpu.index, Counter()), profiles)
        for gpu, profiles in chosen
        if not _right(gpu, there.get(gpu.index, Counter()), profiles) and not _coming(gpu, profiles)
    )
    busy = [gpu for gpu, _ in chosen if gpu.processes and any(_of(c, gpu) for c in changes)]
    if busy:
        users = ", ".join(f"{p.name or 'process'} ({p.pid})" for p in busy[0].processes)
        remedy = f"GPU {busy[0].index} is in use by {users}: stop it first"
        return Part(Finding(wanted, live, persisted, "advice", remedy), boot=lines)
    if changes or (persisted == "-" and lines):
        return Part(Finding(wanted, live, persisted, "differs"), changes, boot=lines)
    waits = any(_coming(gpu, profiles) for gpu, profiles in chosen)
    return Part(Finding(wanted, live, persisted, "pending" if waits else "ok"), boot=lines)


def boot_lines(wish: Mapping[str, list[str]], gpus: tuple[Gpu, ...] | None) -> tuple[str, ...]:
    """Lines that make the instances again; a mode that is off stays off by itself."""
    if gpus is None or set(wish) == {"all"}:
        pairs = sorted(wish.items())
    else:
        pairs = [(str(gpu.index), profiles) for gpu, profiles in _chosen(wish, gpus)]
    return tuple(boot_line("mig", key, _value(profiles)) for key, profiles in pairs if profiles)


def _chosen(wish: Mapping[str, list[str]], gpus: tuple[Gpu, ...]) -> list[tuple[Gpu, list[str]]]:
    """Each GPU with its profiles: those of its own number, else those of all."""
    pairs = ((gpu, wish.get(str(gpu.index), wish.get("all"))) for gpu in gpus)
    return [(gpu, profiles) for gpu, profiles in pairs if profiles is not None]


def _problem(
    wish: Mapping[str, list[str]],
    chosen: list[tuple[Gpu, list[str]]],
    ground: Ground,
    there: Mapping[int, Counter[str]],
) -> str:
    """Why a layout cannot be, "" when it can."""
    numbers = {str(gpu.index) for gpu, _ in chosen}
    unknown = sorted(set(wish) - numbers - {"all"})
    if unknown:
        return f"there is no GPU {unknown[0]}"
    valid: Mapping[str, int] = (ground.hardware.get("gpu") or {}).get("mig-profiles") or {}
    for gpu, profiles in chosen:
        for name, count in sorted(Counter(profiles).items()):
            if valid and name not in valid:
                return f"GPU {gpu.index} has no profile {name}; it has {', '.join(valid)}"
            if valid and count > valid[name]:
                return f"GPU {gpu.index} holds at most {valid[name]} of {name}"
        compute, memory = slices(profiles, valid)
        if compute > COMPUTE or memory > MEMORY:
            return (
                f"GPU {gpu.index} has {COMPUTE} compute and {MEMORY} memory slices, and "
                f"{', '.join(profiles)} need {compute} and {memory}"
            )
    return ""


def slices(profiles: list[str], valid: Mapping[str, int]) -> tuple[int, int]:
    """Compute and memory slices that profiles take; memory counts only where 7g is known."""
    sizes = [(int(m[1]), int(m[2])) for name in profiles if (m := _PROFILE.match(name))]
    whole = [int(m[2]) for name in valid if (m := _PROFILE.match(name)) and m[1] == str(COMPUTE)]
    memory = 0
    if whole:
        memory = sum(max(1, round(size * MEMORY / whole[0])) for _, size in sizes)
    return sum(compute for compute, _ in sizes), memory


def _right(gpu: Gpu, there: Counter[str], profiles: list[str]) -> bool:
    if not profiles:
        return not gpu.mig.current
    return gpu.mig.current is True and there == Counter(profiles)


def _coming(gpu: Gpu, profiles: list[str]) -> bool:
    """Whether only a reset is missing, at which the boot lines do the rest."""
    return gpu.mig.pending is bool(profiles) and gpu.mig.current is not gpu.mig.pending


def _change(wanted: Wanted, gpu: Gpu, there: Counter[str], profiles: list[str]) -> Change:
    old = _value(sorted(there.elements())) if there else "none" if gpu.mig.current else "off"
    return Change(
        (wanted.name,),
        f"GPU {gpu.index}: {_words(gpu, there)} -> {_counted(Counter(profiles)) or 'off'}",
        (set_gpu("mig", gpu.uuid, _value(profiles)),),
        unset_gpu("mig", gpu.uuid, old),
    )


def _of(change: Change, gpu: Gpu) -> bool:
    return change.text.startswith(f"GPU {gpu.index}:")


def _value(profiles: list[str]) -> str:
    """Largest first: small ones first may leave no place where a large one fits."""
    if not profiles:
        return "off"
    return ",".join(sorted(profiles, key=lambda name: (-slices([name], {})[0], name)))


def _words(gpu: Gpu, there: Counter[str]) -> str:
    if not gpu.mig.current:
        return "off, on after a reset" if gpu.mig.pending else "off"
    return _counted(there) or "no instances"


def _counted(layout: Counter[str]) -> str:
    return ", ".join(f"{count}x {name}" for name, count in sorted(layout.items()))
