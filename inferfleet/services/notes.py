"""What everybody who starts a service is told, though nothing is wrong with it; pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from inferfleet.services.resolve import Resolved


def notes(view: Resolved) -> Iterator[str]:
    """The notice of the service's kind, and that anybody who reaches its address may use it."""
    if view.kind.notice:
        yield view.kind.notice
    if view.port is not None and not _asks(view) and not _loopback(view.bind):
        where = "every network" if _everywhere(view.bind) else "the network"
        yield f"reachable from {where} ({view.bind}, port {view.port}) and asks for no key"


def _asks(view: Resolved) -> bool:
    """Whether clients have to prove who they are."""
    gateway = view.service.gateway
    return bool(view.key or view.kind.login or (gateway and gateway.keys))


def _loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _everywhere(address: str) -> bool:
    return ipaddress.ip_address(address).is_unspecified
