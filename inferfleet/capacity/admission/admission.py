"""Does what is to be started fit beside what runs, and whom could it replace? Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from inferfleet.capacity.admission.room import Room
from inferfleet.capacity.admission.situation import Situation
from inferfleet.capacity.machine import MAIN
from inferfleet.capacity.words import series, size
from inferfleet.errors import FleetError

# Above this many services that may be stopped, sets are no longer tried one by one.
MOST_TRIED = 12


@dataclass(frozen=True)
class Verdict:
    """problems: what refuses the start; notes: what would, were the arithmetic trusted, and what
    is doubtful. evict: service -> why it is stopped. room: bytes of main memory that must be
    available before anything is started."""

    problems: tuple[FleetError, ...] = ()
    evict: Mapping[str, str] = field(default_factory=dict)
    room: int = 0
    notes: tuple[str, ...] = ()


def decide(situation: Situation, evict: bool, remedies: Mapping[str, str] | None = None) -> Verdict:
    """Whether the start may go on. evict: services that are not wanted may be stopped for it.

    Refused is only what cannot start without more memory, whatever is estimated of it. remedies:
    by service, with which settings it would fit.
    """
    known = remedies or {}
    problems, notes = [], []
    for service in situation.acting:
        for limit in situation.limits(service):
            told = _told(service, known, f"`invoke capacity --service {service}` shows every term")
            problem = FleetError(f"{service} does not fit: {limit}", hint=told)
            if situation.trusted(service):
                problems.append(problem)
            else:
                notes.append(_overridden([service], problem))
    rooms = situation.rooms()
    short = situation.short()
    tight = [room for room in rooms if not room.fits]
    if not tight and not short:
        return Verdict(tuple(problems), notes=tuple(notes))
    chosen = enough(situation) if short or evict else None
    if chosen and evict and not problems:
        names = series(situation.acting)
        of = short or tight
        why = {name: f"makes room for {names}: {_freed(situation, name, of)}" for name in chosen}
        fresh = sum(_fresh(situation, name) for name in situation.acting)
        return Verdict(evict=why, room=fresh, notes=tuple(notes))
    if not short:
        notes += [f"whether it fits is doubtful: {room.words(True)}" for room in tight]
        return Verdict(tuple(problems), notes=tuple(notes))
    hint = _hint(situation, chosen, short)
    terms = [words for service in situation.acting if (words := _terms(situation, service))]
    for room in short:
        who = [name for name, amount in {**room.asks, **room.needs}.items() if amount]
        what = f"{series(who)} {'do' if len(who) > 1 else 'does'} not fit: "
        sums = f" [{'; '.join(terms)}]" if terms else ""
        problem = FleetError(
            what + room.words(len(who) > 1) + sums, hint=_told(who[0], known, hint, who[1:])
        )
        overridden = [name for name in who if not situation.trusted(name)]
        if overridden and room.without(overridden).fits:
            notes.append(_overridden(overridden, problem))
        else:
            problems.append(problem)
    return Verdict(tuple(problems), notes=tuple(notes))


def _told(service: str, remedies: Mapping[str, str], hint: str, more: Sequence[str] = ()) -> str:
    said = [f"{name} {remedies[name]}" for name in (service, *more) if name in remedies]
    return "; ".join([*said, hint])


def _overridden(services: Sequence[str], problem: FleetError) -> str:
    return f"started all the same, admission: warn of {series(services)}: {problem.what}"


def enough(situation: Situation) -> tuple[str, ...] | None:
    """The fewest services whose stop makes room, of several sets the one that frees least.

    Room for all that the newcomers take, or if there cannot be as much for what they need.
    """
    return _enough(situation, least=False) or _enough(situation, least=True)


def _enough(situation: Situation, least: bool) -> tuple[str, ...] | None:
    free = {service: sum(_weight(situation, service)) for service in situation.may_stop()}
    names = sorted(free, key=lambda name: (free[name], name))
    if not all(room.fits for room in situation.rooms(names, least)):
        return None
    if len(names) > MOST_TRIED:
        return _fewer(situation, names, least)
    for count in range(1, len(names) + 1):
        sets = sorted(combinations(names, count), key=lambda some: sum(free[n] for n in some))
        for some in sets:
            if all(room.fits for room in situation.rooms(some, least)):
                return tuple(sorted(some))
    return None


def _fewer(situation: Situation, names: list[str], least: bool) -> tuple[str, ...]:
    """All of them but those without which there is room enough, the smallest left out first."""
    chosen = list(names)
    for name in names:
        rest = [one for one in chosen if one != name]
        if all(room.fits for room in situation.rooms(rest, least)):
            chosen = rest
    return tuple(sorted(chosen))


def _fresh(situation: Situation, service: str) -> int:
    """Main memory that must be free beside what a service has, which its replacement gives back."""
    need, use = situation.need(service).get(MAIN, 0), situation.use(service).get(MAIN, 0)
    return max(need - use, situation.asks(service).get(MAIN, 0) - use, 0)


def _weight(situation: Situation, service: str) -> list[int]:
    use, need = situation.use(service), situation.need(service)
    return [max(use.get(pool, 0), need.get(pool, 0)) for pool in {*use, *need}]


def _freed(situation: Situation, service: str, short: Sequence[Room]) -> str:
    return series(
        f"{size(room.kept[service])} of {room.pool}" for room in short if service in room.kept
    )


def _terms(situation: Situation, service: str) -> str:
    """The claim as a sum: 'a: weights 30 GiB + KV cache 66.25 GiB'."""
    claim = situation.claims.get(service)
    if claim is None or claim.amount is None:
        limit = situation.demands.get(service, {}).get("memory")
        return f"{service}: {size(limit)} is its memory limit" if limit else ""
    parts = [f"{term.name} {size(term.amount)}" for term in claim.terms if term.unit == "bytes"]
    if claim.pool == "device" and claim.host and parts:
        parts.append(f"main memory of its processes {size(claim.host)}")
    most = ", of the GPU that gets most" if claim.laid else ""
    return f"{service}{most}: {', '.join(parts)}" if parts else ""


def _hint(situation: Situation, chosen: tuple[str, ...] | None, short: Sequence[Room]) -> str:
    if chosen:
        names = series(f"{name} ({_freed(situation, name, short)})" for name in chosen)
        return f"--evict stops {names} for it; `invoke down --service NAME` does so by hand"
    never = [
        name
        for name in situation.staying
        if situation.demands.get(name, {}).get("evict") == "never"
        and any(name in room.kept for room in short)
    ]
    wanted = [
        name
        for name in situation.staying
        if name in situation.wanted and any(name in room.kept for room in short)
    ]
    said = "stopping what may be stopped makes too little room"
    if not situation.may_stop():
        said = "nothing here may be stopped for it"
    if never:
        said += f"; evict: never protects {series(never)}"
    if wanted:
        said += f"; {series(wanted)} should run, too: name what you want with --service"
    return f"{said}; `invoke capacity` shows every term"
