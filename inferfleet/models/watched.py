"""What a service reads of its model when it starts, so that a later change of it is seen."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from inferfleet.models.need import ModelNeed
from inferfleet.models.observe import ModelState


def watched(need: ModelNeed) -> tuple[str, ...]:
    """The absolute paths that tell it: the model's directory, which is a link to the files, and
    the texts in the alias that is loaded. None for a path on the machine, or Ollama's store."""
    return ((need.directory,) if need.directory else ()) + tuple(sorted(_texts(need)))


def in_place(need: ModelNeed, state: ModelState | None) -> dict[str, str]:
    """What each of these paths should lead to: the link's target, "" where that is not known,
    and the SHA-256 of each text."""
    store = state.store if state and state.present else ""
    return ({need.directory: store} if need.directory else {}) | _texts(need)


def loads_texts(need: ModelNeed) -> bool:
    """Whether the service loads its model through an alias with texts of its own."""
    return bool(_texts(need))


def watch_lines(needs: Iterable[ModelNeed]) -> str:
    """For the machine: a line for each service and path, with a tab between them."""
    return "".join(f"{need.service}\t{path}\n" for need in needs for path in watched(need))


def _texts(need: ModelNeed) -> dict[str, str]:
    return {
        f"{alias}/{name}": sha256(text.encode()).hexdigest()
        for alias, own in need.aliases.items()
        if _within(need.path, alias)
        for name, text in own.items()
    }


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")
