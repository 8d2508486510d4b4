"""From a machine of the inventory to a Host that can be asked things."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from inferfleet.host import Host
from inferfleet.schema.machine import Machine


def open_host(
    machines: Mapping[str, Machine], name: str, sudo_password: Callable[[], str] | None = None
) -> Host:
    """The host of a machine, not connected yet. sudo_password is asked at most when needed."""
    machine = machines[name]
    if machine.address is None:
        from inferfleet.hosts.local import LocalHost

        return LocalHost(name, sudo_password=sudo_password)
    from inferfleet.hosts.ssh import SshHost

    return SshHost(
        name,
        machine.address,
        user=machine.user,
        port=machine.port,
        jump=jump_spec(machines, machine.jump),
        sudo_password=sudo_password,
    )


def jump_spec(machines: Mapping[str, Machine], jump: str | None) -> str | None:
    """A jump named like a machine of the inventory means that machine, with its own jump first."""
    if jump is None or jump not in machines or machines[jump].address is None:
        return jump
    hop = machines[jump]
    own = f"{hop.user}@{hop.address}" if hop.user else str(hop.address)
    if hop.port:
        own += f":{hop.port}"
    before = jump_spec({k: v for k, v in machines.items() if k != jump}, hop.jump)
    return f"{before},{own}" if before else own
