"""Swap space in use and in /etc/fstab, and what every start of the machine would bring back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from inferfleet.hostprep.facts import Facts
from inferfleet.hostprep.kinds import back
from inferfleet.hostprep.kinds.kernel.sysfs import HEAD
from inferfleet.hostprep.kinds.storage.mounted import FSTAB, unescape
from inferfleet.hostprep.kinds.system import unitstate
from inferfleet.hostprep.kinds.system.unitstate import FOLDER, SWAP_TOOLS
from inferfleet.hostprep.steps import PutFile, Run

TABLE = "/proc/swaps"
GENERATOR = "/usr/lib/systemd/system-generators/zram-generator"
_SETUP = "systemd-zram-setup@.service"
# In front of a line of /etc/fstab that we took out; the rest of the line is as it was.
MARK = "#inferbase# "
NAME = "90-inferbase.conf"
# systemd reads TYPE.d for every unit of a type (systemd.unit(5), since version 244): no .swap
# unit starts, wherever it comes from. That hides nothing that a mask would have to remember.
ALL_SWAPS = f"{FOLDER}/swap.d/{NAME}"
ALL_ON, ALL_OFF = Run(("swapon", "-a")), Run(("swapoff", "-a"))
DROP_INS = (ALL_SWAPS, *(f"{FOLDER}/{unit}.d/{NAME}" for unit in (*SWAP_TOOLS, _SETUP)))


@dataclass(frozen=True)
class Space:
    """Swap space in use: name in /proc/swaps, KiB it has and holds, priority (below 0: the
    kernel's own choice)."""

    name: str
    size: int
    used: int
    priority: int

    @property
    def path(self) -> str:
        """The device or file; the kernel's table writes white space as \\040 and the like."""
        return unescape(self.name)

    @property
    def off(self) -> Run:
        return Run(("swapoff", "--", self.path))

    @property
    def on(self) -> Run:
        priority = ("-p", str(self.priority)) if self.priority >= 0 else ()
        return back.swapon(self.name, *priority, "--", self.path)


def spaces(facts: Facts) -> list[Space]:
    """What /proc/swaps names, in the order in which it was put to use."""
    found = []
    for line in (facts.text(TABLE) or "").splitlines()[1:]:
        words = line.split()
        if len(words) == 5 and words[2].isdigit() and words[3].isdigit():
            found.append(Space(words[0], int(words[2]), int(words[3]), int(words[4])))
    return found


def shown(found: list[Space]) -> str:
    """The spaces for people."""
    return ", ".join(f"{s.path} {s.size >> 10} MiB" for s in found) or "none"


def at_start(facts: Facts) -> list[str]:
    """What brings swap space back with the next start, as far as nothing of ours stops it."""
    sources = [FSTAB] if any(map(_active, (facts.text(FSTAB) or "").splitlines())) else []
    known = unitstate.units(facts) or {}
    names = dict.fromkeys(unit.name for unit in known.values() if unit.load == "loaded")
    for name in names:
        unit = known[name]
        drop_in = f"{FOLDER}/{name}.d/{NAME}"
        if name in SWAP_TOOLS and unit.starts and drop_in not in facts.files:
            sources.append(name)
        # A unit without a file only mirrors what is in use.
        if name.endswith(".swap") and unit.file and ALL_SWAPS not in facts.files:
            sources.append(name)
    return sources


def files_off(facts: Facts, own: Space | None = None) -> Iterator[PutFile]:
    """Files with which no start brings swap space back. own: ours, which none of them concerns."""
    text = facts.text(FSTAB)
    if text is not None:
        lines = text.splitlines(keepends=True)
        yield PutFile(FSTAB, "".join(MARK + line if _active(line) else line for line in lines))
    known = unitstate.units(facts) or {}
    swaps = any(name.endswith(".swap") and unit.file for name, unit in known.items())
    needed = {f"{FOLDER}/{name}.d/{NAME}" for name in SWAP_TOOLS
              if name in known and known[name].there}  # fmt: skip
    if swaps or needed or any(space != own for space in spaces(facts)):
        needed.add(ALL_SWAPS)
    if GENERATOR in facts.stats:
        needed |= {ALL_SWAPS, DROP_INS[-1]}
    for path in DROP_INS:
        keep = path in needed or path in facts.files
        yield PutFile(path, _never(path) if keep else None)


def files_left(facts: Facts) -> Iterator[PutFile]:
    """The same files where nobody wants swap to be off: /etc/fstab as it was, no drop-ins."""
    text = facts.text(FSTAB) or ""
    if MARK in text:
        lines = text.splitlines(keepends=True)
        yield PutFile(FSTAB, "".join(line.removeprefix(MARK) for line in lines))
    yield from (PutFile(path, None) for path in DROP_INS)


def _active(line: str) -> bool:
    """Whether a line of /etc/fstab makes swap space at every start."""
    fields = line.split()
    if len(fields) < 3 or fields[0].startswith("#") or fields[2] != "swap":
        return False
    return "noauto" not in (fields[3] if len(fields) > 3 else "").split(",")


def _never(path: str) -> str:
    return f"{HEAD}[Unit]\n# Never true while this file is here.\nConditionPathExists=!{path}\n"
