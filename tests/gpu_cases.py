"""What the tests of GPU kinds share: settings, facts from recorded reports, names of verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inferfleet.hostprep.facts import Answer, Facts, Stat
from inferfleet.hostprep.kinds import boot
from inferfleet.hostprep.kinds.gpu.nvidia import HELPER, helper
from inferfleet.hostprep.setting import Finding, Ground, Judgement, Kind, Wanted
from inferfleet.hostprep.steps import PutFile, Run

CASES = Path(__file__).parent / "cases" / "gpu"
T4 = "GPU-d37e67a5-91dd-3774-a5cb-99096249601a"
RTX = "GPU-5090aaaa-1111-2222-3333-444455556666"
SPARK = "GPU-e8574d59-a46c-d820-e2b6-a55e3b030f89"
H100 = "GPU-f4548330-27be-041a-ad8e-95b3005644b8"


def ground(kind: str, settings: Mapping[str, Any], **hardware: Any) -> Ground:
    """Settings of one kind; hardware: keys of a hardware file with _ for -."""
    wanted = tuple(Wanted(kind, key, value) for key, value in settings.items())
    return Ground(wanted, {key.replace("_", "-"): value for key, value in hardware.items()})


def report(case: str, *changes: tuple[str, str]) -> str:
    """A recorded report, with texts replaced that must be in it."""
    text = (CASES / f"{case}.xml").read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


def seen(
    case: str | None,
    *changes: tuple[str, str],
    files: Mapping[str, str] | None = None,
    probes: Mapping[str, Answer] | None = None,
    stats: tuple[str, ...] = (),
) -> Facts:
    """Facts with a report of nvidia-smi; case None: there is none."""
    smi = {"nvidia-smi": Answer(0, report(case, *changes))} if case else {}
    there = {path: Stat("character special file", "666", "root", "root", "5") for path in stats}
    return Facts(dict(files or {}), probes={**smi, **(probes or {})}, stats=there)


def booted(*lines: str, **more: str) -> dict[str, str]:
    """The files of a boot script with these lines that is run at every start."""
    body = "failed=0\n" + "".join(f"{line}\n" for line in lines) + "exit $failed\n"
    return {boot.SCRIPT: body, boot.WANTS: "unit", **more}


def one(kind: Kind, wanted: Ground, facts: Facts) -> Finding:
    """The finding of the only setting."""
    (finding,) = kind.judge(wanted, facts).findings
    return finding


def verdict(kind: Kind, wanted: Ground, facts: Facts) -> tuple[str, str, str]:
    """verdict, live, persisted of the only setting."""
    found = one(kind, wanted, facts)
    return found.verdict, found.live, found.persisted


def argvs(judgement: Judgement, undo: bool = False) -> list[tuple[str, ...]]:
    """What is run, in order; of the undo: in the order in which it must run, without `back`.

    An undo that uses the helper brings it first.
    """
    changes = reversed(judgement.changes) if undo else judgement.changes
    steps = [step for change in changes for step in (change.undo if undo else change.do)]
    found = []
    brought = not undo
    for step in steps:
        if isinstance(step, PutFile):
            assert step == helper()
            brought = True
        elif isinstance(step, Run) and HELPER in step.argv:
            assert brought
            assert not undo or step.argv[-1] == "back"
            found.append(step.argv[:-1] if undo else step.argv)
        else:
            assert isinstance(step, Run)
            found.append(step.argv)
    return found


def contents(judgement: Judgement) -> dict[str, str | None]:
    """Files that are wanted."""
    return {file.path: file.content for file in judgement.files if isinstance(file, PutFile)}
