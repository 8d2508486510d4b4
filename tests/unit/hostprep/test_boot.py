"""What a start of the machine does again: the script, its unit, both gone when nothing needs it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tools import needs

from inferfleet.hostprep.facts import Facts
from inferfleet.hostprep.kinds import boot
from inferfleet.hostprep.steps import Run

LINES = ("try nvidia-smi -pl 400", "try write 1 /sys/x")


def files(found: boot.Judgement) -> dict[str, str | None]:
    return {file.path: file.content for file in found.files}


def applied(lines: tuple[str, ...]) -> dict[str, str]:
    """The machine with them; the link shows the text of the unit."""
    texts = {path: text for path, text in files(boot.judge(lines, Facts())).items() if text}
    return {**texts, boot.WANTS: texts[boot.UNIT_FILE]}


def test_nothing_at_boot_and_nothing_there() -> None:
    found = boot.judge((), Facts())
    assert files(found) == {boot.SCRIPT: None, boot.UNIT_FILE: None}
    assert found.changes == ()
    assert found.findings == ()


def test_lines_make_a_script_a_unit_and_a_link() -> None:
    found = boot.judge(LINES, Facts())
    assert {f.path: (f.mode, f.after) for f in found.files} == {
        boot.SCRIPT: (0o755, ()),
        boot.UNIT_FILE: (0o644, boot.RELOAD),
    }
    script = files(found)[boot.SCRIPT] or ""
    assert script.index(LINES[0]) < script.index(LINES[1])
    (change,) = found.changes
    assert change.settings == (boot.UNIT,)
    assert change.do == (Run(("ln", "-sfn", boot.UNIT_FILE, boot.WANTS)),)
    assert change.undo == (Run(("rm", "-f", boot.WANTS)),)


def test_the_same_lines_change_nothing() -> None:
    there = applied(LINES)
    found = boot.judge(LINES, Facts(there))
    assert found.changes == ()
    assert all(there[path] == text for path, text in files(found).items())


def test_other_lines_change_the_script_alone() -> None:
    there = applied(LINES)
    found = files(boot.judge(LINES[:1], Facts(there)))
    assert found[boot.UNIT_FILE] == there[boot.UNIT_FILE]
    assert found[boot.SCRIPT] != there[boot.SCRIPT]


def test_no_lines_any_more_take_all_of_it_away() -> None:
    found = boot.judge((), Facts(applied(LINES)))
    assert files(found) == {boot.SCRIPT: None, boot.UNIT_FILE: None}
    (change,) = found.changes
    assert change.do == (Run(("rm", "-f", boot.WANTS)),)
    assert change.undo == (Run(("ln", "-sfn", boot.UNIT_FILE, boot.WANTS)),)


def test_a_unit_that_somebody_has_disabled_is_enabled() -> None:
    there = applied(LINES)
    del there[boot.WANTS]
    assert [change.text for change in boot.judge(LINES, Facts(there)).changes] == [
        "enabled at every start"
    ]


def test_look_asks_for_all_three() -> None:
    assert set(boot.look().paths) == {boot.SCRIPT, boot.UNIT_FILE, boot.WANTS}


@pytest.mark.parametrize(
    ("lines", "status", "out"),
    [
        (("try echo a", "try echo b"), 0, "a\nb\n"),
        (("try false", "try echo b"), 1, "b\n"),
        (("try inferbase-no-such-program", "try echo 'it is'"), 1, "it is\n"),
    ],
)
def test_a_line_that_fails_stops_none_of_the_others(
    lines: tuple[str, ...], status: int, out: str, tmp_path: Path
) -> None:
    script = tmp_path / "boot.sh"
    script.write_text(files(boot.judge(lines, Facts()))[boot.SCRIPT] or "")
    done = subprocess.run(["sh", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, out)


@needs("systemd-analyze")
def test_the_unit_is_clean_and_closed(tmp_path: Path) -> None:
    unit = tmp_path / boot.UNIT
    unit.write_text(files(boot.judge(LINES, Facts()))[boot.UNIT_FILE] or "")
    verify = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (verify.returncode, verify.stderr) == (0, "")
    # Root with the hardware in hand cannot be shut in as a service is; the rest is.
    security = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=45", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert security.returncode == 0, security.stdout
