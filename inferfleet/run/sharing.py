"""Models that several machines of one run want: fetched once for each site, then copied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from inferfleet.errors import LOCKED, FleetError
from inferfleet.models.observe import fits, parse_observed
from inferfleet.models.transfer.depot import Depot
from inferfleet.models.transfer.fetch import Brought, bring
from inferfleet.models.transfer.talk import LockedError
from inferfleet.run.turns import Turns

if TYPE_CHECKING:
    from inferfleet.models.need import ModelNeed
    from inferfleet.models.progress import Progress
    from inferfleet.models.transfer.fetch import Supply
    from inferfleet.models.transfer.peer import Holder
    from inferfleet.observe.observed import Observed
    from inferfleet.run.session import Session


class Sharing:
    """Between the threads that change the machines of one run.

    sites: machine -> site, only of those that have one; addresses: machine -> its address for
    machines of its site, "" for the one that we use.
    """

    def __init__(
        self,
        sites: Mapping[str, str],
        addresses: Mapping[str, str],
        depot: Depot | None = None,
    ) -> None:
        self._depot, self._addresses = depot or Depot(sites), addresses
        self._turns = Turns()

    def offer(self, session: Session, observed: Observed) -> None:
        """What this machine has whole may be copied from now on."""
        if not self._depot.shares(session.host.name):
            return
        states = parse_observed(observed.model_lines)
        for need in session.release.models:
            state = states.get(need.key)
            stamp = state.stamp if state and state.present else None
            if need.directory and stamp and fits(need, stamp):
                self._stock(session, need, Brought(False, stamp))

    def bring(
        self,
        session: Session,
        need: ModelNeed,
        progress: Progress,
        update: bool = False,
        closed: Callable[[Holder], str] = lambda _: "",
    ) -> Brought:
        """As fetch.bring, but from a machine of the site that has the model, or waits for one
        that is fetching it; a copy that fails falls back to the next machine, or the source. A
        lock that another machine of this run holds, on a disk that both see, is waited for.
        closed: why the two cannot copy directly, where that is known."""
        machine, bad, done = session.host.name, set[str](), False
        try:
            while not done:
                # What is a path on the machine comes from nobody; only its aliases are made.
                holder = None
                if need.directory:
                    holder = self._depot.holder(
                        machine, need.key, lambda other: progress.note(f"waits for {other}"), bad
                    )
                why = closed(holder) if holder else ""
                try:
                    brought = self._bring(session, need, progress, update, holder, why)
                    done = True
                except FleetError as error:
                    if holder is None or error.code == LOCKED:
                        raise
                    bad.add(holder.host.name)
                    progress.note(f"not copied from {holder.host.name}: {error.what}")
        finally:
            if not done:
                self._depot.give_up(machine, need.key)
        self._stock(session, need, brought)
        return brought

    def _bring(
        self,
        session: Session,
        need: ModelNeed,
        progress: Progress,
        update: bool,
        holder: Holder | None,
        closed: str,
    ) -> Brought:
        supply = _copy(holder, session, progress, closed) if holder else None
        with self._turns.turn(session.host.name, need.key) as turn:
            while True:
                try:
                    return bring(
                        session.host, need, progress=progress, secrets=session.secrets,
                        update=update, sudo=session.sudo, root=session.release.root, supply=supply,
                        like=holder.stamp.store if holder else "",
                        taken=lambda owner: self._turns.taken(turn, owner),
                    )  # fmt: skip
                except LockedError as error:
                    if not self._turns.wait(
                        turn, need.key, error.owner,
                        lambda other: progress.note(f"waits for {other}, at the same disk"),
                    ):  # fmt: skip
                        raise

    def leave(self, machine: str) -> None:
        """The machine brings nothing more."""
        self._depot.give_up(machine)

    def _stock(self, session: Session, need: ModelNeed, brought: Brought) -> None:
        name = session.host.name
        if brought.stamp is None or not self._depot.shares(name):
            return
        from inferfleet.models.transfer.peer import Holder

        directory = f"{need.directory.rpartition('/')[0]}/{brought.stamp.store}"
        here = Holder(
            session.host, directory, brought.stamp, session.sudo, self._addresses.get(name, "")
        )
        self._depot.stock(name, need.key, here)


def _copy(holder: Holder, session: Session, progress: Progress, closed: str) -> Supply:
    # Loads Fabric, which a run on this machine alone has no use for.
    from inferfleet.models.transfer.peer import copy_of

    return copy_of(holder, session.host, progress, closed)
