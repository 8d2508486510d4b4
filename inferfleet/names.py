"""Nearest known name for a mistyped one: every error about a name ends in such a hint."""

from __future__ import annotations

from collections.abc import Iterable

_LISTED = 24
# What --host takes for every machine; no machine can have this name.
EVERY_MACHINE = "all"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like name, or None when none is like it."""
    from difflib import get_close_matches

    by_folded = {candidate.casefold(): candidate for candidate in sorted(known)}
    wanted = name.casefold()
    found = get_close_matches(wanted, by_folded, n=3, cutoff=0.6)
    # Letters in another order are the commonest slip, and difflib does not rate it higher.
    found.sort(key=lambda candidate: sorted(candidate) != sorted(wanted))
    if not found:
        found = _begun(wanted, by_folded)
    return by_folded[found[0]] if found else None


def _begun(name: str, known: Iterable[str]) -> list[str]:
    """The known name that begins with this word; of several the one with the fewest words."""
    begun = [one for one in known if one.startswith((f"{name}-", f"{name}_"))]
    begun.sort(key=_words)
    alone = len(begun) == 1 or (len(begun) > 1 and _words(begun[0]) < _words(begun[1]))
    return begun[:1] if alone else []


def _words(name: str) -> int:
    return len(name.replace("_", "-").split("-"))


def name_hint(name: str, known: Iterable[str], noun: str = "known") -> str:
    """'did you mean X?', else the known names unless they are many; noun says what they are."""
    names = sorted(known)
    if found := nearest(name, names):
        return f"did you mean {found}?"
    if len(names) > _LISTED:
        return ""
    return f"{noun}: {', '.join(names) or 'none'}"
