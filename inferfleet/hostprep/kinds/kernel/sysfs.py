"""Values in /sys: written live, written again at every start by a tmpfiles.d drop-in."""

from __future__ import annotations

import re
from collections.abc import Iterable

from inferfleet.hostprep.facts import Facts, Look, matches
from inferfleet.hostprep.setting import Change, Finding, Ground, Judgement, Wanted
from inferfleet.hostprep.steps import PutFile, Write

OURS = "/etc/tmpfiles.d/90-inferbase.conf"
# Files that list their choices and mark the one in force: always [madvise] never.
_CHOICE = re.compile(r"\[([^\]]+)\]")
HEAD = "# Made by inferbase; `invoke hostprep.rollback` takes it away.\n"


def shown(text: str) -> str:
    """The value in force of a file of /sys."""
    text = text.strip()
    chosen = _CHOICE.search(text)
    return chosen[1] if chosen else text


def tmpfiles_line(path: str, value: str) -> str:
    """A line that writes a value at every start; its % are specifiers, doubled here."""
    return f"w {path.replace('%', '%%')} - - - - {value.replace('%', '%%')}\n"


class Sysfs:
    """The kind `sysfs`."""

    def look(self, ground: Ground) -> Look:
        return Look((OURS, *(wanted.key for wanted in ground.of("sysfs"))))

    def judge(self, ground: Ground, facts: Facts) -> Judgement:
        settings = ground.of("sysfs")
        there = [w for w in settings if facts.matching(w.key)]
        lines = (tmpfiles_line(w.key, str(w.value)) for w in there)
        ours = HEAD + "".join(lines) if there else None
        findings = [_finding(wanted, facts) for wanted in settings]
        changes = [change for wanted in there for change in _changes(wanted, facts)]
        return Judgement(tuple(findings), (PutFile(OURS, ours),), tuple(changes))


def values_change(name: str, values: Iterable[tuple[str, str]], value: str) -> Change | None:
    """One change that writes value to each (path, value now) that has another; None if all do."""
    old = [(path, shown(text)) for path, text in values if shown(text) != value]
    if not old:
        return None
    words = ", ".join(dict.fromkeys(one for _, one in old))
    return Change(
        (name,),
        f"{words} -> {value}" + (f" ({len(old)} files)" if len(old) > 1 else ""),
        tuple(Write(path, value) for path, _ in old),
        tuple(Write(path, one) for path, one in old),
    )


def _finding(wanted: Wanted, facts: Facts) -> Finding:
    value = str(wanted.value)
    found = {shown(text) for text in facts.matching(wanted.key).values()}
    line = tmpfiles_line(wanted.key, value)
    kept = line in (facts.text(OURS) or "").splitlines(keepends=True)
    persisted = value if kept else "-"
    if not found:
        closed = any(matches(path, wanted.key) for path in facts.closed)
        if closed:
            return Finding(wanted, "-", persisted, "unknown", "only root may read it")
        return Finding(wanted, "-", persisted, "unsupported", "this machine has no such file")
    live = ", ".join(sorted(found))
    return Finding(wanted, live, persisted, "ok" if found == {value} and kept else "differs")


def _changes(wanted: Wanted, facts: Facts) -> list[Change]:
    change = values_change(wanted.name, facts.matching(wanted.key).items(), str(wanted.value))
    return [change] if change else []
