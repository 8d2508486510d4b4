"""What of a model's weights is certain enough to refuse a start for it; pure."""

from __future__ import annotations

from collections.abc import Iterable

from inferfleet.capacity.engines.given import OFF, Given
from inferfleet.capacity.shape.shape import Shape
from inferfleet.capacity.words import size

SURE = 0.95  # of weights that are estimated from a family that is known


def sure_weights(shape: Shape, weights: float) -> int:
    """Of `weights` bytes of this model what is taken for certain.

    All of what headers, a machine or a model file say; most of an estimate; nothing of an
    estimate of a family or a quantization that is not known.
    """
    if shape.weights.how != "estimated":
        return int(weights)
    known = shape.kv != "estimated" and not shape.weights.guessed
    return int(weights * SURE) if known else 0


def moved(given: Given, names: Iterable[str]) -> bool:
    """Whether one of these options moves weights to where nobody counts them here."""
    return any((told := given.value(name)) is not None and str(told).lower() not in OFF
               for name in names)  # fmt: skip


def share_limit(name: str, share: float) -> tuple[str, ...]:
    """Why a share of the memory cannot be one: engines take more than 0 and at most 1."""
    return () if 0 < share <= 1 else (f"{name} is {share:g}, and has to be above 0 and at most 1",)


def too_large(what: str, weights: float, allowed: float, rule: str) -> str:
    """The sentence for weights that are more than a rule allows."""
    return f"{what} take {size(weights)} of the {size(allowed)} that {rule} allows"
