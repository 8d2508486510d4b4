"""One option's name against those that its kind's engine knows; pure."""

from __future__ import annotations

from inferfleet.names import name_hint, nearest
from inferfleet.schema.options import Options

# What is wrong, and what to do about it.
Told = tuple[str, str]


def wrong_option(kind: str, options: Options, flag: str, image: bool) -> Told | None:
    """Why an option cannot be set, None if it can. image: the service runs its kind's image."""
    known = options.known
    if flag in options.managed:
        return "is set by inferbase", instead(options, flag)
    if flag in options.removed:
        return f"kind {kind} has no such option any more", options.removed[flag]
    if known is not None and flag not in known and flag.partition(".")[0] not in known:
        return f"kind {kind} has no such option", _nearest(options, flag)
    if flag in options.newer and image:
        hint = f"it came with {options.newer[flag]}: set image to a newer one"
        return f"the image of kind {kind} is older than this option", hint
    return None


def instead(options: Options, flag: str) -> str:
    """What to use in place of an option that inferbase sets."""
    said = options.managed[flag]
    return f"use {said} instead" if " " in said else f"use the key {said} instead"


def _nearest(options: Options, flag: str) -> str:
    """The option that is meant; of one that is refused itself, what to use in its place."""
    found = nearest(flag, {*(options.known or ()), *options.managed})
    if found is not None and found in options.managed:
        return f"{found} is set by inferbase: {instead(options, found)}"
    return name_hint(flag, set(options.known or ()) - set(options.managed), "options")
