"""What is to be started, what runs, and what that leaves of each pool of memory; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from inferfleet.capacity.held import Held, Holder
from inferfleet.capacity.machine import MAIN, cards_of, shares, spread
from inferfleet.capacity.term import Claim
from inferfleet.capacity.words import series, size

# Others are named when they hold at least this share of a pool.
WORTH_NAMING = 0.02

Amounts = Mapping[str, int]


@dataclass(frozen=True)
class Room:
    """The arithmetic of one pool of memory, in bytes.

    needs: of the services to be started. kept: of those of ours that stay. share: the host's own
    (the larger of the reserve and what others have); others: who has most of it.
    """

    pool: str
    total: int
    share: int
    reserve: int
    needs: Amounts
    kept: Amounts
    others: tuple[tuple[str, int], ...] = ()

    @property
    def need(self) -> int:
        return sum(self.needs.values())

    @property
    def left(self) -> int:
        return self.total - self.share - sum(self.kept.values())

    @property
    def fits(self) -> bool:
        return self.need <= self.left

    def words(self, named: bool = False) -> str:
        """Why it does not fit, or that it does, as a sentence without its end.

        named: a service that is alone here is one of several that were asked about.
        """
        needs = {name: amount for name, amount in self.needs.items() if amount}
        own = f"{series(needs) if named else 'it'} needs {size(self.need)}"
        if len(needs) > 1:
            each = series(f"{name} {size(amount)}" for name, amount in needs.items())
            own = f"together they need {size(self.need)} ({each})"
        less = [f"{size(self.share)} {self._share_words()}"] if self.share else []
        less += [f"{size(amount)} of {name}" for name, amount in self.kept.items() if amount]
        place = f"{size(max(self.left, 0))} of {size(self.total)} {self.pool} "
        place += "are left" + (f" (less {series(less)})" if less else "")
        return f"{own}, and {place}"

    def _share_words(self) -> str:
        if self.share <= self.reserve:
            return "kept for the host"
        named = [f"{label} {size(amount)}" for label, amount in self.others]
        return "of others" + (f": {series(named)}" if named else "")


@dataclass(frozen=True)
class Situation:
    """Everything that admission decides on.

    demands and hardware: as make_budget has them. claims: of the services that start or stay.
    acting: services to be started or replaced; running: ours that are up; leaving: of them those
    that the plan removes anyhow. wanted: running ones that the run itself wants up.
    """

    demands: Mapping[str, Mapping[str, Any]]
    hardware: Mapping[str, Any]
    claims: Mapping[str, Claim]
    held: Held
    acting: Sequence[str]
    running: frozenset[str]
    leaving: frozenset[str] = frozenset()
    wanted: frozenset[str] = frozenset()

    @cached_property
    def unified(self) -> bool:
        return shares(self.hardware, self.held)

    @property
    def staying(self) -> list[str]:
        """Services of ours that run on."""
        return sorted(self.running - self.leaving - set(self.acting))

    def may_stop(self) -> list[str]:
        """Services that can be stopped to make room."""
        return [
            name
            for name in self.staying
            if name not in self.wanted and self.demands.get(name, {}).get("evict") != "never"
        ]

    def need(self, service: str) -> dict[str, int]:
        """What a service takes of each pool, {} where nobody can know."""
        claimed = self._claimed(service)
        if claimed is not None:
            return claimed
        limit = self.demands.get(service, {}).get("memory")
        return {MAIN: limit} if limit else self.use(service)

    def _claimed(self, service: str) -> dict[str, int] | None:
        demand, claim = self.demands.get(service, {}), self.claims.get(service)
        limit = demand.get("memory")
        if claim is None or claim.amount is None:
            return None
        if claim.pool == "host":
            amount = claim.amount + claim.host
            return {MAIN: min(amount, limit) if limit else amount}
        # A limit bounds what the kernel charges to the service, not what CUDA takes.
        host = min(claim.host, limit) if limit else claim.host
        if self.unified:
            return {MAIN: claim.amount + host}
        cards = cards_of(demand.get("gpus", "none"), self.held.cards)
        chosen = cards[: spread(demand.get("kind", ""), demand.get("options", {}), len(cards))]
        found = {f"GPU {card.index}": claim.amount for card in chosen if card.total is not None}
        return {**found, MAIN: host} if host else found

    def use(self, service: str) -> dict[str, int]:
        """What a service that runs has of each pool, also where the driver does not tell whose."""
        pools = self._pools(self.held.of(service))
        for pool, amount in self._untold.get(service, {}).items():
            pools[pool] = pools.get(pool, 0) + amount
        return pools

    def freed(self, service: str, stopped: Iterable[str] = ()) -> dict[str, int]:
        """What of each pool will be free for a service beside what is free now, maybe less than 0.

        stopped: services that make room. One that stays has chosen by what was free when it
        started: to that only its own is added. For one that is to be started others go, and
        those that stay still grow to what they claim.
        """
        if service in self.running and service not in self.acting:
            return self.use(service)
        gone = {*self.acting, *self.leaving, *stopped}
        found: dict[str, int] = {}
        for one in self.running:
            use = self.use(one)
            if one not in gone:
                need = self.need(one)
                use = {pool: min(use.get(pool, 0) - need[pool], 0) for pool in need}
            for pool, amount in use.items():
                found[pool] = found.get(pool, 0) + amount
        return found

    def rooms(self, stopped: Iterable[str] = ()) -> list[Room]:
        """The arithmetic of every pool that a start takes from, once these are stopped."""
        needs = {service: self.need(service) for service in self.acting}
        pools = dict.fromkeys(pool for need in needs.values() for pool in need)
        gone = set(stopped)
        found = []
        for pool in pools:
            total, free = self._pool(pool)
            if not total:  # nobody says
                continue
            reserve = int(self.hardware.get("reserve") or 0) if pool == MAIN else 0
            ours = sum(self.use(service).get(pool, 0) for service in self.running)
            kept = {
                service: max(self.use(service).get(pool, 0), self.need(service).get(pool, 0))
                for service in self.staying
                if service not in gone
            }
            others = [
                (holder.label, amount)
                for holder in self.held.foreign
                if (amount := self._pools(holder).get(pool, 0)) >= WORTH_NAMING * total
            ]
            found.append(
                Room(
                    pool,
                    total,
                    max(reserve, total - free - ours),
                    reserve,
                    {service: need[pool] for service, need in needs.items() if pool in need},
                    {service: amount for service, amount in kept.items() if amount},
                    tuple(sorted(others, key=lambda one: (-one[1], one[0]))[:3]),
                )
            )
        return found

    @cached_property
    def _untold(self) -> dict[str, dict[str, int]]:
        """Of GPU memory that no listed process has: what running services of ours take of it.

        Some drivers list no process or not what it has (in containers, under WSL2). In doubt it
        is ours: as much as a service claims, and evenly where nobody knows that.
        """
        found: dict[str, dict[str, int]] = {}
        cards = [card for card in self.held.cards if card.total is not None]
        pools = {f"GPU {card.index}": {card.index} for card in cards}
        if self.unified:
            pools = {MAIN: {index for holder in self.held.holders for index in holder.gpus}}
        for pool, indexes in pools.items():
            total, free = self._pool(pool)
            told = sum(self._pools(holder).get(pool, 0) for holder in self.held.holders)
            left = max(total - free - told, 0)
            blind = []
            for service in sorted(self.running):
                holder, claimed = self.held.of(service), self._claimed(service)
                gpus = self.demands.get(service, {}).get("gpus", "none")
                asked = {card.index for card in cards_of(gpus, self.held.cards)}
                there = gpus != "none" if self.unified else bool(asked & indexes)
                if not there or any(holder.gpus.get(index) for index in indexes):
                    continue
                if claimed is None:
                    blind.append(service)
                    continue
                own = self._pools(holder).get(pool, 0)
                amount = min(max(claimed.get(pool, 0) - own, 0), left)
                found.setdefault(service, {})[pool] = amount
                left -= amount
            for service in blind:
                found.setdefault(service, {})[pool] = left // len(blind)
        return found

    def _pool(self, pool: str) -> tuple[int, int]:
        for card in self.held.cards:
            if f"GPU {card.index}" == pool and card.total is not None:
                return card.total, card.total if card.free is None else card.free
        return self.held.total, self.held.available

    def _pools(self, holder: Holder) -> dict[str, int]:
        pools = {f"GPU {index}": amount for index, amount in holder.gpus.items()}
        if self.unified:
            pools = {MAIN: holder.host + sum(holder.gpus.values())}
        elif holder.host:
            pools[MAIN] = holder.host
        return {pool: amount for pool, amount in pools.items() if amount}
