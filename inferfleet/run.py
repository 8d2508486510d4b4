"""One invocation: the fleet, the machines chosen, and a session for each."""

from __future__ import annotations

import getpass
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from inferfleet.connect import absolute_root, open_host
from inferfleet.errors import FleetError
from inferfleet.release import Release
from inferfleet.schema.fleet import Fleet
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
        from inferfleet.load import load_fleet
        from inferfleet.paths import find_roots
        from inferfleet.select import select_machines, select_services

        self.fleet = _with_absolute_roots(load_fleet(find_roots(overlay)))
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
        self.redactor = Redactor(())
        self._password: str | None = None
        self._asking = threading.Lock()

    def machine(self, name: str) -> Machine:
        """The machine file of that name."""
        return self.fleet.machines[name]

    def secrets(self, name: str, lenient: bool = False) -> Mapping[str, Secret]:
        """The machine's secrets; lenient leaves out those that cannot be had now."""
        found: dict[str, Secret] = {}
        for key, ref in self.machine(name).secrets.items():
            try:
                found.update(resolve(name, {key: ref}))
            except FleetError:
                if not lenient:
                    raise
        self.redactor = self.redactor.with_secrets(found.values())
        return found

    def release(self, name: str, secrets: Mapping[str, Secret]) -> Release:
        """Everything rendered for one machine; secrets that are missing render as empty."""
        from inferfleet.render import render

        missing = {key: Secret("") for key in self.machine(name).secrets if key not in secrets}
        return render(self.fleet, name, {**missing, **secrets})

    def session(self, name: str, lenient: bool = False) -> Session:
        """A session with one machine; lenient is for tasks that only look or stop."""
        secrets = self.secrets(name, lenient)
        host = open_host(self.fleet.machines, name, self.sudo_password)
        return Session(host, self.release(name, secrets), self.machine(name).sudo, secrets)

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
                self.redactor = self.redactor.with_secrets([Secret(self._password)])
            return self._password


def _with_absolute_roots(fleet: Fleet) -> Fleet:
    """`~/` in the local machine's paths replaced by the home directory."""
    from dataclasses import replace

    machines = {}
    for name, machine in fleet.machines.items():
        update = {"root": absolute_root(machine.root)}
        if machine.models:
            update["models"] = absolute_root(machine.models)
        machines[name] = machine.model_copy(update=update) if machine.local else machine
    return replace(fleet, machines=machines)
