"""One invocation: the machines chosen, what is known of each, and a session for each."""

from __future__ import annotations

import getpass
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inferfleet.errors import FleetError
from inferfleet.hosts.connect import open_host
from inferfleet.hosts.early import Early
from inferfleet.release.draft import fill
from inferfleet.release.provenance import Provenance
from inferfleet.release.release import Release
from inferfleet.run.session import Session
from inferfleet.secrets import Redactor, Secret, Vault

if TYPE_CHECKING:
    from inferfleet.hostprep.setting import Ground
    from inferfleet.run.brief import Brief
    from inferfleet.schema.fleet import Fleet


class Run:
    """Loads and checks everything before the first connection; opens hosts on demand.

    Raises FleetError(s) with code 64 for mistakes in files and for unknown names.
    """

    def __init__(
        self,
        overlay: str | Path | None = None,
        hosts: Sequence[str] = (),
        groups: Sequence[str] = (),
        services: Sequence[str] = (),
    ) -> None:
        from inferfleet.paths import find_roots
        from inferfleet.run.select import select_machines, select_services
        from inferfleet.run.snapshot import Snapshot

        self._roots = find_roots(overlay)
        self._snapshot = Snapshot(self._roots)
        listing = self._snapshot.listing
        self.machines = select_machines(listing, list(hosts), list(groups))
        self.services: dict[str, frozenset[str] | None] = {}
        errors: list[FleetError] = []
        for name in self.machines:
            chosen = None
            if services:
                try:
                    chosen = frozenset(select_services(listing[name], list(services)))
                except FleetError as error:
                    errors.append(error)
            self.services[name] = chosen
        # With several machines a service has to be on one of them, not on all.
        if errors and len(errors) == len(self.machines):
            raise errors[0]
        if errors:
            self.machines = [n for n in self.machines if self.services[n] is not None]
        self.briefs = self._snapshot.briefs(self.machines)
        self._seen: list[Secret] = []
        self._redactor = Redactor(())
        self._password: str | None = None
        self._asking = threading.RLock()
        self._early: Early | None = None
        self._origins: dict[bool, Provenance] = {}

    @property
    def fleet(self) -> Fleet:
        """All files, loaded; only for what a brief does not say."""
        return self._snapshot.fleet

    def brief(self, name: str) -> Brief:
        """What is known of one of the chosen machines."""
        return self.briefs[name]

    def ground(self, name: str) -> Ground:
        """What is wanted of the host of one machine."""
        with self._asking:
            return self._snapshot.grounds([name])[name]

    def secrets(self, name: str, lenient: bool = False) -> Mapping[str, Secret]:
        """The machine's secrets; those that its release needs are fetched now, others when they
        are asked for. lenient leaves out those that cannot be had."""
        known = self.brief(name)
        vault = Vault(known.origins, self._hide, lenient)
        try:
            vault.fetch(sorted(known.draft.used))
        except FleetError as error:
            raise error.of(name) from None
        return vault

    def release(self, name: str, secrets: Mapping[str, Secret]) -> Release:
        """Everything rendered for one machine; secrets that are missing render as empty."""
        known = self.brief(name)
        needed = known.draft.used & known.origins.keys()
        return fill(known.draft, {key: secrets.get(key, Secret("")) for key in needed})

    def session(self, name: str, lenient: bool = False) -> Session:
        """A session with one machine; lenient is for tasks that only look or stop."""
        early = self.early()
        known, secrets = self.brief(name), self.secrets(name, lenient)
        release = self.release(name, secrets)
        host = open_host(name, known.reach, self.sudo_password, early)
        needed = known.draft.used & known.origins.keys()
        unknown = tuple(sorted(key for key in needed if key not in secrets))
        return Session(
            host,
            release,
            known.sudo,
            secrets,
            known.modelfiles,
            unknown,
            known.footings,
            known.budget,
            self.origin,
        )

    def early(self) -> Early:
        """Connections to the chosen machines, begun when first asked for."""
        with self._asking:
            if self._early is None:
                remote = {n: str(b.reach) for n, b in self.briefs.items() if b.reach.address}
                self._early = Early(self._snapshot.folder, remote)
                self._early.begin()
            return self._early

    def origin(self, applying: bool) -> Provenance:
        """Whose run this is and from which checkouts, with their changes when applying."""
        from inferfleet.apply.apply import operator
        from inferfleet.run.checkout import provenance

        with self._asking:
            if applying not in self._origins:
                self._origins[applying] = provenance(self._roots, operator(), dirty=applying)
            return self._origins[applying]

    def redact(self, text: str) -> str:
        """The text without any secret that this run has seen."""
        return self._redactor(text)

    def _hide(self, secrets: Iterable[Secret]) -> None:
        with self._asking:
            self._seen.extend(secrets)
            self._redactor = Redactor(self._seen)

    def sudo_password(self) -> str:
        """Asked for once per run, whatever the number of machines."""
        with self._asking:
            if self._password is None:
                try:
                    self._password = getpass.getpass("sudo password: ")
                except EOFError:
                    raise FleetError(
                        "sudo asks for a password and there is no terminal to ask on",
                        hint="run this on a terminal, or allow sudo without a password there",
                    ) from None
                self._hide([Secret(self._password)])
            return self._password
