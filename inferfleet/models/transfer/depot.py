"""One download for each model and site: who fetches, and who copies from whom afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inferfleet.models.transfer.peer import Holder


class Depot:
    """Shared by the threads that update the machines of one run; key: a model's ModelNeed.key.

    sites: machine -> site, only of machines that have one. A machine without a site always
    fetches for itself.
    """

    def __init__(self, sites: Mapping[str, str]) -> None:
        self._sites = sites
        self._changed = threading.Condition()
        self._holders: dict[tuple[str, str], list[Holder]] = {}
        self._fetching: dict[tuple[str, str], str] = {}

    def shares(self, machine: str) -> bool:
        """Whether the machine has a site."""
        return machine in self._sites

    def appoint(self, machine: str, key: str) -> None:
        """The machine will fetch for its site; the first one that is named for a key counts."""
        if machine in self._sites:
            self._fetching.setdefault((self._sites[machine], key), machine)

    def stock(self, machine: str, key: str, holder: Holder) -> None:
        """A machine has the model; its site may copy from it from now on."""
        if machine in self._sites:
            with self._changed:
                place = (self._sites[machine], key)
                self._holders.setdefault(place, []).append(holder)
                if self._fetching.get(place) == machine:
                    del self._fetching[place]
                self._changed.notify_all()

    def holder(
        self,
        machine: str,
        key: str,
        waits: Callable[[str], None] = lambda _: None,
        but: Collection[str] = (),
    ) -> Holder | None:
        """From whom to copy; waits while another machine of the site fetches the model.

        None: the machine fetches it itself. waits: told of each machine that is waited for.
        but: machines that it cannot copy from.
        """
        if machine not in self._sites:
            return None
        place, told = (self._sites[machine], key), ""
        with self._changed:
            while True:
                found = [
                    h for h in self._holders.get(place, []) if h.host.name not in {machine, *but}
                ]
                if found:
                    # Copies are spread over all who have it.
                    chosen = found[0]
                    self._holders[place].remove(chosen)
                    self._holders[place].append(chosen)
                    return chosen
                fetcher = self._fetching.setdefault(place, machine)
                if fetcher == machine:
                    return None
                if fetcher != told:
                    waits(fetcher)
                    told = fetcher
                self._changed.wait()

    def give_up(self, machine: str, key: str | None = None) -> None:
        """The machine will not bring what it was to fetch (None: nothing more); others may."""
        with self._changed:
            for place, fetcher in list(self._fetching.items()):
                if fetcher == machine and key in (None, place[1]):
                    del self._fetching[place]
            self._changed.notify_all()
