"""Whether services fit, as far as it can be known, and the sentence that says so; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inferfleet.capacity.admission.remedy import Setting, words
from inferfleet.capacity.admission.room import Room
from inferfleet.capacity.admission.situation import Situation
from inferfleet.capacity.facts import Known
from inferfleet.capacity.words import series


@dataclass(frozen=True)
class Verdict:
    """fits: None when it cannot be known. why: the rest of the sentence. remedies: settings with
    each of which it would fit."""

    fits: bool | None
    why: str
    rooms: tuple[Room, ...] = ()
    remedies: tuple[Setting, ...] = ()


def judge(situation: Situation, known: Mapping[str, Known]) -> Verdict:
    """Whether the services of situation.acting fit at once, beside those that stay.

    They do not if what they need for certain is not there. They do if all is known of them, and
    there is room for the estimates, too.
    """
    many = len(situation.acting) > 1
    limits = [
        f"{name}: {limit}" if many else limit
        for name in situation.acting
        for limit in situation.limits(name)
    ]
    rooms = tuple(situation.rooms())
    short = situation.short()
    blind = [told for name in situation.acting if (told := _unknown(situation, name, known, many))]
    if limits or short:
        said = [*limits, *(room.words(many) for room in short), *blind]
        return Verdict(False, "; ".join(said), rooms)
    if not rooms and any(situation.need(name) for name in situation.acting):
        blind.append("no hardware file says what memory the machine has; --live asks it")
    if blind:
        return Verdict(None, "; ".join(blind), rooms)
    if tight := [room for room in rooms if not room.fits]:
        said = [f"by the estimates {room.words(many)}" for room in tight]
        return Verdict(None, "; ".join(said), rooms)
    return Verdict(True, "; ".join(room.words(many) for room in rooms), rooms)


def _unknown(
    situation: Situation, name: str, known: Mapping[str, Known], brief: bool = False
) -> str:
    """What cannot be told of a service's needs, "" when everything can; brief: without why."""
    claim, demand = situation.claims.get(name), situation.demands.get(name, {})
    blind = claim is None or claim.amount is None
    model = known.get(name)
    if model and model.shape is None:
        return f"the model of {name} could not be read" + ("" if brief else f": {model.why}")
    if not situation.need(name):
        return f"what {name} takes is not known; memory: in its machine file declares it"
    if blind and demand.get("gpus", "none") != "none":
        # A memory limit says nothing about the GPU, also where CPU and GPU share one memory.
        return f"what {name} takes of its GPU is not known"
    return f"{name}: {claim.unknown}" if claim and claim.unknown else ""


def sentence(names: Sequence[str], verdict: Verdict) -> str:
    """'a and b do not fit because ...'."""
    who, many = series(names), len(names) > 1
    if verdict.fits is None:
        return f"{who}: not known whether {'they fit' if many else 'it fits'}: {verdict.why}"
    if verdict.fits:
        return f"{who} {'fit' if many else 'fits'}: {verdict.why}"
    return f"{who} {'do' if many else 'does'} not fit because {verdict.why}"


def remedy(name: str, verdict: Verdict) -> str:
    """'NAME would fit with ...', or ""."""
    return f"{name} {words(verdict.remedies)}" if verdict.remedies else ""
