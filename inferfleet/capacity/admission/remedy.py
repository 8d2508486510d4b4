"""The largest settings with which a service would fit; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from inferfleet.capacity.admission.situation import Situation
from inferfleet.capacity.engines.given import Given
from inferfleet.capacity.engines.rules import UTILIZATION
from inferfleet.capacity.term import Claim

MIB = 1 << 20
# Options and values that go together.
Setting = Mapping[str, float | int]


@dataclass(frozen=True)
class _Knob:
    """An option that takes less memory when it is smaller.

    names: its own and others it has. Tried are values from 1 to `most` times `unit`; usual: what
    the engine takes where nothing is said, 0 where that depends.
    """

    names: tuple[str, ...]
    unit: float
    most: int
    usual: float = 0

    def value(self, steps: int) -> float | int:
        return steps * int(self.unit) if self.unit >= 1 else round(steps * self.unit, 2)


_SHARES = {
    "vllm": _Knob(("gpu-memory-utilization", "device-memory-utilization"), 0.01, 95, UTILIZATION),
    "sglang": _Knob(("mem-fraction-static",), 0.01, 95),
    "tgi": _Knob(("cuda-memory-fraction",), 0.01, 100, 1),
}
_LENGTHS = {
    "vllm": _Knob(("max-model-len",), 256, 1 << 16),
    "llama-cpp": _Knob(("ctx-size", "c"), 256, 1 << 16),
    "ollama": _Knob(("num_ctx",), 256, 1 << 16),
}
_CACHE = _Knob(("kv-cache-memory-bytes",), 64 * MIB, 1 << 15)


def remedies(
    situation: Situation, service: str, reclaim: Callable[[Situation, str], Claim]
) -> tuple[Setting, ...]:
    """Settings of a service with which all that is to be started fits, each the largest such.

    reclaim: the claim of a service in a situation, whose demands have other options. Of several
    answers each does by itself. None where no setting helps.
    """
    demand = situation.demands.get(service, {})
    engine, options = demand.get("engine") or "", dict(demand.get("options", {}))

    def tried(changed: Setting) -> Situation:
        other = {**demand, "options": {**options, **changed}}
        made = replace(situation, demands={**situation.demands, service: other})
        return replace(made, claims={**made.claims, service: reclaim(made, service)})

    def roomy(changed: Setting) -> bool:
        one = tried(changed)
        return one.claims[service].amount is not None and all(r.fits for r in one.rooms())

    def fits(changed: Setting) -> bool:
        one = tried(changed)
        claim = one.claims[service]
        known = not one.limits(service) and not claim.unknown
        return known and roomy(changed) and _serves(claim)

    length = _LENGTHS.get(engine)
    found: list[Setting] = []
    for knob in _shares(engine, options):
        setting = _share(knob, options, roomy, fits)
        if setting and fits(setting):
            found.append(setting)
        elif setting and length and (longer := _longest(length, options, setting, fits)):
            found.append({**setting, **longer})
    if length and (alone := _longest(length, options, {}, fits)):
        found.append(alone)
    return tuple(found)


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number from 1 to most that fits; 0 if none does. What is smaller fits better."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def words(settings: Sequence[Setting]) -> str:
    """'would fit with max-model-len: 8192, or with gpu-memory-utilization: 0.86'."""
    each = [
        " and ".join(f"{name}: {value}" for name, value in setting.items()) for setting in settings
    ]
    return f"would fit with {', or with '.join(each)}" if each else ""


def _shares(engine: str, options: Mapping[str, Any]) -> tuple[_Knob, ...]:
    share = _SHARES.get(engine)
    if engine == "vllm" and Given(options, {}).value(*_CACHE.names) is not None:
        return (_CACHE, _SHARES[engine])
    return (share,) if share else ()


def _share(
    knob: _Knob,
    options: Mapping[str, Any],
    roomy: Callable[[Setting], bool],
    fits: Callable[[Setting], bool],
) -> Setting:
    """Less of it where there is no room for what is asked, a little more where that is too little.

    {} where neither helps.
    """
    name = _name(knob, options)
    current = Given(options, {}).number(name, default=knob.usual)
    if current and roomy({name: current}):
        more = range(int(current / knob.unit) + 1, knob.most + 1) if knob.unit < 1 else ()
        tried = ({name: knob.value(steps)} for steps in more)
        return next((setting for setting in tried if fits(setting)), {})
    steps = largest(lambda n: roomy({name: knob.value(n)}), knob.most)
    return {name: knob.value(steps)} if steps else {}


def _serves(claim: Claim) -> bool:
    """Whether by the estimates, too, a request of the longest context finds room."""
    amounts = {term.name.partition(",")[0]: term.amount for term in claim.terms}
    return amounts.get("KV cache", 1) > 0 and amounts.get("concurrency", 1) >= 1


def _longest(
    knob: _Knob, options: Mapping[str, Any], beside: Setting, fits: Callable[[Setting], bool]
) -> Setting:
    name = _name(knob, options)
    steps = largest(lambda n: fits({**beside, name: knob.value(n)}), knob.most)
    return {name: knob.value(steps)} if steps else {}


def _name(knob: _Knob, options: Mapping[str, Any]) -> str:
    """As it is written, or its own name."""
    written = (name for name in options if name.replace("_", "-") in knob.names)
    return next(written, knob.names[0])
