"""The shell programs of host preparation: one run, and the undo that it leaves behind. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from inferfleet.apply.apply import KEEP_GENERATIONS, operator
from inferfleet.hostprep.facts import look_script
from inferfleet.hostprep.judge import Prepared, do_steps, look_for
from inferfleet.hostprep.setting import Ground, Kind
from inferfleet.hostprep.steps import Restore, Step, Write, dump, reloads, shell
from inferfleet.remote import program


def act_script(
    ground: Ground,
    prepared: Prepared,
    kinds: Mapping[str, Kind],
    number: int,
    *,
    silence: int,
    cut: int,
    slow: int,
) -> str:
    """The shell program of one run. silence, cut, slow: seconds, see remote/hostprep.sh."""
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    done = do_steps(prepared.files, prepared.changes)
    lines = [
        f"  attempt {shlex.quote(' '.join(text.split()))} {shell(step)} || return 1"
        for text, steps in done
        for step in steps
    ]
    record = {
        "number": number, "when": when, "who": operator(),
        "settings": [name for change in prepared.changes for name in change.settings],
        "undo": [dump(step) for step in prepared.undo],
    }  # fmt: skip
    undo = undo_script(f"{ground.state}/{number}", prepared.undo)
    return "\n".join(
        [
            program(
                "talk", "lock", "steps", "timer", "gpu-containers", "hostprep",
                state=ground.state, units=ground.units, number=number,
                who=operator(), when=when, what="hostprep",
                keep=KEEP_GENERATIONS,
                silence=silence, cut=cut, slow=slow, undo=undo,
                reloads=_reloads(step for _, steps in done for step in steps),
                record=json.dumps(record, separators=(",", ":")),
                look=look_script(look_for(ground, kinds)),
            ),
            "forward() {",
            *(lines or ["  :"]),
            "}",
            "main",
            "",
        ]
    )  # fmt: skip


def undo_script(folder: str, steps: Sequence[Step]) -> str:
    """undo.sh of a generation, which lies in this folder; no failure of a step stops it."""
    lines = []
    for step in steps:
        line = shell(step)
        if isinstance(step, Write):
            line = f"write_back {shlex.quote(step.path)} {shlex.quote(step.value)}"
        text = step.path if isinstance(step, Restore) else line
        lines.append(f'( {line} ) 2>&1 || failed="$failed "{shlex.quote(text)}')
    head = program(
        "steps", "gpu-containers",
        state=folder.rpartition("/")[0], dir=folder, reloads=_reloads(steps),
    )  # fmt: skip
    path = "PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin\nexport PATH\nfailed=\n"
    return "\n".join([path + head, *lines, program("undo")])


def _reloads(steps: Iterable[Step]) -> str:
    return "yes" if any(map(reloads, steps)) else ""
