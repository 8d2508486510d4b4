"""Values of GPUs that a reboot loses: clocks, power limit, compute mode. And ECC."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from inferfleet.gpu.facts import Gpu
from inferfleet.hostprep.facts import Facts
from inferfleet.hostprep.kinds.gpu.nvidia import (
    NOTES,
    Cards,
    Part,
    boot_line,
    each,
    kept,
    lacking,
    missing,
    set_gpu,
    unset_gpu,
)
from inferfleet.hostprep.setting import Change, Finding, Ground, Wanted

RESET = "reset"
# How far above its lock a clock may be read without being called unlocked: one step of 15 MHz.
STEP_MHZ = 15
WATT = 0.5


@dataclass(frozen=True)
class Value:
    """How one setting is read and written. feature: as hardware files say that it lacks.

    wish: the value that the helper takes. read: the helper's value as it is now, None when the
    card has no such thing. outside: why a card cannot take the wish, "" when it can. fresh: what
    the card has after a start by itself, None where that cannot be told.
    """

    feature: str
    wish: Callable[[Any], str]
    read: Callable[[Gpu, Facts], str | None]
    outside: Callable[[Gpu, str], str]
    fresh: Callable[[Gpu], str | None]
    unit: str = ""


def value_part(wanted: Wanted, ground: Ground, facts: Facts, found: Cards) -> Part:
    """The part of one of VALUES."""
    value = VALUES[wanted.key]
    none = lacking(wanted, ground, value.feature)
    if none is not None:
        return Part(none)
    wish = value.wish(wanted.value)
    lines: tuple[str, ...] = (boot_line(wanted.key, "all", wish),)
    if not found.gpus:
        # A driver that is out of order must not lose what a start sets.
        if not kept(lines, facts):
            return Part(missing(wanted, found))
        return Part(missing(wanted, found, _shown(wish, value)), boot=lines)
    read = {gpu.index: value.read(gpu, facts) for gpu in found.gpus}
    able = [gpu for gpu in found.gpus if read[gpu.index] is not None]
    if not able:
        return Part(Finding(wanted, "-", "-", "unsupported", f"no GPU here has {value.feature}"))
    if len(able) < len(found.gpus):
        lines = tuple(boot_line(wanted.key, gpu.uuid, wish) for gpu in able)
    if all(_same(value.fresh(gpu) or "", wish) for gpu in able):
        lines = ()
    live = each({gpu.index: _shown(str(read[gpu.index]), value) for gpu in able})
    persisted = _shown(wish, value) if not lines or kept(lines, facts) else "-"
    outside = next((why for gpu in able if (why := value.outside(gpu, wish))), "")
    if outside:
        return Part(Finding(wanted, live, persisted, "advice", outside))
    changes = tuple(
        _change(wanted, gpu, value, str(read[gpu.index]), wish)
        for gpu in able
        if not _same(str(read[gpu.index]), wish)
    )
    good = not changes and persisted != "-"
    remedy = ""
    if any(gpu.persistence is False for gpu in able) and not _persistent(ground):
        remedy = "the driver forgets it when the last program ends: set gpu.persistence"
    finding = Finding(wanted, live, persisted, "ok" if good else "differs", remedy)
    return Part(finding, changes, boot=lines)


def ecc_part(wanted: Wanted, ground: Ground, found: Cards) -> Part:
    """Error correction: kept by the card itself, changed by a reboot."""
    none = lacking(wanted, ground, "ecc")
    if none is not None:
        return Part(none)
    if not found.gpus:
        return Part(missing(wanted, found))
    able = [gpu for gpu in found.gpus if gpu.ecc.current is not None]
    if not able:
        return Part(Finding(wanted, "-", "-", "unsupported", "no GPU here has ECC to switch"))
    wish = bool(wanted.value)
    live = each({gpu.index: _switch(gpu.ecc.current) for gpu in able})
    coming = each({gpu.index: _switch(_pending(gpu)) for gpu in able})
    other = [gpu for gpu in able if _pending(gpu) != wish]
    if other:
        changes = tuple(
            Change(
                (wanted.name,),
                f"GPU {gpu.index}: {_switch(_pending(gpu))} -> {_switch(wish)}",
                (set_gpu("ecc", gpu.uuid, str(int(wish))),),
                unset_gpu("ecc", gpu.uuid, str(int(not wish))),
                reboot="a GPU changes its error correction when it is reset",
            )
            for gpu in other
        )
        return Part(Finding(wanted, live, coming, "differs"), changes)
    done = all(gpu.ecc.current == wish for gpu in able)
    return Part(Finding(wanted, live, coming, "ok" if done else "pending"))


def _change(wanted: Wanted, gpu: Gpu, value: Value, old: str, wish: str) -> Change:
    # What was locked above is shown as such; to undo that is to lock nothing.
    back = old.partition(" ")[0]
    return Change(
        (wanted.name,),
        f"GPU {gpu.index}: {_shown(old, value)} -> {_shown(wish, value)}",
        (set_gpu(wanted.key, gpu.uuid, wish),),
        unset_gpu(wanted.key, gpu.uuid, back),
    )


def _clock_note(what: str) -> Callable[[Gpu, Facts], str | None]:
    def read(gpu: Gpu, facts: Facts) -> str | None:
        most, now = _pair(gpu, what)
        if most is None:
            return None
        note = facts.value(f"{NOTES}/{what}.{gpu.uuid}") or facts.value(f"{NOTES}/{what}.all")
        if not note or note == RESET:
            return RESET
        high = note.rpartition(",")[2]
        if now is not None and high.isdigit() and now > int(high) + STEP_MHZ:
            return f"{RESET} (runs at {now} MHz)"
        return note

    return read


def _too_fast(what: str) -> Callable[[Gpu, str], str]:
    def outside(gpu: Gpu, wish: str) -> str:
        most, high = _pair(gpu, what)[0], int(wish.rpartition(",")[2])
        if most is not None and high > most:
            return f"GPU {gpu.index} has no clock above {most} MHz"
        return ""

    return outside


def _pair(gpu: Gpu, what: str) -> tuple[int | None, int | None]:
    if what == "clocks":
        return gpu.max_clocks.graphics, gpu.clocks.graphics
    return gpu.max_clocks.memory, gpu.clocks.memory


def _range(value: Any) -> str:
    low, _, high = str(value).partition("-")
    return f"{low},{high or low}"


def _limit(gpu: Gpu, facts: Facts) -> str | None:
    return None if gpu.power.limit is None else f"{gpu.power.limit:g}"


def _power_bounds(gpu: Gpu, wish: str) -> str:
    low, high = gpu.power.minimum, gpu.power.maximum
    if low is not None and high is not None and not low <= float(wish) <= high:
        return f"GPU {gpu.index} takes {low:g} to {high:g} W"
    return ""


def _compute_mode(gpu: Gpu, facts: Facts) -> str | None:
    return gpu.compute_mode.upper().replace("-", "_") if gpu.compute_mode else None


def _same(one: str, two: str) -> bool:
    if one == two:
        return True
    try:
        return abs(float(one) - float(two)) < WATT
    except ValueError:
        return False


def _shown(text: str, value: Value) -> str:
    if text.startswith(RESET):
        return text.replace(RESET, "not locked", 1)
    low, _, high = text.partition(",")
    words = low if low == high or not high else f"{low}-{high}"
    return f"{words} {value.unit}" if value.unit else words.lower().replace("_", "-")


def _switch(value: bool | None) -> str:
    return "on" if value else "off"


def _pending(gpu: Gpu) -> bool | None:
    return gpu.ecc.current if gpu.ecc.pending is None else gpu.ecc.pending


def _persistent(ground: Ground) -> bool:
    return any(one.key == "persistence" and one.value for one in ground.of("gpu"))


# In the order in which they are set: a mode first, the clocks last.
VALUES = {
    "compute-mode": Value(
        "compute-mode", lambda value: str(value).upper().replace("-", "_"), _compute_mode,
        lambda gpu, wish: "", lambda gpu: "DEFAULT",
    ),
    "power-limit": Value(
        "power-limit", lambda value: f"{value:g}", _limit, _power_bounds,
        lambda gpu: None if gpu.power.default is None else f"{gpu.power.default:g}", "W",
    ),
    "clocks": Value(
        "clock-lock", _range, _clock_note("clocks"), _too_fast("clocks"), lambda gpu: RESET, "MHz"
    ),
    "memory-clocks": Value(
        "memory-clock-lock", _range, _clock_note("memory-clocks"), _too_fast("memory-clocks"),
        lambda gpu: RESET, "MHz",
    ),
}  # fmt: skip
