"""One invocation: the fleet, the machines chosen, and a session for each."""

from __future__ import annotations

import getpass
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from inferfleet.connect import open_host
from inferfleet.errors import FleetError
from inferfleet.release import Release
from inferfleet.schema.machine import Machine
from inferfleet.secrets import Redactor, Secret, resolve
from inferfleet.session import Session


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
        from inferfleet.select import select_machines, select_services
        from inferfleet.snapshot import fleet_of

        self.fleet = fleet_of(find_roots(overlay))
        self.machines = select_machines(self.fleet, list(hosts), list(groups))
        self.services: dict[str, frozenset[str] | None] = {}
        errors: list[FleetError] = []
        for name in self.machines:
            chosen = None
            if services:
                try:
                    chosen = frozenset(select_services(self.fleet.machines[name], list(services)))
                except FleetError as error:
                    errors.append(error)
            self.services[name] = chosen
        # With several machines a service has to be on one of them, not on all.
        if errors and len(errors) == len(self.machines):
            raise errors[0]
        if errors:
            self.machines = [n for n in self.machines if self.services[n] is not None]
        self._seen: list[Secret] = []
        self._redactor = Redactor(())
        self._password: str | None = None
        self._asking = threading.RLock()

    def machine(self, name: str) -> Machine:
        """The machine file of that name."""
        return self.fleet.machines[name]

    def secrets(self, name: str, lenient: bool = False) -> Mapping[str, Secret]:
        """The machine's secrets; lenient leaves out those that cannot be had now."""
        machine = self.machine(name)
        found: dict[str, Secret] = {}
        if not lenient:
            found = resolve(machine)
        for key in machine.secrets if lenient else ():
            with suppress(FleetError):
                found |= resolve(machine, [key])
        self._hide(found.values())
        return found

    def release(self, name: str, secrets: Mapping[str, Secret]) -> Release:
        """Everything rendered for one machine; secrets that are missing render as empty."""
        from inferfleet.render import render

        missing = {key: Secret("") for key in self.machine(name).secrets if key not in secrets}
        return render(self.fleet, name, {**missing, **secrets})

    def session(self, name: str, lenient: bool = False) -> Session:
        """A session with one machine; lenient is for tasks that only look or stop."""
        machine, secrets = self.machine(name), self.secrets(name, lenient)
        host = open_host(self.fleet.machines, name, self.sudo_password)
        modelfiles = {
            service: entry.modelfile.model_dump(exclude_none=True)
            for service, entry in machine.services.items()
            if entry.modelfile is not None
        }
        unknown = tuple(sorted(machine.secrets.keys() - secrets.keys()))
        # The login waits for the network and the machine, which is time to render in.
        with ThreadPoolExecutor(1) as side:
            login = side.submit(host.connect)
            release = self.release(name, secrets)
            login.result()
        return Session(host, release, machine.sudo, secrets, modelfiles, unknown)

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
