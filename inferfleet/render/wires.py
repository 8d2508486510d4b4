"""Services of one machine that find each other, such as a chat page its engines; pure."""

from __future__ import annotations

from collections.abc import Sequence

from inferfleet.release.draft import NO_KEY, SecretLine
from inferfleet.schema.kind import Wire
from inferfleet.services.resolve import Resolved

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def wire(view: Resolved, views: Sequence[Resolved]) -> tuple[dict[str, str], list[SecretLine]]:
    """Variables that list the other services, first the plain ones, then those with secrets."""
    plain: dict[str, str] = {}
    hidden: list[SecretLine] = []
    for wanted in view.kind.wires:
        targets = [other for other in views if _wanted(other, wanted) and _reaches(view, other)]
        if wanted.first:
            targets = targets[:1]
            if not targets:
                continue
        plain[wanted.urls] = wanted.separator.join(_url(view, other, wanted) for other in targets)
        if wanted.enable is not None:
            plain[wanted.enable] = "true" if targets else "false"
        if wanted.keys is None:
            continue
        if any(other.key for other in targets):
            names = tuple(other.key for other in targets)
            hidden.append(SecretLine(wanted.keys, names, wanted.separator))
        else:
            plain[wanted.keys] = wanted.separator.join(NO_KEY for _ in targets)
    return plain, hidden


def _wanted(other: Resolved, wanted: Wire) -> bool:
    if wanted.kind is not None:
        return other.service.kind == wanted.kind
    # A gateway offers the same services once more, for keys that nobody here has.
    return other.kind.api == wanted.api and other.kind.renders != "gateway"


def _reaches(view: Resolved, other: Resolved) -> bool:
    """A container finds other containers of its project; everybody else finds published ports."""
    if view.runtime != "compose":
        return other.port is not None
    compose = other.kind.compose
    return other.runtime == "compose" and compose is not None and not compose.host_network


def _url(view: Resolved, other: Resolved, wanted: Wire) -> str:
    """Inside the project's network a service's name is its host name."""
    if view.runtime != "compose":
        host = _ANY.get(other.bind, other.bind)
        return f"http://{f'[{host}]' if ':' in host else host}:{other.port}{wanted.suffix}"
    assert other.kind.compose is not None
    return f"http://{other.name}:{other.kind.compose.port}{wanted.suffix}"
