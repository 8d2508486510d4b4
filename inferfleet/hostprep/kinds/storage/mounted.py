"""What is mounted, and what /etc/fstab mounts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from inferfleet.amounts import parse_size
from inferfleet.hostprep.facts import Facts
from inferfleet.hostprep.setting import Wanted

TABLE = "/proc/self/mounts"
FSTAB = "/etc/fstab"
# Options for mount(8) and systemd, which the kernel never shows.
_UNSEEN = re.compile(r"defaults|nofail|noauto|auto|user|users|nouser|group|owner|_netdev|x-.*|"
                     r"comment=.*|sw|async|suid|dev|exec|pri=.*")  # fmt: skip
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Entry:
    """A line of a mount table, with its escapes undone."""

    what: str
    where: str
    type: str
    options: str


def entries(text: str) -> list[Entry]:
    """The lines of /proc/self/mounts or /etc/fstab."""
    found = []
    for line in text.splitlines():
        fields = [unescape(word) for word in line.split()]
        if len(fields) >= 3 and not fields[0].startswith("#"):
            what, where, kind, options = (*fields, "defaults")[:4]
            found.append(Entry(what, where, kind, options))
    return found


def unescape(word: str) -> str:
    """\\040 and the like, as these tables write white space, to the character."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), word)


def at(facts: Facts, path: str) -> Entry | None:
    """What is mounted at a path: the last, which covers the others."""
    found = [entry for entry in entries(facts.text(TABLE) or "") if entry.where == path]
    return found[-1] if found else None


def in_fstab(facts: Facts, path: str) -> bool:
    """Whether /etc/fstab mounts something there at every start."""
    return any(
        entry.where.rstrip("/") == path and "noauto" not in entry.options.split(",")
        for entry in entries(facts.text(FSTAB) or "")
    )


def differs(entry: Entry, wanted: Wanted, facts: Facts) -> str:
    """What of a mount is not as wanted: its type, an option, its device; "" when all is."""
    value = wanted.value
    if entry.type != value["type"]:
        return f"type ({entry.type})"
    live = {_option(option) for option in entry.options.split(",")}
    for option in (value.get("options") or "").split(","):
        # The kernel shows a share of the memory as a number of its own.
        seen = option and not option.endswith("%") and not _UNSEEN.fullmatch(option)
        if seen and _option(option) not in live:
            return f"set of options ({entry.options})"
    source = facts.stats.get(value["what"])
    if source and source.kind == "block special file" and entry.what.startswith("/dev/"):
        return "" if entry.what == value["what"] else f"device ({entry.what})"
    return ""


def _option(text: str) -> str:
    """An option as it can be compared: sizes in bytes, modes without a leading zero."""
    name, equals, value = text.partition("=")
    if name == "mode":
        return f"mode={value.lstrip('0')}"
    try:
        return f"{name}={parse_size(value)}" if equals else name
    except ValueError:
        return text
