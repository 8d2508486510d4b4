"""Which layers of a model llama.cpp puts on GPUs, and how much of each of them that is."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import accumulate

from inferfleet.capacity.engines import rules
from inferfleet.capacity.engines.cells import Slots, layer_bytes
from inferfleet.capacity.engines.given import Given
from inferfleet.capacity.engines.layout import Layout
from inferfleet.capacity.shape.shape import Shape


@dataclass(frozen=True)
class Split:
    """Bytes on all GPUs together and on the host, and how many layers lie on GPUs.

    parts: (weights, cache) of each of these layers, the output being the last; () not known.
    """

    device_weights: int
    host_weights: int
    device_cache: int
    host_cache: int
    layers: int
    parts: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Share:
    """Bytes on one GPU. layer: of its largest layer, where whole layers were dealt out, else 0."""

    weights: float
    cache: float
    work: int
    layer: int = 0

    @property
    def total(self) -> float:
        return self.weights + self.cache + self.work


def fitted(given: Given, shape: Shape, slots: Slots, least: Slots, layout: Layout) -> Slots:
    """The longest context between `least` and `slots` with which all layers fit."""
    if not layout.room or least == slots or _total(given, shape, slots, layout) <= layout.room:
        return slots
    low, high = least.context, slots.context
    while high - low > 256:
        middle = (low + high) // 2
        if _total(given, shape, replace(slots, context=middle), layout) <= layout.room:
            low = middle
        else:
            high = middle
    return replace(slots, context=low)


def divided(given: Given, shape: Shape, slots: Slots, layout: Layout) -> Split:
    """The layers that were asked for; else as many as fit, or all where none are moved."""
    count = len(shape.layers) + 1
    asked = _asked(given, shape)
    if not layout.used:
        asked = 0
    if asked is None and not layout.moves:
        asked = count
    if asked is not None:
        return _put(given, shape, slots, asked)
    fixed = (rules.compute_buffer(shape, slots) + rules.CONTEXT_OUTSIDE) * len(layout.used)
    for number in range(count, 0, -1):
        put = _put(given, shape, slots, number)
        if put.device_weights + put.device_cache + fixed <= layout.room:
            return put
    return _put(given, shape, slots, 0)


def laid_out(given: Given, shape: Shape, split: Split, layout: Layout, work: int) -> list[Share]:
    """What each GPU has of what lies on GPUs. work: bytes of the compute buffer.

    Fitting moves layers between GPUs, too, where one has no room for its part.
    """
    if layout.told and split.parts:
        return _dealt(split, layout, work)
    found = _proportioned(split, layout, layout.weights, layout.cache, work)
    moves = layout.moves and _asked(given, shape) is None
    over = any(one.total > room for one, room in zip(found, layout.rooms, strict=True))
    if moves and over and len(layout.used) > 1:
        fixed = work + rules.CONTEXT_OUTSIDE
        rooms = tuple(
            float(max(room - fixed, 0)) if number in layout.used else 0.0
            for number, room in enumerate(layout.rooms)
        )
        if any(rooms):
            return _proportioned(split, layout, rooms, rooms, work)
    return found


def _proportioned(
    split: Split, layout: Layout, weights: tuple[float, ...], cache: tuple[float, ...], work: int
) -> list[Share]:
    if len(set(weights)) == len(set(cache)) == 1:
        weights = cache = (1,) * len(weights)
    both = zip(weights, cache, strict=True)
    return [
        Share(
            split.device_weights * one / (sum(weights) or 1),
            split.device_cache * two / (sum(cache) or 1),
            work + rules.CONTEXT_OUTSIDE if one or two else layout.idle,
        )
        for one, two in both
    ]


def _dealt(split: Split, layout: Layout, work: int) -> list[Share]:
    """Whole layers by the user's proportions: each goes where its place among all of them falls."""
    sums = list(accumulate(layout.weights))
    dealt: list[list[tuple[int, int]]] = [[] for _ in layout.weights]
    for number, part in enumerate(split.parts):
        dealt[bisect_right(sums, number / len(split.parts) * sums[-1])].append(part)
    return [
        Share(
            sum(weights for weights, _ in some),
            sum(cache for _, cache in some),
            work + rules.CONTEXT_OUTSIDE if some else layout.idle,
            max((sum(part) for part in some), default=0),
        )
        for some in dealt
    ]


def _asked(given: Given, shape: Shape) -> int | None:
    """Layers that are to lie on GPUs, the output counted as one; None: as many as fit."""
    if given.text("device", "dev") == "none":
        return 0
    told = given.value("n-gpu-layers", "gpu-layers", "ngl", "num-gpu")
    if told is None or str(told) in ("auto", "-1"):
        return None
    if str(told) == "all":
        return len(shape.layers) + 1
    count = given.whole("n-gpu-layers", "gpu-layers", "ngl", "num-gpu", default=-2)
    return len(shape.layers) + 1 if count < 0 else min(count, len(shape.layers) + 1)


def _total(given: Given, shape: Shape, slots: Slots, layout: Layout) -> int:
    """Bytes on all GPUs if every layer that may is put there."""
    asked = _asked(given, shape)
    put = _put(given, shape, slots, len(shape.layers) + 1 if asked is None else asked)
    fixed = rules.compute_buffer(shape, slots) + rules.CONTEXT_OUTSIDE
    return put.device_weights + put.device_cache + fixed * len(layout.used)


def _put(given: Given, shape: Shape, slots: Slots, count: int) -> Split:
    """The last `count` layers on GPUs, the output being the very last (llama_model's buffers)."""
    weights, layers = shape.weights, shape.layers
    each = weights.layers if len(weights.layers) == len(layers) else ()
    known = bool(each)
    rest = weights.total - weights.embedding - weights.output - weights.idle
    if not each:
        each = (rest // max(len(layers), 1),) * len(layers)
    first = max(len(layers) + 1 - count, 0)
    # The input table stays on the host; a shared one is copied to the GPU as the output.
    output = weights.embedding if weights.tied else weights.output
    device = sum(each[first:]) + (output if count else 0)
    away = min(_experts(given, shape, first), device)
    caches = [layer_bytes(layer, slots) for layer in layers]
    kept = [0] * len(layers) if given.flag("no-kv-offload", "nkvo") else caches
    parts: tuple[tuple[int, int], ...] = ()
    if known and count and not away:
        parts = (*zip(each[first:], kept[first:], strict=True), (output, 0))
    cache = sum(kept[first:])
    total = weights.total - weights.idle
    host = total - device + away + (output if weights.tied and count else 0)
    return Split(device - away, host, cache, sum(caches) - cache, count, parts)


def _experts(given: Given, shape: Shape, first: int) -> int:
    """Bytes of experts that --cpu-moe or --n-cpu-moe keep off the GPU."""
    if not shape.experts:
        return 0
    count = len(shape.layers)
    kept = count if given.flag("cpu-moe", "cmoe") else given.above("n-cpu-moe", "ncmoe", default=0)
    return shape.weights.experts * max(min(kept, count) - first, 0) // max(count, 1)
