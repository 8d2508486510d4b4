"""From where a machine is to a Host that can be asked things."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inferfleet.hosts.host import Host

if TYPE_CHECKING:
    from inferfleet.hosts.early import Early
    from inferfleet.schema.machine import Machine


@dataclass(frozen=True)
class Reach:
    """Where a machine is and how to log in there; None leaves a value to ssh_config.

    address: None for this machine. jump: hops as ssh -J takes them.
    """

    address: str | None
    user: str | None = None
    port: int | None = None
    jump: str | None = None


def reach_of(machines: Mapping[str, Machine], name: str) -> Reach:
    """How a machine of the inventory is reached."""
    machine = machines[name]
    return Reach(machine.address, machine.user, machine.port, _jump(machines, machine.jump))


def open_host(
    name: str,
    reach: Reach,
    sudo_password: Callable[[], str] | None = None,
    early: Early | None = None,
) -> Host:
    """The host of a machine, not connected yet. sudo_password is asked at most when needed.

    early: connections already begun.
    """
    if reach.address is None:
        from inferfleet.hosts.local import LocalHost

        return LocalHost(name, sudo_password=sudo_password)
    from inferfleet.hosts.ssh import SshHost

    return SshHost(
        name,
        reach.address,
        user=reach.user,
        port=reach.port,
        jump=reach.jump,
        sudo_password=sudo_password,
        early=early,
    )


def _jump(machines: Mapping[str, Machine], jump: str | None) -> str | None:
    """A jump named like a machine of the inventory means that machine, with its own jump first."""
    if jump is None or jump not in machines or machines[jump].address is None:
        return jump
    hop = machines[jump]
    own = f"{hop.user}@{hop.address}" if hop.user else str(hop.address)
    if hop.port:
        own += f":{hop.port}"
    before = _jump({k: v for k, v in machines.items() if k != jump}, hop.jump)
    return f"{before},{own}" if before else own
