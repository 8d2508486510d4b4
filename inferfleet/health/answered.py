"""Whether a service has answered since it was started, as its machine remembers."""

from __future__ import annotations

from contextlib import suppress
from shlex import quote

from inferfleet.errors import FleetError
from inferfleet.hosts.host import Host
from inferfleet.remote import program

ASK_SECONDS = 30.0


def has_answered(host: Host, root: str, service: str, sudo: bool) -> bool:
    """Whether the start that runs now was seen ready; raises FleetError when nobody can be asked.

    A restart by Docker, systemd or the supervisor is another start.
    """
    return host.run(_script(root, "was_ready", service), sudo=sudo, timeout=ASK_SECONDS).exit == 0


def note_answered(host: Host, root: str, service: str, sudo: bool) -> None:
    """Note on the machine that the start which runs now is ready; where that fails, nothing is."""
    with suppress(FleetError):
        host.run(_script(root, "note_ready", service), sudo=sudo, timeout=ASK_SECONDS)


def _script(root: str, function: str, service: str) -> str:
    state = f"{root}/.inferbase"
    return program("ready", root=root, state=state) + f"{function} {quote(service)}\n"
