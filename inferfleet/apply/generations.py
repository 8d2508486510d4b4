"""Generations kept on a machine: read one back, list them with their history."""

from __future__ import annotations

import base64
import binascii
from contextlib import suppress
from dataclasses import dataclass

from inferfleet.errors import LOCKED, FleetError
from inferfleet.hosts.host import Host
from inferfleet.plan.plan import Plan
from inferfleet.release.manifest import load_manifest
from inferfleet.release.release import File, Release
from inferfleet.remote import program


def read_generation(host: Host, release: Release, number: int, sudo: bool) -> Release:
    """The release that a kept generation was made from.

    Contents of secret files stay on the machine: such files carry their checksum only.
    Raises FleetError when the generation is damaged.
    """
    place = f"{release.root}/.inferbase/generations/{number}"
    result = host.run(program("generation", place=place), sudo=sudo, timeout=120)
    manifest, contents = "", {}
    for line in result.out.splitlines():
        kind, _, rest = line.partition("\t")
        if kind == "manifest":
            manifest = rest
        elif kind == "content":
            path, _, data = rest.partition("\t")
            with suppress(binascii.Error):
                contents[path] = base64.b64decode(data, validate=True)
    if not manifest:
        raise FleetError(f"{host.name}: generation {number} has no readable manifest at {place}")
    read = load_manifest(manifest, f"{place}/.manifest")
    files = {}
    for path, (sha256, mode, secret) in read.files.items():
        file = File(contents.get(path, b""), mode, secret)
        if path not in contents:
            file = File(b"", mode, secret, known_sha256=sha256)
        if file.sha256 != sha256 or (not secret and path not in contents):
            raise FleetError(
                f"{host.name}: generation {number} is damaged: {path}",
                hint="choose another generation of `invoke history`, or `invoke up`",
            )
        files[path] = file
    return Release(
        machine=release.machine, project=release.project, root=release.root, files=files,
        links=read.links, units=read.units, models=(),
    )  # fmt: skip


def not_as_applied(plan: Plan) -> FleetError:
    """The refusal of a plan for the generation in force that could not do without a new one."""
    for problem in plan.problems:
        if problem.code == LOCKED:
            return problem
    changed = [*plan.changed_files, *plan.targets("link"), *plan.targets("unlink")]
    what = f"generation {plan.source} was changed on {plan.machine}: {', '.join(changed)}"
    return FleetError(what, "`invoke up` puts it right; then restart")


@dataclass(frozen=True)
class Entry:
    """One line of the history: when (seconds since 1970), who did what, from and to generation.

    by: the checkouts that it was done from, "" where the line does not say.
    """

    when: int
    who: str
    event: str
    source: int
    to: int
    what: str
    kept: bool
    current: bool
    by: str = ""


def read_history(host: Host, root: str, sudo: bool) -> list[Entry]:
    """What was applied to a machine, oldest first."""
    result = host.run(program("history", root=root), sudo=sudo, timeout=60)
    kept: set[int] = set()
    current = 0
    rows: list[list[str]] = []
    for line in result.out.splitlines():
        kind, *fields = line.split("\t")
        if kind == "kept":
            kept.add(_number(fields[0]))
        elif kind == "current":
            current = _number(fields[0].rpartition("/")[2])
        elif kind == "entry" and len(fields) >= 6 and fields[0].isdigit():
            rows.append(fields)
    entries = []
    for when, who, event, source, to, what, by in ([*row, ""][:7] for row in rows):
        number = _number(to)
        # A release that failed is gone, and its number may be another's by now.
        stays = event != "rolled-back"
        entries.append(
            Entry(
                int(when), who, event, _number(source), number, what,
                kept=stays and number in kept, current=stays and number == current,
                by=by,
            )
        )  # fmt: skip
    return entries


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
