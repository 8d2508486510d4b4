"""Findings and changes as rows, lines and data."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from inferfleet.hostprep.judge import Prepared
from inferfleet.hostprep.setting import Finding
from inferfleet.hostprep.steps import shell

COLUMNS = ["machine", "setting", "wanted", "live", "persisted", "verdict", "remedy"]
# A wanted value that is longer, such as the text of a file, is only named in a table.
LONGEST = 40
# What has no remedy of its own is what inferbase changes.
MENDS = {"differs": "`invoke hostprep.apply`", "not persisted": "`invoke hostprep.apply`"}


def rows(machine: str, prepared: Prepared) -> list[dict[str, Any]]:
    """A row for each setting."""
    return [_row(machine, finding) for finding in prepared.findings]


def plan_lines(prepared: Prepared) -> Iterator[str]:
    """What would change: a unified diff for each file, a line for each live value, reboots."""
    for file in prepared.files:
        before = (prepared.old[file.path] or "").splitlines()
        after = (file.content or "").splitlines()
        old = file.path if prepared.old[file.path] is not None else "/dev/null"
        new = file.path if file.content is not None else "/dev/null"
        yield from difflib.unified_diff(before, after, old, new, lineterm="", n=2)
    for change in prepared.changes:
        if change.do:
            yield f"~ {', '.join(change.settings)}: {change.text}"
    yield from reboots(prepared)


def reboots(prepared: Prepared) -> list[str]:
    """What needs a restart of the machine, from changes and from what an earlier run wrote."""
    waiting = [f.wanted.name for f in prepared.findings if f.verdict == "pending"]
    found = [f"{', '.join(c.settings)} ({c.reboot})" for c in prepared.changes if c.reboot]
    return [f"reboot needed: {', '.join(found + waiting)}"] if found or waiting else []


def costs(prepared: Prepared) -> list[str]:
    """What accepted settings take away."""
    return [
        f"{finding.wanted.name} has a cost: {finding.wanted.cost}"
        for finding in prepared.findings
        if finding.wanted.cost
    ]


def plan_data(machine: str, prepared: Prepared) -> dict[str, Any]:
    """The plan for programs."""
    return {
        "machine": machine,
        "files": [
            {"path": file.path, "before": prepared.old[file.path], "after": file.content}
            for file in prepared.files
        ],
        "changes": [
            {
                "settings": list(change.settings),
                "text": change.text,
                "do": [shell(step) for step in change.do],
                "undo": [shell(step) for step in change.undo],
                "reboot": change.reboot,
                "cuts": change.cuts,
            }
            for change in prepared.changes
        ],
        "settings": rows(machine, prepared),
    }


def undo_lines(record: Mapping[str, Any]) -> list[str]:
    """What an undo will do, from the record of its generation."""
    lines = [f"generation {record['number']} of {record['when']} by {record['who']}:"]
    for step in record["undo"]:
        if "restore" in step:
            lines.append(f"  ~ {step['restore']}: as it was before")
        elif "write" in step:
            lines.append(f"  ~ {step['write']}: -> {step['value']}")
        elif "put" in step:
            lines.append(f"  ~ {step['put']}")
        else:
            lines.append(f"  ~ run {' '.join(step['run'])}")
    return lines


def _row(machine: str, finding: Finding) -> dict[str, Any]:
    wanted = finding.wanted
    return {
        "machine": machine,
        "setting": wanted.name,
        "wanted": _short(wanted.value),
        "live": finding.live,
        "persisted": finding.persisted,
        "verdict": finding.verdict,
        "remedy": finding.remedy or MENDS.get(finding.verdict, ""),
        "why": wanted.why,
        "origin": wanted.origin,
    }


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        value = ", ".join(f"{key} {one}" for key, one in value.items() if one is not None)
    text = str(value).partition("\n")[0]
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
