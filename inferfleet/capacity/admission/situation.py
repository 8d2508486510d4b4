"""What is to be started, what runs, and what that leaves of each pool of memory; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from inferfleet.capacity.admission.loose import Loose, poured, settled, told
from inferfleet.capacity.admission.room import Room
from inferfleet.capacity.admission.untold import untold
from inferfleet.capacity.engines.given import Given
from inferfleet.capacity.held import Held, Holder
from inferfleet.capacity.machine import MAIN, cards_of, shares, spread
from inferfleet.capacity.term import Claim
from inferfleet.capacity.words import size

# Engines that map the file of their weights.
LLAMAS = frozenset({"llama-cpp", "ollama"})
# Others are named when they hold at least this share of a pool.
WORTH_NAMING = 0.02


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

    def need(self, service: str, least: bool = False) -> dict[str, int]:
        """What a service takes of each pool, {} where nobody can know.

        least: only what it cannot start without, and what does not depend on estimates.
        """
        claimed = self.claimed(service, least)
        if claimed is not None:
            return claimed
        limit = self.demands.get(service, {}).get("memory")
        return {MAIN: limit} if limit else self.use(service)

    def keeps(self, service: str) -> dict[str, int]:
        """What a service that stays will have of each pool: what it has or claims, if more.

        What fills itself into the free memory has done so once it has what it needs. Of one whose
        arithmetic is not trusted (admission: warn) what it has counts.
        """
        use, need = self.use(service), self.need(service)
        if use and not self.trusted(service):
            return use
        claim = self.claims.get(service)
        if self.moves(service):
            need = settled(use, need, self.places(service))
        found = {pool: max(use.get(pool, 0), need.get(pool, 0)) for pool in {**use, **need}}
        if claim is not None and claim.fills:
            least = self.need(service, least=True)
            pools = [MAIN] if claim.pool == "host" else self.places(service)
            filled = [p for p in pools if use.get(p, 0) >= least.get(p, 0)]
            found.update({pool: use.get(pool, 0) for pool in filled})
        return found

    def limits(self, service: str) -> tuple[str, ...]:
        """Why a service cannot start whatever else runs, as sentences."""
        claim, limit = self.claims.get(service), self.demands.get(service, {}).get("memory")
        if claim is None:
            return ()
        if not limit or claim.pool != "host" or claim.amount is None:
            return claim.limits
        taken = claim.amount if claim.least is None else claim.least
        certain = taken + claim.host - self._mapped(service)
        if certain <= limit:
            return claim.limits
        told = f"it takes {size(certain)} of main memory, and memory: allows {size(limit)}"
        return (*claim.limits, told)

    def _mapped(self, service: str) -> int:
        """Of its main memory what is a file of the page cache, which the kernel drops first."""
        demand, claim = self.demands.get(service, {}), self.claims.get(service)
        if claim is None or demand.get("engine") not in LLAMAS:
            return 0
        given = Given(demand.get("options", {}), {})
        mapped = given.flag("mmap", "use-mmap", default=True) and not given.flag("mlock")
        if not mapped or given.text("load-mode") not in ("", "auto", "mmap"):
            return 0
        return int(sum(term.amount for term in claim.terms if term.name == "weights"))

    def trusted(self, service: str) -> bool:
        """Whether the arithmetic of a service may refuse it; `admission: warn` says it may not."""
        return self.demands.get(service, {}).get("admission") != "warn"

    def asks(self, service: str) -> dict[str, int]:
        """What of each pool must be free before a service starts."""
        claim = self.claims.get(service)
        if claim is None or not claim.ask:
            return {}
        return dict.fromkeys(self.places(service), claim.ask)

    def places(self, service: str) -> list[str]:
        """The pools from which a service on GPUs takes its share."""
        if self.unified:
            return [MAIN]
        demand = self.demands.get(service, {})
        cards = cards_of(demand.get("gpus", "none"), self.held.cards)
        chosen = cards[: spread(demand, len(cards))]
        return [f"GPU {card.index}" for card in chosen if card.total is not None]

    def claimed(self, service: str, least: bool = False) -> dict[str, int] | None:
        demand, claim = self.demands.get(service, {}), self.claims.get(service)
        limit = demand.get("memory")
        if claim is None or claim.amount is None:
            return None
        taken = claim.least if least and claim.least is not None else claim.amount
        if claim.pool == "host":
            amount = taken + claim.host
            # Beyond its limit a service only has what the kernel may drop; else it is killed.
            most = max(limit, amount - self._mapped(service)) if limit else amount
            return {MAIN: min(amount, most)}
        # A limit bounds what the kernel charges to the service, not what CUDA takes.
        host = min(claim.host, limit) if limit else claim.host
        if self.unified:
            return {MAIN: taken + host}
        found = dict.fromkeys(self.places(service), taken)
        if claim.laid is not None:
            parts = claim.laid.least if least else claim.laid.amounts
            found = {p: n for p, n in zip(found, parts, strict=False) if n}
        return {**found, MAIN: host} if host else found

    def use(self, service: str) -> dict[str, int]:
        """What a service that runs has of each pool, also where the driver does not tell whose."""
        pools = self.pools(self.held.of(service))
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
                use = {
                    pool: min(use.get(pool, 0) - amount, 0)
                    for pool, amount in self.keeps(one).items()
                }
            for pool, amount in use.items():
                found[pool] = found.get(pool, 0) + amount
        return found

    def moves(self, service: str) -> bool:
        """Whether a service lays itself over its GPUs by what is free when it starts."""
        claim = self.claims.get(service)
        return bool(claim and claim.laid and claim.laid.where != "each" and not self.unified)

    def rooms(self, stopped: Iterable[str] = (), least: bool = False) -> list[Room]:
        """The arithmetic of every pool that a start takes from, once these are stopped.

        least: what an engine lays over several GPUs by itself lies where there is room for it.
        """
        if not least:
            return self._rooms({name: self.need(name) for name in self.acting}, frozenset(stopped))
        return self._poured(stopped)[0]

    def short(self) -> list[Room]:
        """The rooms that are too small for what is certain, with the estimates."""
        least, lacking = self._poured()
        zeros = {some.service: dict.fromkeys(some.pools, 0) for some in self._loose()}
        needs = {name: {**zeros.get(name, {}), **self.need(name)} for name in self.acting}
        return told(self._rooms(needs), least, lacking)

    def _poured(self, stopped: Iterable[str] = ()) -> tuple[list[Room], list[Loose]]:
        needs = {name: self.need(name, least=True) for name in self.acting}
        loose = self._loose()
        for some in loose:
            needs[some.service] = {**needs[some.service], **dict.fromkeys(some.pools, 0)}
        return poured(self._rooms(needs, frozenset(stopped)), loose)

    def _loose(self) -> list[Loose]:
        found = []
        for name in filter(self.moves, self.acting):
            laid, places = self.claims[name].laid, tuple(self.places(name))
            if laid is not None and places:
                one = laid.where == "one"
                most = max(laid.amounts) if one else sum(laid.amounts)
                found.append(Loose(name, places, sum(laid.least), most, one))
        return found

    def _rooms(
        self, needs: Mapping[str, Mapping[str, int]], gone: frozenset[str] = frozenset()
    ) -> list[Room]:
        asks = {service: self.asks(service) for service in self.acting}
        pools = dict.fromkeys(pool for need in needs.values() for pool in need)
        found = []
        for pool in pools:
            total, free = self.pool(pool)
            if not total:  # nobody says
                continue
            reserve = int(self.hardware.get("reserve") or 0) if pool == MAIN else 0
            ours = sum(self.use(service).get(pool, 0) for service in self.running)
            kept = {
                service: self.keeps(service).get(pool, 0)
                for service in self.staying
                if service not in gone
            }
            others = [
                (holder.label, amount)
                for holder in self.held.foreign
                if (amount := self.pools(holder).get(pool, 0)) >= WORTH_NAMING * total
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
                    max(total - free - ours, 0),
                    {service: ask[pool] for service, ask in asks.items() if pool in ask},
                )
            )
        return found

    @cached_property
    def _untold(self) -> dict[str, dict[str, int]]:
        return untold(self)

    def pool(self, pool: str) -> tuple[int, int]:
        for card in self.held.cards:
            if f"GPU {card.index}" == pool and card.total is not None:
                return card.total, card.total if card.free is None else card.free
        return self.held.total, self.held.available

    def pools(self, holder: Holder) -> dict[str, int]:
        pools = {f"GPU {index}": amount for index, amount in holder.gpus.items()}
        if self.unified:
            pools = {MAIN: holder.host + sum(holder.gpus.values())}
        elif holder.host:
            pools[MAIN] = holder.host
        return {pool: amount for pool, amount in pools.items() if amount}
