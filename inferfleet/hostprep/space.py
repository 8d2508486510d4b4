"""Free space of the directories that a machine file names under storage; pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from inferfleet.hostprep.setting import Ground


@dataclass(frozen=True)
class Space:
    """Bytes of a file system, and those that are free to everybody."""

    total: int
    free: int


def least_free(ground: Ground) -> dict[str, int | str]:
    """By directory, what should stay free there: bytes, or a share as 10%."""
    found = {wanted.key: wanted.value.get("min-free") for wanted in ground.of("storage")}
    return {path: least for path, least in found.items() if least}


def space_script(ground: Ground) -> str:
    """One process that prints a line of parse_space for each, "" when there is none to ask."""
    paths = sorted(least_free(ground))
    if not paths:
        return ""
    command = shlex.join(["stat", "-f", "-c", "space\t%n\t%S\t%b\t%a", "--", *paths])
    return f"{command} 2>/dev/null"


def parse_space(text: str) -> dict[str, Space]:
    """By directory, from lines of path, block size, blocks and free blocks with tabs between."""
    found = {}
    for line in text.splitlines():
        *_, path, size, blocks, free = ["", "", "", *line.removeprefix("space\t").split("\t")]
        if path and size.isdigit() and blocks.isdigit() and free.isdigit():
            found[path] = Space(int(size) * int(blocks), int(size) * int(free))
    return found


def shortage(space: Space, least: int | str) -> bool:
    """Whether less is free than should be."""
    if isinstance(least, str):
        return space.free * 100 < space.total * int(least.removesuffix("%"))
    return space.free < least


def space_notes(ground: Ground, lines: Iterable[str]) -> list[str]:
    """What a person must know of the disks, one line each."""
    found: Mapping[str, Space] = parse_space("\n".join(lines))
    notes = []
    for path, least in sorted(least_free(ground).items()):
        space = found.get(path)
        if space is None:
            notes.append(f"{path}: its free space cannot be read; is it there?")
        elif shortage(space, least):
            share = 100 * space.free // max(space.total, 1)
            notes.append(
                f"{path} has {free_words(space.free)} ({share} %) free, "
                f"{free_words(least)} should be"
            )
    return notes


def free_words(amount: int | str) -> str:
    """GiB for people, shares as they are."""
    if isinstance(amount, str):
        return amount
    gib = amount / (1 << 30)
    return f"{gib:.1f} GiB" if gib >= 1 else f"{amount / (1 << 20):.0f} MiB"
