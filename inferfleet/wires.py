"""Services of one compose project that find each other, such as a chat page its engines; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inferfleet.errors import USAGE, FleetError
from inferfleet.resolve import Resolved
from inferfleet.schema.kind import Wire

# Sent to a service that asks for no key: clients do not accept an empty one.
NO_KEY = "none"


def wire(
    view: Resolved, views: Sequence[Resolved], reveal: Callable[[Resolved, str], str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Variables that list the other services, first the plain ones, then those with secrets."""
    plain: dict[str, str] = {}
    hidden: dict[str, str] = {}
    for wanted in view.kind.wires:
        targets = [
            other
            for other in views
            if other.kind.api == wanted.api and other.kind.compose and other.runtime == "compose"
        ]
        plain[wanted.urls] = wanted.separator.join(_url(other, wanted) for other in targets)
        if wanted.enable is not None:
            plain[wanted.enable] = "true" if targets else "false"
        if wanted.keys is not None:
            keys = [reveal(other, other.key) if other.key else NO_KEY for other in targets]
            if any(wanted.separator in key for key in keys):
                raise FleetError(
                    f"{view.name}: an API key it should send holds {wanted.separator!r}, which "
                    "separates keys there",
                    "choose another key",
                    code=USAGE,
                )
            secret = any(other.key for other in targets)
            (hidden if secret else plain)[wanted.keys] = wanted.separator.join(keys)
    return plain, hidden


def _url(view: Resolved, wanted: Wire) -> str:
    """Inside the project's network a service's name is its host name."""
    assert view.kind.compose is not None
    return f"http://{view.name}:{view.kind.compose.port}{wanted.suffix}"
