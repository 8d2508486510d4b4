"""GPU memory that the driver counts and no listed process has; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferfleet.capacity.machine import MAIN, cards_of

if TYPE_CHECKING:
    from inferfleet.capacity.admission.situation import Situation


def untold(situation: Situation) -> dict[str, dict[str, int]]:
    """What running services of ours take of it, by service and pool.

    Some drivers list no process or not what it has (in containers, under WSL2). In doubt it is
    ours: as much as a service claims, of one that lays itself over several GPUs as much as it
    claims of all, and evenly where nobody knows that.
    """
    held = situation.held
    cards = [card for card in held.cards if card.total is not None]
    pools = {f"GPU {card.index}": {card.index} for card in cards}
    if situation.unified:
        pools = {MAIN: {index for holder in held.holders for index in holder.gpus}}
    found: dict[str, dict[str, int]] = {}
    left: dict[str, int] = {}
    blind: dict[str, list[str]] = {}
    rest: dict[str, int] = {}
    for pool, indexes in pools.items():
        total, free = situation.pool(pool)
        known = sum(situation.pools(holder).get(pool, 0) for holder in held.holders)
        left[pool] = max(total - free - known, 0)
        for service in sorted(situation.running):
            holder, claimed = held.of(service), situation.claimed(service)
            gpus = situation.demands.get(service, {}).get("gpus", "none")
            asked = {card.index for card in cards_of(gpus, held.cards)}
            there = gpus != "none" if situation.unified else bool(asked & indexes)
            if not there or any(holder.gpus.get(index) for index in indexes):
                continue
            if claimed is None:
                blind.setdefault(pool, []).append(service)
                continue
            lacks = max(claimed.get(pool, 0) - situation.pools(holder).get(pool, 0), 0)
            amount = min(lacks, left[pool])
            found.setdefault(service, {})[pool] = amount
            left[pool] -= amount
            rest[service] = rest.get(service, 0) + lacks - amount
    for service, lacks in rest.items():
        for pool in situation.places(service) if situation.moves(service) else ():
            amount = min(lacks, left[pool]) if pool in found[service] else 0
            found[service][pool] = found[service].get(pool, 0) + amount
            left[pool] -= amount
            lacks -= amount
    for pool, services in blind.items():
        for service in services:
            found.setdefault(service, {})[pool] = left[pool] // len(services)
    return found
