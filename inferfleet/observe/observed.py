"""What was found on a machine, and how it is read from the observation's output; pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from inferfleet.errors import FleetError
from inferfleet.observe.journal import Journal, Lock
from inferfleet.release.manifest import Manifest, load_manifest

__all__ = ["Journal", "Lock", "Observed", "UnitState", "parse_observed"]

GENERATIONS = ".inferbase/generations/"
Records = Mapping[str, list[list[str]]]


@dataclass(frozen=True)
class UnitState:
    """state: running, starting, restarting, stopped, failed or unknown; detail: more words."""

    state: str
    detail: str

    @property
    def up(self) -> bool:
        return self.state in {"running", "starting", "restarting"}


@dataclass(frozen=True)
class Observed:
    """One machine as one observation found it.

    current: the generation in force, 0 for none; manifest: its own record. origin: the record
    of the generation that an interrupted run came from. generations: those that were good
    once. files: path -> (sha256, octal mode), of files that are there and readable. links:
    absolute path -> target, "!" when something else than a link is there. started: service ->
    digest it was last started with; loaded: service -> what each path that tells of its model led
    to then, without a service where nothing was noted. listeners: (ip, port) of listening TCP
    sockets. model_lines: for models.observe. gpu_lines: for gpu.brief. damage: records of our
    own that cannot be read. left: number -> record of the generations, not in force, that
    interrupted runs may have left services of running. evicted: services that were stopped to
    make room and not started since.
    """

    facts: Mapping[str, str]
    lock: Lock | None = None
    journal: Journal | None = None
    current: int = 0
    foreign_current: str | None = None
    generations: tuple[int, ...] = ()
    manifest: Manifest | None = None
    origin: Manifest | None = None
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, UnitState] = field(default_factory=dict)
    started: Mapping[str, str] = field(default_factory=dict)
    loaded: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    listeners: frozenset[tuple[str, int]] = frozenset()
    model_lines: tuple[str, ...] = ()
    gpu_lines: tuple[str, ...] = ()
    space_lines: tuple[str, ...] = ()
    troubles: tuple[str, ...] = ()
    damage: tuple[FleetError, ...] = ()
    left: Mapping[int, Manifest] = field(default_factory=dict)
    evicted: frozenset[str] = frozenset()


def parse_observed(text: str, root: str) -> Observed:
    """Read the output of remote/observe.sh.

    Raises FleetError when it is cut short or another user's records cannot be read; damaged
    records are part of the result.
    """
    records: dict[str, list[list[str]]] = {}
    for line in text.split("\n"):
        kind, *fields = line.split("\t")
        if kind[64:66] == "  ":  # as sha256sum prints it
            kind, fields = "sum", [kind[:64], kind[66:]]
        records.setdefault(kind, []).append(fields)
    if "end" not in records:
        raise FleetError("the observation was cut short", hint="run it again")
    for fields in records.get("unreadable", []):
        raise FleetError(
            f"{fields[0]} is not readable",
            hint="it is another user's: set `sudo: true` or that `user` in the machine file",
        )
    current, foreign = _current(records)
    generations = sorted(int(f[0]) for f in records.get("generation", []) if _number(f))
    damage: list[FleetError] = []
    return Observed(
        facts={key: value for key, value in _pairs(records, "fact") if key != "symlink"}
        | {"symlink": ", ".join(v for k, v in _pairs(records, "fact") if k == "symlink")},
        lock=_lock(records),
        journal=_journal(records, root, damage),
        current=current,
        foreign_current=foreign,
        generations=tuple(generations),
        manifest=_manifest(records, root, current, generations, damage),
        origin=next(iter(_readable(records.get("origin", []))), None),
        left=_left(records),
        files=_files(records),
        links=dict(_pairs(records, "link")),
        units=_units(records),
        started=dict(_pairs(records, "started")),
        loaded=_loaded(records),
        listeners=_listeners(records),
        model_lines=tuple("\t".join(["model", *fields]) for fields in records.get("model", [])),
        gpu_lines=tuple("\t".join(fields) for fields in records.get("gpu", [])),
        space_lines=tuple("\t".join(fields) for fields in records.get("space", [])),
        troubles=tuple(": ".join(fields) for fields in records.get("trouble", [])),
        damage=tuple(damage),
        evicted=frozenset(name for name, _ in _pairs(records, "evicted")),
    )


def _number(fields: list[str]) -> bool:
    return bool(fields) and fields[0].isascii() and fields[0].isdigit()


def _pairs(records: Records, kind: str) -> list[tuple[str, str]]:
    return [(fields[0], "\t".join(fields[1:])) for fields in records.get(kind, []) if fields]


def _units(records: Records) -> dict[str, UnitState]:
    found = {}
    for fields in records.get("unit", []):
        service, state, *detail = [*fields, "", ""][: max(len(fields), 2)]
        found[service] = UnitState(state or "unknown", " ".join(detail))
    return found


def _files(records: Records) -> dict[str, tuple[str, str]]:
    modes = {path: mode for mode, path in _pairs(records, "mode")}
    return {path: (sha, modes.get(path, "")) for sha, path in _pairs(records, "sum")}


def _loaded(records: Records) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for service, path, value in (row for row in records.get("loaded", []) if len(row) == 3):
        found.setdefault(service, {})[path] = value
    return found


def _lock(records: Records) -> Lock | None:
    for alive, holder in _pairs(records, "lock"):
        return Lock.parse(holder, alive == "alive")
    return None


def _journal(records: Records, root: str, damage: list[FleetError]) -> Journal | None:
    for fields in records.get("journal", []):
        found = Journal.parse("\t".join(fields))
        if found is None:
            damage.append(
                FleetError(
                    f"{root}/.inferbase/journal is damaged",
                    hint=f"`rm {root}/.inferbase/journal` lets the next run go on from the "
                    f"generation in force; `invoke rollback` returns to a good one",
                )
            )
        return found
    return None


def _current(records: Records) -> tuple[int, str | None]:
    for fields in records.get("current", []):
        target = fields[0] if fields else ""
        number = target.removeprefix(GENERATIONS)
        if target.startswith(GENERATIONS) and _number([number]):
            return int(number), None
        return 0, target
    return 0, None


def _manifest(
    records: Records, root: str, current: int, kept: list[int], damage: list[FleetError]
) -> Manifest | None:
    place = f"{root}/.inferbase/generations/{current}/.manifest"
    try:
        for fields in records.get("manifest", []):
            return load_manifest("\t".join(fields), place)
        if current:
            raise FleetError(f"{place} is gone")
    except FleetError as error:
        others = [str(number) for number in kept if number != current]
        back = f"`invoke rollback --to N` returns to one of {', '.join(others)}; " if others else ""
        fresh = f"`sh {root}/current/control remove; rm {root}/current`, then `invoke up`"
        damage.append(FleetError(error.what, hint=f"{back}{fresh} starts afresh"))
    return None


def _readable(rows: list[list[str]]) -> Iterator[Manifest]:
    for fields in rows:
        with suppress(FleetError):
            yield load_manifest("\t".join(fields), "origin")


def _left(records: Records) -> dict[int, Manifest]:
    rows = [fields for fields in records.get("left", []) if _number(fields)]
    return {int(row[0]): found for row in rows for found in _readable([row[1:]])}


def _listeners(records: Records) -> frozenset[tuple[str, int]]:
    found = set()
    for fields in records.get("listen", []):
        try:
            found.add(parse_listener(fields[0]))
        except (ValueError, IndexError):
            continue
    return frozenset(found)


def parse_listener(text: str) -> tuple[str, int]:
    """(ip, port) of /proc/net/tcp's hexadecimal form: 32-bit words in the machine's byte order.

    Raises ValueError for anything else.
    """
    address, _, port = text.partition(":")
    words = [bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8)]
    ip = ipaddress.ip_address(b"".join(words))
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip), int(port, 16)
