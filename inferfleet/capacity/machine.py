"""What a machine offers a service: from its hardware file, or from what it says itself; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inferfleet.capacity.held import Card, Held
from inferfleet.capacity.term import Memory, Vram
from inferfleet.services.values import gpu_count

MAIN = "main memory"


def file_memory(hardware: Mapping[str, Any], gpus: str | Sequence[str]) -> Memory:
    """From the hardware file alone; 0 where it gives no memory. gpus: as the service asks.

    hardware: as make_budget has it.
    """
    host = int(hardware.get("memory") or 0)
    there = int(hardware.get("gpus") or 0)
    count = there if gpus == "all" else 0 if gpus == "none" else len(gpus)
    unified = bool(hardware.get("unified"))
    device = host if unified else hardware.get("gpu_memory") or 0
    return Memory(
        host=host,
        device=device if count else 0,
        gpus=count if device else 0,
        unified=unified,
        reserve=int(hardware.get("reserve") or 0),
        # The file knows the bandwidth of the GPU's memory alone.
        bandwidth=hardware.get("bandwidth") if count or unified else None,
    )


def live_memory(
    hardware: Mapping[str, Any],
    gpus: str | Sequence[str],
    held: Held,
    freed: Mapping[str, int] | None = None,
) -> Memory:
    """From the machine's own word; the hardware file adds reserve and bandwidth.

    freed: by pool, what will be free beside what is free now.
    """
    more = freed or {}
    cards = cards_of(gpus, held.cards)
    unified = shares(hardware, held)
    each = tuple(_vram(card, more) for card in cards if card.total is not None)
    frees = [one.free for one in each if one.free is not None]
    available = max(min(held.available + more.get(MAIN, 0), held.total), 0)
    device = held.total if unified else min((one.total for one in each), default=0)
    count = len(cards) if held.cards else _count(hardware, gpus)
    if count and not device and not unified:
        device = int(hardware.get("gpu_memory") or 0)
    return Memory(
        host=held.total,
        device=device if count else 0,
        gpus=count if device else 0,
        unified=unified,
        reserve=int(hardware.get("reserve") or 0),
        # The file knows the bandwidth of the GPU's memory alone.
        bandwidth=hardware.get("bandwidth") if count or unified else None,
        free=available if unified else min(frees, default=None),
        cards=each if device else (),
        ordered=_ordered(gpus, cards),
    )


def shares(hardware: Mapping[str, Any], held: Held | None = None) -> bool:
    """Whether CPU and GPU share one memory: as the file says, or as the driver tells no total."""
    if hardware.get("unified"):
        return True
    return bool(held and held.cards and all(card.total is None for card in held.cards))


def cards_of(gpus: str | Sequence[str], cards: Sequence[Card]) -> tuple[Card, ...]:
    """The GPUs that a service has, by the numbers or UUIDs of its machine file."""
    if gpus == "none":
        return ()
    if gpus == "all":
        return tuple(cards)
    return tuple(c for c in cards if str(c.index) in gpus or c.uuid in gpus)


def _vram(card: Card, more: Mapping[str, int]) -> Vram:
    """more: what will be free beside what is free now, by pool."""
    total = card.total or 0
    if card.free is None:
        return Vram(total)
    return Vram(total, max(min(card.free + more.get(f"GPU {card.index}", 0), total), 0))


def _ordered(gpus: str | Sequence[str], cards: Sequence[Card]) -> bool:
    """Whether a service that names its GPUs does so in the order of the driver."""
    named = [str(card.index) if str(card.index) in gpus else card.uuid for card in cards]
    return isinstance(gpus, str) or named == list(gpus)


def wanted_gpus(demand: Mapping[str, Any]) -> int | None:
    """How many GPUs a service splits itself over by its options; None: as many as it sees.

    demand: as make_budget has it, whose `split` are the kind's `options.gpus`.
    """
    split = demand.get("split")
    return gpu_count(split, demand.get("options", {})) if split else None


def spread(demand: Mapping[str, Any], there: int) -> int:
    """On how many of its GPUs a service puts itself: the first ones, as many as it splits over."""
    wanted = wanted_gpus(demand)
    return there if wanted is None else min(wanted, there)


def _count(hardware: Mapping[str, Any], gpus: str | Sequence[str]) -> int:
    if gpus == "none":
        return 0
    return int(hardware.get("gpus") or 0) if gpus == "all" else len(gpus)
