"""What was found on a machine, and how it is read from the observation's output; pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from inferfleet.errors import FleetError
from inferfleet.manifest import Manifest, load_manifest

GENERATIONS = ".inferbase/generations/"


@dataclass(frozen=True)
class Lock:
    """A lock on the machine: who holds it since when for what; alive if that process still is."""

    alive: bool
    pid: int
    who: str
    when: str
    what: str

    @classmethod
    def parse(cls, holder: str, alive: bool) -> Lock:
        pid, _, who, when, what = (holder.split("|") + [""] * 5)[:5]
        return cls(alive, int(pid) if pid.isdigit() else 0, who, when, what)

    def __str__(self) -> str:
        return f"{self.who} since {self.when} ({self.what}, process {self.pid})"


@dataclass(frozen=True)
class Journal:
    """The trace of a run that did not finish: from which generation to which, and how far.

    phase: staged (the machine is wholly old), switched or reverting (wholly new).
    """

    source: int
    to: int
    phase: str
    who: str
    when: str
    what: str

    @property
    def verdict(self) -> str:
        """One sentence: what the machine is now."""
        place = {
            "staged": f"it is wholly old (generation {self.source})",
            "switched": f"it is wholly new (generation {self.to}), readiness not confirmed",
            "reverting": f"it was returning to generation {self.source}",
        }.get(self.phase, f"phase {self.phase}")
        return f"a run of {self.who} at {self.when} ({self.what}) was interrupted: {place}"


@dataclass(frozen=True)
class UnitState:
    """state: running, starting, restarting, stopped, failed, unknown; detail: the runtime's words."""

    state: str
    detail: str

    @property
    def up(self) -> bool:
        return self.state in {"running", "starting", "restarting"}


@dataclass(frozen=True)
class Observed:
    """One machine as one observation found it.

    current: the generation in force, 0 for none. files: path -> (sha256, octal mode), of
    files that are there and readable. links: absolute path -> target, "!" when something
    else than a link is there. started: service -> digest it was last started with.
    listeners: (ip, port) of listening TCP sockets. model_lines: for models.observe.
    """

    facts: Mapping[str, str]
    lock: Lock | None = None
    journal: Journal | None = None
    current: int = 0
    foreign_current: str | None = None
    generations: tuple[int, ...] = ()
    manifest: Manifest | None = None
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, UnitState] = field(default_factory=dict)
    started: Mapping[str, str] = field(default_factory=dict)
    listeners: frozenset[tuple[str, int]] = frozenset()
    model_lines: tuple[str, ...] = ()
    troubles: tuple[str, ...] = ()


def parse_observed(text: str, root: str) -> Observed:
    """Read the output of remote/observe.sh.

    Raises FleetError when it is cut short or the machine's own records are damaged.
    """
    records: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        kind, *fields = line.split("\t")
        records.setdefault(kind, []).append(fields)
    if "end" not in records:
        raise FleetError("the observation was cut short", hint="run it again")
    current, foreign = _current(records, root)
    return Observed(
        facts={key: value for key, value in _pairs(records, "fact") if key != "symlink"}
        | {"symlink": ", ".join(v for k, v in _pairs(records, "fact") if k == "symlink")},
        lock=_lock(records),
        journal=_journal(records, root),
        current=current,
        foreign_current=foreign,
        generations=tuple(
            sorted(int(name) for (name,) in records.get("generation", []) if name.isdigit())
        ),
        manifest=_manifest(records, root),
        files=_files(records),
        links=dict(_pairs(records, "link")),
        units={
            service: UnitState(state, detail)
            for service, state, detail in (_three(fields) for fields in records.get("unit", []))
        },
        started=dict(_pairs(records, "started")),
        listeners=frozenset(_listener(fields[0]) for fields in records.get("listen", [])),
        model_lines=tuple("\t".join(["model", *fields]) for fields in records.get("model", [])),
        troubles=tuple(": ".join(fields) for fields in records.get("trouble", [])),
    )


def _pairs(records: Mapping[str, list[list[str]]], kind: str) -> list[tuple[str, str]]:
    return [(fields[0], "\t".join(fields[1:])) for fields in records.get(kind, []) if fields]


def _three(fields: Sequence[str]) -> tuple[str, str, str]:
    return fields[0], fields[1], " ".join(fields[2:])


def _files(records: Mapping[str, list[list[str]]]) -> dict[str, tuple[str, str]]:
    modes = {path: mode for mode, path in _pairs(records, "mode")}
    return {path: (sha, modes.get(path, "")) for sha, path in _pairs(records, "sum")}


def _lock(records: Mapping[str, list[list[str]]]) -> Lock | None:
    for alive, holder in _pairs(records, "lock"):
        return Lock.parse(holder, alive == "alive")
    return None


def _journal(records: Mapping[str, list[list[str]]], root: str) -> Journal | None:
    for fields in records.get("journal", []):
        parts = fields[0].split("|") if fields else []
        if len(parts) != 6 or not (parts[0].isdigit() and parts[1].isdigit()):
            raise FleetError(
                f"{root}/.inferbase/journal is damaged",
                hint=f"look at {root}/current, then remove the journal: the next run starts "
                "from what is in force",
            )
        return Journal(int(parts[0]), int(parts[1]), *parts[2:])
    return None


def _current(records: Mapping[str, list[list[str]]], root: str) -> tuple[int, str | None]:
    for fields in records.get("current", []):
        target = fields[0] if fields else ""
        number = target.removeprefix(GENERATIONS)
        if target.startswith(GENERATIONS) and number.isdigit():
            return int(number), None
        return 0, target
    return 0, None


def _manifest(records: Mapping[str, list[list[str]]], root: str) -> Manifest | None:
    for fields in records.get("unreadable", []):
        raise FleetError(
            f"{fields[0]} is not readable",
            hint="it is another user's: set `sudo: true` or that `user` in the machine file",
        )
    for fields in records.get("manifest", []):
        return load_manifest("\t".join(fields), f"{root}/current/.manifest")
    return None


def _listener(text: str) -> tuple[str, int]:
    """/proc/net/tcp's hexadecimal address: 32-bit words in the machine's byte order."""
    address, _, port = text.partition(":")
    words = [bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8)]
    return str(ipaddress.ip_address(b"".join(words))), int(port, 16)
