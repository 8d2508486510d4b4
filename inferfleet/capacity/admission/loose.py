"""What engines lay over several pools by themselves: where it may come to lie; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from inferfleet.capacity.admission.room import Room
from inferfleet.capacity.words import series


@dataclass(frozen=True)
class Loose:
    """Bytes that a service needs of these pools together, or as a whole of one of them.

    amount: what it cannot start without; all: with the estimates.
    """

    service: str
    pools: tuple[str, ...]
    amount: int
    all: int
    one: bool = False


def poured(rooms: Sequence[Room], loose: Iterable[Loose]) -> tuple[list[Room], list[Loose]]:
    """(the rooms with that in them, what has no room). It lies where there is room for it.

    What has to be in one place is placed first, the largest where it fills best, so that nothing
    is short of room that any order of starts would give it.
    """
    found = {room.pool: room for room in rooms}
    lacking = []
    for some in sorted(loose, key=lambda one: (not one.one, -one.amount)):
        left = {
            pool: max(found[pool].left - found[pool].need, 0)
            for pool in some.pools
            if pool in found
        }
        if not left:
            continue
        parts = _whole(left, some.amount) if some.one else _shared(left, some.amount)
        if any(amount > left[pool] for pool, amount in parts.items()):
            lacking.append(some)
        for pool, amount in parts.items():
            needs = {**found[pool].needs, some.service: amount}
            found[pool] = replace(found[pool], needs=needs)
    return list(found.values()), lacking


def told(rooms: Sequence[Room], least: Sequence[Room], lacking: Sequence[Loose]) -> list[Room]:
    """Of the rooms with the estimates those that are too small for what is certain, to be told.

    Pools that are too small together are one room.
    """
    short = {room.pool for room in least if not room.fits}
    found, covered = [], set()
    for some in lacking:
        pools = [room for room in rooms if room.pool in some.pools]
        if some.one:
            fullest = next(r for r in least if r.needs.get(some.service) and r.pool in some.pools)
            found.append(replace(fullest, needs={**fullest.needs, some.service: some.all}))
            covered.add(fullest.pool)
        else:
            found.append(_together(pools))
            covered |= {room.pool for room in pools}
    return [*(room for room in rooms if room.pool in short - covered), *found]


def settled(
    use: Mapping[str, int], need: Mapping[str, int], pools: Sequence[str]
) -> dict[str, int]:
    """What a service that runs and laid itself out will have of each pool.

    It has chosen its places when it started: only what it still lacks of all that it needs comes
    to lie where it seems to be short.
    """
    lacks = {pool: max(need.get(pool, 0) - use.get(pool, 0), 0) for pool in pools}
    total = sum(need.get(pool, 0) - use.get(pool, 0) for pool in pools)
    short = sum(lacks.values())
    rest = max(min(total, short), 0)
    found = {pool: use.get(pool, 0) + lacks[pool] * rest // (short or 1) for pool in pools}
    return {**need, **found}


def _shared(left: Mapping[str, int], amount: int) -> dict[str, int]:
    """By what is left of each; where nothing is, evenly."""
    total = sum(left.values())
    if not total:
        return {pool: -(-amount // len(left)) for pool in left}
    parts = {pool: amount * free // total for pool, free in left.items()}
    rest = amount - sum(parts.values())
    for pool in sorted(left, key=lambda one: parts[one] - left[one]):
        more = min(rest, max(left[pool] - parts[pool], 0))
        parts[pool] += more
        rest -= more
    parts[max(left, key=lambda one: left[one])] += rest
    return parts


def _whole(left: Mapping[str, int], amount: int) -> dict[str, int]:
    enough = [pool for pool, free in left.items() if free >= amount]
    if enough:
        return {min(enough, key=lambda pool: left[pool]): amount}
    return {max(left, key=lambda pool: left[pool]): amount}


def _together(rooms: Sequence[Room]) -> Room:
    def summed(each: Iterable[Mapping[str, int]]) -> dict[str, int]:
        found: dict[str, int] = {}
        for one in each:
            for name, amount in one.items():
                found[name] = found.get(name, 0) + amount
        return found

    others = summed(dict(room.others) for room in rooms)
    return Room(
        series(room.pool for room in rooms),
        sum(room.total for room in rooms),
        sum(room.share for room in rooms),
        sum(room.reserve for room in rooms),
        summed(room.needs for room in rooms),
        summed(room.kept for room in rooms),
        tuple(sorted(others.items(), key=lambda one: (-one[1], one[0]))[:3]),
        sum(room.used for room in rooms),
    )
