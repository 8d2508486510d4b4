"""File systems that are mounted at every start: a .mount unit of ours for each mount point."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from inferfleet.escape import systemd_path
from inferfleet.hostprep.facts import Facts, Look, literal
from inferfleet.hostprep.kinds import back
from inferfleet.hostprep.kinds.boot import RELOAD
from inferfleet.hostprep.kinds.kernel.sysfs import HEAD
from inferfleet.hostprep.kinds.storage import mounted
from inferfleet.hostprep.kinds.system import unitstate
from inferfleet.hostprep.kinds.system.units import NO_SYSTEMD
from inferfleet.hostprep.kinds.system.unitstate import FOLDER, mount_unit
from inferfleet.hostprep.setting import Change, Finding, Ground, Judgement, Wanted
from inferfleet.hostprep.steps import PutFile, Run, Step

# Starts all that is mounted locally; a mount of ours that fails does not fail it.
TARGET = "local-fs.target"
DROP_IN = f"{FOLDER}/{TARGET}.d/90-inferbase.conf"
_ALL = f"{FOLDER}/*.mount"


class Mounts:
    """The kind `mounts`. A mount point that /etc/fstab or another unit serves is left to them."""

    def look(self, ground: Ground) -> Look:
        settings = ground.of("mounts")
        paths = (DROP_IN, _ALL, mounted.TABLE)
        if not settings:
            return Look(paths)
        units = [literal(_file(wanted)) for wanted in settings]
        points = [literal(str(path)) for w in settings for path in _folders(w.key)]
        sources = [literal(w.value["what"]) for w in settings if w.value["what"][:1] == "/"]
        return Look(
            (*paths, mounted.FSTAB, *units),
            unitstate.probe(ground),
            tuple(dict.fromkeys((*points, *sources, *units))),
        )

    def judge(self, ground: Ground, facts: Facts) -> Judgement:
        findings = [_finding(wanted, facts) for wanted in ground.of("mounts")]
        ours = [f.wanted for f in findings if _is_ours(f, facts)]
        files = [
            PutFile(_file(w), unit_text(w), after=RELOAD, reboot=_waits(w, facts)) for w in ours
        ]
        kept = {file.path for file in files}
        gone = [path for path in _left(facts) if path not in kept]
        files += [PutFile(path, None, after=RELOAD) for path in gone]
        names = " ".join(mount_unit(wanted.key) for wanted in ours)
        wants = f"{HEAD}[Unit]\nWants={names}\n" if ours else None
        files.append(PutFile(DROP_IN, wants, after=RELOAD))
        changes = [_mount(w, facts) for w in ours if not mounted.at(facts, w.key)]
        changes += _umounts(gone, facts)
        return Judgement(tuple(findings), tuple(files), tuple(changes))


def unit_text(wanted: Wanted) -> str:
    """The .mount unit."""
    value = wanted.value
    options = f"Options={systemd_path(value['options'])}\n" if value.get("options") else ""
    return (
        f"{HEAD}[Unit]\nDescription={systemd_path(wanted.key)} (inferbase)\n\n[Mount]\n"
        f"What={systemd_path(value['what'])}\nWhere={systemd_path(wanted.key)}\n"
        f"Type={systemd_path(value['type'])}\n{options}"
    )


def _finding(wanted: Wanted, facts: Facts) -> Finding:
    entry = mounted.at(facts, wanted.key)
    live = f"{entry.type} {entry.options}" if entry else "not mounted"
    wrong = mounted.differs(entry, wanted, facts) if entry else "not mounted"
    unit = (unitstate.units(facts) or {}).get(mount_unit(wanted.key))
    if unit is None:
        return Finding(wanted, live, "-", "unknown", NO_SYSTEMD)
    stat = facts.stats.get(wanted.key)
    if stat is not None and stat.kind != "directory":
        remedy = f"{wanted.key} is a {stat.kind}; a mount point must be a directory"
        return Finding(wanted, live, "-", "advice", remedy)
    if mounted.in_fstab(facts, wanted.key):
        remedy = f"{mounted.FSTAB} has {wanted.key}, too: change or remove its line there"
        verdict = ("advice", remedy) if wrong else ("ok", "")
        return Finding(wanted, live, mounted.FSTAB, *verdict)  # type: ignore[arg-type]
    file = _file(wanted)
    kept = facts.text(file) == unit_text(wanted) and mount_unit(wanted.key) in _wanted(facts)
    if not kept and not wrong and unit.file and unit.file != file:
        return Finding(wanted, live, unit.file, "ok")
    foreign = facts.text(file) is not None and file not in _left(facts)
    if foreign:
        remedy = f"{file} is not inferbase's: change it there, or remove it"
        return Finding(wanted, live, file, "advice" if wrong else "ok", remedy if wrong else "")
    persisted = file if kept else "-"
    if entry and wrong:
        remedy = f"it is mounted with another {wrong}: the next start of the machine mends it"
        return Finding(wanted, live, persisted, "pending" if kept else "differs", remedy)
    return Finding(wanted, live, persisted, "ok" if kept and entry else "differs")


def _is_ours(finding: Finding, facts: Facts) -> bool:
    """Whether our unit serves it, or will: all but what others serve and what cannot be."""
    file = _file(finding.wanted)
    if finding.verdict == "unknown":
        return file in _left(facts)
    return finding.verdict in ("differs", "pending") or (
        finding.verdict == "ok" and finding.persisted == file and file in _left(facts)
    )


def _waits(wanted: Wanted, facts: Facts) -> str:
    """Why the unit counts only after a start, "" when it does now."""
    entry = mounted.at(facts, wanted.key)
    wrong = mounted.differs(entry, wanted, facts) if entry else ""
    return f"{wanted.key} is mounted with another {wrong}" if wrong else ""


def _mount(wanted: Wanted, facts: Facts) -> Change:
    """Started by systemd; the folders above that are made for it are taken away again."""
    new = [path for path in _folders(wanted.key) if path not in facts.stats]
    unit = mount_unit(wanted.key)
    do: list[Step] = [Run(("mkdir", "-p", "--", wanted.key))] if new else []
    do.append(Run(("systemctl", "--quiet", "start", unit)))
    undo: list[Step] = [back.umount(wanted.key)]
    undo += [back.rmdir(new)] if new else []
    return Change((wanted.name,), "not mounted -> mounted", tuple(do), tuple(undo))


def _umounts(files: list[str], facts: Facts) -> Iterator[Change]:
    """What units of an earlier run have mounted and nobody wants any more."""
    for file in files:
        found = re.search(r"^Where=(.*)$", facts.text(file) or "", re.MULTILINE)
        entry = mounted.at(facts, found[1].replace("%%", "%")) if found else None
        if entry:
            do = Run(("umount", "--", entry.where))
            undo = back.mount(entry.type, entry.options, entry.what, entry.where)
            yield Change((entry.where,), "mounted -> not mounted", (do,), (undo,))


def _folders(path: str) -> list[str]:
    """The mount point and all above it but the root, the deepest first."""
    return [str(folder) for folder in (PurePosixPath(path), *PurePosixPath(path).parents)][:-1]


def _left(facts: Facts) -> list[str]:
    """Units that inferbase has made, in this run or an earlier one."""
    return [path for path, text in facts.matching(_ALL).items() if text.startswith(HEAD)]


def _wanted(facts: Facts) -> list[str]:
    """Units that our drop-in has started."""
    found = re.search(r"^Wants=(.*)$", facts.text(DROP_IN) or "", re.MULTILINE)
    return found[1].split(" ") if found else []


def _file(wanted: Wanted) -> str:
    return f"{FOLDER}/{mount_unit(wanted.key)}"
