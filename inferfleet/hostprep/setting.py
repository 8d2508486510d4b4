"""The words of host preparation: what is wanted of a machine, what was found, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from inferfleet.hostprep.facts import Facts, Look
from inferfleet.hostprep.steps import PutFile, Step

STATE = "/var/lib/inferbase/hostprep"
# ok: as wanted, now and after a reboot. differs: a change would make it so. not persisted: in
# force, and lost by a reboot. pending: written, a reboot makes it so. overridden: written, but
# another file or program decides. absent: what it needs is not there (a tool, a driver), which
# inferbase does not install. unsupported: this hardware cannot. unknown: cannot be told. advice:
# not as it should be, and not ours to change.
Verdict = Literal[
    "ok", "differs", "not persisted", "pending", "overridden", "absent", "unsupported", "unknown",
    "advice",
]  # fmt: skip
# A check with any of these exits with CHANGES; the others are never a failure.
WRONG: frozenset[Verdict] = frozenset(
    {"differs", "not persisted", "pending", "overridden", "absent", "advice"}
)


@dataclass(frozen=True)
class Wanted:
    """One setting of one machine after all profiles and the machine file.

    kind and key name it (sysctl, vm.swappiness). value: plain data, checked by the schema of
    its kind. origin: the profile, or "machine file". cost: what it takes away, "" for nothing.
    """

    kind: str
    key: str
    value: Any
    why: str = ""
    source: str = ""
    origin: str = ""
    cost: str = ""

    @property
    def name(self) -> str:
        return f"{self.kind}.{self.key}"


@dataclass(frozen=True)
class Ground:
    """All that is wanted of one machine's host, and what must be known to want it.

    hardware: the hardware file as plain data, {} without one.
    state: the folder on the machine that keeps what is needed to undo; units: that of systemd's
    units.
    """

    settings: tuple[Wanted, ...] = ()
    hardware: Mapping[str, Any] = field(default_factory=dict)
    state: str = STATE
    units: str = "/etc/systemd/system"

    def of(self, kind: str) -> tuple[Wanted, ...]:
        """The settings of one kind, in the order of their keys."""
        found = (wanted for wanted in self.settings if wanted.kind == kind)
        return tuple(sorted(found, key=lambda wanted: wanted.key))

    def lacks(self, feature: str) -> bool:
        """Whether the hardware file says that the hardware has no such thing."""
        return feature in self.hardware.get("lacks", ())


@dataclass(frozen=True)
class Change:
    """What brings one or several settings to what is wanted.

    settings: names (Wanted.name), or paths of files for what is only a file. text: one line for
    people, such as `60 -> 10`. do: in order. undo: what restores the machine as it was seen, in
    the order in which it must run. reboot: why it takes effect only after a reboot, "" when it
    does now. cuts: it may cut the connection off or keep the machine from booting.
    """

    settings: tuple[str, ...]
    text: str
    do: tuple[Step, ...]
    undo: tuple[Step, ...]
    reboot: str = ""
    cuts: bool = False


@dataclass(frozen=True)
class Finding:
    """What one setting is. live and persisted: as found, for people; "-" where there is none.

    remedy: for what inferbase cannot or will not change itself, "" otherwise.
    """

    wanted: Wanted
    live: str
    persisted: str
    verdict: Verdict
    remedy: str = ""


@dataclass(frozen=True)
class Judgement:
    """The answer of a kind: a finding for each of its settings, files to have, live changes.

    files: complete persisted files that this kind owns or edits, content None to have none; what
    differs from the facts becomes a change with the same path as name. changes: everything else.
    """

    findings: tuple[Finding, ...]
    files: tuple[PutFile, ...] = ()
    changes: tuple[Change, ...] = ()


class Kind(Protocol):
    """A kind of setting. Its methods are pure, so tables test them."""

    def look(self, ground: Ground) -> Look:
        """What has to be read on the machine for the settings of this kind."""

    def judge(self, ground: Ground, facts: Facts) -> Judgement:
        """What was found, beside what is wanted. Never raises for what a machine may hold."""
