"""By which names clients call a service, for servers that refuse requests to other names; pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from inferfleet.schema.machine import Machine

# Also the near end of a tunnel, whatever its port is there.
_ALWAYS = ("localhost", "127.0.0.1")


def reached_at(machine: Machine, bind: str) -> tuple[str, ...]:
    """Names and addresses at which the network reaches what listens on bind; loopback: none."""
    address = ipaddress.ip_address(bind)
    if address.is_loopback:
        return ()
    named = [_host(text) for text in (machine.address, machine.site_address) if text]
    return tuple(dict.fromkeys([*([] if address.is_unspecified else [bind]), *named]))


def allowed_hosts(service: str, reached: Sequence[str]) -> str:
    """All its names as `Host:` may have them, with any port, as patterns with commas between."""
    return ",".join(word for name in (*_ALWAYS, service, *reached) for word in _patterns(name))


def origins(reached: Sequence[str], port: int | None) -> str | None:
    """Where its own pages come from on the network, with commas; None for nowhere."""
    end = "" if port == 80 else f":{port}"
    found = [f"http://{_bracketed(name)}{end}" for name in reached]
    return ",".join(found) if found and port else None


def _patterns(name: str) -> Iterator[str]:
    shown = _bracketed(name)
    yield shown
    # Before a * the bracket of an IPv6 address would begin a set of characters.
    yield shown.replace("[", "[[]", 1) + ":*"


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def _host(address: str) -> str:
    """The host in an ssh address, without login and port."""
    rest = address.removeprefix("ssh://").rpartition("@")[2]
    if rest.count(":") > 1 and "[" not in rest:
        return rest
    return urlsplit(f"//{rest}").hostname or rest
