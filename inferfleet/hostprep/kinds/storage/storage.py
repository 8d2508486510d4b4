"""Directories with owner and mode, on the disk that they belong on, with space left there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from inferfleet.hostprep.facts import Facts, Look
from inferfleet.hostprep.setting import Change, Finding, Ground, Judgement, Wanted
from inferfleet.hostprep.space import Space, free_words, parse_space, shortage
from inferfleet.hostprep.steps import Run, Step

MOUNTS = "/proc/self/mountinfo"
SPACE = "storage-space"
# What a look can ask for; other characters would be patterns of the shell.
_PLAIN = re.compile("[A-Za-z0-9_./:@+,=~-]+")
_DIRECTORY = "directory"
# The look was a moment ago: a disk that went away since must not get its directory elsewhere.
_GUARD = (
    '[ "$(stat -L -c %d "$1")" != "$(stat -L -c %d /)" ] && exit 0; '
    'echo "$1 lies on the root disk" >&2; exit 1'
)


class Storage:
    """The kind `storage`."""

    def look(self, ground: Ground) -> Look:
        settings = [wanted for wanted in ground.of("storage") if _PLAIN.fullmatch(wanted.key)]
        if not settings:
            return Look()
        paths = [path for wanted in settings for path in (wanted.key, *_parents(wanted.key))]
        measured = [wanted.key for wanted in settings if wanted.value.get("min-free")]
        probes = {}
        if measured:
            probes[SPACE] = ("stat", "-f", "-c", "%n\t%S\t%b\t%a", *measured)
        accounts = ("/etc/passwd", "/etc/group")
        return Look((MOUNTS, *accounts), probes, tuple(dict.fromkeys(paths)))

    def judge(self, ground: Ground, facts: Facts) -> Judgement:
        findings: list[Finding] = []
        changes: list[Change] = []
        spaces = parse_space(facts.probe(SPACE).out)
        for wanted in ground.of("storage"):
            refusal = _refusal(wanted, facts)
            if refusal is not None:
                findings.append(refusal)
            else:
                change = _change(wanted, facts)
                shown = _shown(wanted.key, facts)
                findings.append(Finding(wanted, shown, shown, "differs" if change else "ok"))
                changes += [change] if change else []
            if wanted.value.get("min-free"):
                findings.append(_space(wanted, spaces.get(wanted.key)))
        return Judgement(tuple(findings), (), tuple(changes))


def _refusal(wanted: Wanted, facts: Facts) -> Finding | None:
    """Why nothing is done about a directory; None when something can be."""
    path = wanted.key
    if not _PLAIN.fullmatch(path):
        return Finding(wanted, "-", "-", "unknown", "only letters, digits and ._/:@+,=~- can "
                       "be looked at in a path")  # fmt: skip
    root, near = facts.stats.get("/"), _nearest(path, facts)
    if root is None or near is None:
        return Finding(wanted, "-", "-", "unknown", "stat says nothing of it")
    shown = _shown(path, facts)
    found = facts.stats.get(path)
    if found is not None and found.kind != _DIRECTORY:
        return Finding(wanted, found.kind, found.kind, "advice", "move it away: a directory "
                       "belongs there")  # fmt: skip
    if wanted.value.get("mount") and _on_root_disk(near, facts):
        remedy = (
            f"mount the disk that {path} belongs on (mounts: in the machine file, or /etc/fstab); "
            "until then nothing is made there, because it would lie on the root disk"
        )
        return Finding(wanted, shown, shown, "absent", remedy)
    for key, file in (("owner", "/etc/passwd"), ("group", "/etc/group")):
        name, text = wanted.value.get(key), facts.text(file)
        # Names from elsewhere (LDAP) stand in neither; one that the directory has is known.
        known = text is None or any(line.startswith(f"{name}:") for line in text.splitlines())
        if name and not known and (found is None or getattr(found, key) != name):
            what = "user" if key == "owner" else "group"
            tool = "useradd --system" if key == "owner" else "groupadd --system"
            remedy = f"there is no {what} {name}: `{tool} {name}`, or name another"
            return Finding(wanted, shown, shown, "absent", remedy)
    return None


def _change(wanted: Wanted, facts: Facts) -> Change | None:
    path, found = wanted.key, facts.stats.get(wanted.key)
    owner, group, mode = (wanted.value.get(key) for key in ("owner", "group", "mode"))
    near = _nearest(path, facts)
    do: list[Step] = []
    undo: list[Step] = []
    words = []
    if wanted.value.get("mount") and near:
        do.append(Run(("sh", "-c", _GUARD, "inferbase", near)))
    if found is None:
        do.append(Run(("mkdir", "-p", path)))
        made = [part for part in (path, *_parents(path)) if part not in facts.stats]
        # What was put there since stays: rmdir takes only empty ones away.
        undo += [Run(("rmdir", part), quiet=True) for part in made]
        words.append("made")
    who = f"{owner or ''}{f':{group}' if group else ''}"
    if (owner and (not found or found.owner != owner)) or (
        group and (not found or found.group != group)
    ):
        do.append(Run(("chown", who, path)))
        words.append(f"{_owners(found.owner, found.group)} -> {who}" if found else who)
        if found:
            undo.insert(0, Run(("chown", _owners(found.owner, found.group), path)))
    if mode and (not found or int(found.mode, 8) != int(mode, 8)):
        do.append(Run(("chmod", mode, path)))
        words.append(f"{found.mode} -> {mode}" if found else mode)
        if found:
            undo.append(Run(("chmod", found.mode, path)))
    return Change((wanted.name,), ", ".join(words), tuple(do), tuple(undo)) if words else None


def _space(wanted: Wanted, space: Space | None) -> Finding:
    """Its own finding: how full a disk is must not undo what was made of a directory."""
    least = wanted.value["min-free"]
    setting = replace(wanted, key=f"{wanted.key} min-free", value=free_words(least))
    if space is None:
        return Finding(setting, "-", "-", "unknown", "its free space cannot be read")
    live = free_words(space.free)
    if not shortage(space, least):
        return Finding(setting, live, live, "ok")
    return Finding(setting, live, live, "advice", "move or remove something there, models that no "
                   "service uses first")  # fmt: skip


def _on_root_disk(path: str, facts: Facts) -> bool:
    """Whether a directory lies on the root disk: same device number, or a mount of its source."""
    if facts.stats[path].device == facts.stats["/"].device:
        return True
    source = dict(_mounts(facts.text(MOUNTS) or ""))
    points = [point for point in source if f"{path}/".startswith(f"{point.rstrip('/')}/")]
    # Subvolumes have device numbers of their own on the same disk.
    inner = source.get(max(points, key=len, default=""), "")
    return inner.startswith("/dev/") and inner == source.get("/")


def _mounts(text: str) -> Iterator[tuple[str, str]]:
    """(mount point, source) of each line of proc(5) mountinfo; later ones lie over earlier."""
    for line in text.splitlines():
        head, dash, tail = line.partition(" - ")
        fields, rest = head.split(), tail.split()
        if dash and len(fields) > 4 and len(rest) > 1:
            yield fields[4].replace("\\040", " "), rest[1]


def _nearest(path: str, facts: Facts) -> str | None:
    return next((part for part in (path, *_parents(path)) if part in facts.stats), None)


def _parents(path: str) -> list[str]:
    """The directories above a path, nearest first."""
    return [str(parent) for parent in PurePosixPath(path).parents]


def _owners(owner: str, group: str) -> str:
    return f"{owner}:{group}"


def _shown(path: str, facts: Facts) -> str:
    found = facts.stats.get(path)
    return f"{_owners(found.owner, found.group)} 0{found.mode}" if found else "-"
