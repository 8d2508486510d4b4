"""Services of one compose project that find each other, such as a chat page its engines; pure."""

from __future__ import annotations

from collections.abc import Sequence

from inferfleet.draft import NO_KEY, SecretLine
from inferfleet.resolve import Resolved
from inferfleet.schema.kind import Wire


def wire(view: Resolved, views: Sequence[Resolved]) -> tuple[dict[str, str], list[SecretLine]]:
    """Variables that list the other services, first the plain ones, then those with secrets."""
    plain: dict[str, str] = {}
    hidden: list[SecretLine] = []
    for wanted in view.kind.wires:
        targets = [
            other
            for other in views
            if other.kind.api == wanted.api and other.kind.compose and other.runtime == "compose"
        ]
        plain[wanted.urls] = wanted.separator.join(_url(other, wanted) for other in targets)
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


def _url(view: Resolved, wanted: Wire) -> str:
    """Inside the project's network a service's name is its host name."""
    assert view.kind.compose is not None
    return f"http://{view.name}:{view.kind.compose.port}{wanted.suffix}"
