"""Facts in, a judgement out, and the same facts after the changes: for tables of kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from inferfleet.hostprep.facts import Facts
from inferfleet.hostprep.setting import Change, Finding, Ground, Judgement, Wanted
from inferfleet.hostprep.steps import PutFile, Step, Write


def ground(kind: str, settings: dict[str, Any], **hardware: Any) -> Ground:
    """All settings of one kind, each with a reason."""
    wanted = tuple(Wanted(kind, key, value, f"why {key}") for key, value in settings.items())
    return Ground(wanted, hardware)


def one(judgement: Judgement) -> Finding:
    """The only finding."""
    (finding,) = judgement.findings
    return finding


def seen(finding: Finding) -> tuple[str, str, str]:
    return (finding.live, finding.persisted, finding.verdict)


def after(facts: Facts, judgement: Judgement) -> Facts:
    """The machine after the files are put and the values are written."""
    return _written(facts, [*judgement.files, *_all(judgement.changes, "do")])


def back(facts: Facts, judgement: Judgement, before: Facts) -> Facts:
    """The machine after the undo; files come back as they were before."""
    files = dict(facts.files)
    for file in judgement.files:
        files.pop(file.path, None)
        if file.path in before.files:
            files[file.path] = before.files[file.path]
    steps = [s for change in reversed(judgement.changes) for s in change.undo]
    return _written(replace(facts, files=files), steps)


def _all(changes: Sequence[Change], name: str) -> list[Step]:
    return [step for change in changes for step in getattr(change, name)]


def _written(facts: Facts, steps: Sequence[Step]) -> Facts:
    files = dict(facts.files)
    for step in steps:
        match step:
            case Write(path, value):
                files[path] = f"{value}\n"
            case PutFile(path, None):
                files.pop(path, None)
            case PutFile(path, str(content)):
                files[path] = content
            case _:
                raise AssertionError(f"a table does not run {step}")
    return replace(facts, files=files)
