"""Values in /sys: (wanted, found) to verdict, tmpfiles.d lines, live values and their undo."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hostprep_table import after, back, ground, one, seen
from tools import needs

from inferfleet.hostprep.facts import Facts
from inferfleet.hostprep.kinds.kernel.sysfs import HEAD, OURS, Sysfs, shown, tmpfiles_line
from inferfleet.hostprep.setting import Ground, Judgement
from inferfleet.hostprep.steps import Write

THP = "/sys/kernel/mm/transparent_hugepage/enabled"
KHUGEPAGED = "/sys/kernel/mm/transparent_hugepage/khugepaged/defrag"
LINE = f"w {THP} - - - - madvise\n"
GOVERNORS = "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
CPU = [GOVERNORS.replace("*", str(number)) for number in range(3)]


def judge(settings: dict[str, object], files: dict[str, str], **more: object) -> Judgement:
    return Sysfs().judge(ground("sysfs", settings), Facts(files, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1\n", "1"),
        ("always [madvise] never\n", "madvise"),
        ("[always] madvise never", "always"),
        ("always defer defer+madvise [madvise] never\n", "madvise"),
        ("[none] mq-deadline\n", "none"),
        ("\n", ""),
        ("0-3,8\n", "0-3,8"),
    ],
)
def test_the_value_in_force(text: str, value: str) -> None:
    assert shown(text) == value


def test_differs_and_is_changed_and_persisted() -> None:
    before = Facts({THP: "[always] madvise never\n"})
    wanted = ground("sysfs", {THP: "madvise"})
    found = Sysfs().judge(wanted, before)
    assert seen(one(found)) == ("always", "-", "differs")
    assert [(file.path, file.content) for file in found.files] == [(OURS, HEAD + LINE)]
    (change,) = found.changes
    assert change.settings == (f"sysfs.{THP}",)
    assert change.text == "always -> madvise"
    assert change.do == (Write(THP, "madvise"),)
    assert change.undo == (Write(THP, "always"),)
    changed = after(before, found)
    assert seen(one(Sysfs().judge(wanted, changed))) == ("madvise", "madvise", "ok")
    assert shown(back(changed, found, before).files[THP]) == "always"
    assert OURS not in back(changed, found, before).files


def test_nothing_changes_what_is_as_wanted() -> None:
    found = judge({THP: "madvise"}, {THP: "always [madvise] never\n", OURS: HEAD + LINE})
    assert seen(one(found)) == ("madvise", "madvise", "ok")
    assert found.changes == ()
    assert found.files[0].content == HEAD + LINE


@pytest.mark.parametrize("ours", [None, "", HEAD, LINE.replace("madvise", "never"), f"#{LINE}"])
def test_only_persisted_is_missing(ours: str | None) -> None:
    files = {THP: "always [madvise] never\n", **({OURS: ours} if ours is not None else {})}
    found = judge({THP: "madvise"}, files)
    assert seen(one(found)) == ("madvise", "-", "differs")
    assert found.changes == ()
    assert found.files[0].content == HEAD + LINE


def test_a_number_is_text() -> None:
    found = judge({KHUGEPAGED: 0}, {KHUGEPAGED: "1\n"})
    assert found.changes[0].do == (Write(KHUGEPAGED, "0"),)
    assert one(judge({KHUGEPAGED: 0}, {KHUGEPAGED: "0\n", OURS: found.files[0].content or ""}))


def test_a_pattern_is_written_where_it_differs() -> None:
    before = Facts({CPU[0]: "powersave\n", CPU[1]: "performance\n", CPU[2]: "schedutil\n"})
    wanted = ground("sysfs", {GOVERNORS: "performance"})
    found = Sysfs().judge(wanted, before)
    assert seen(one(found)) == ("performance, powersave, schedutil", "-", "differs")
    (change,) = found.changes
    assert change.text == "powersave, schedutil -> performance (2 files)"
    assert change.do == (Write(CPU[0], "performance"), Write(CPU[2], "performance"))
    assert change.undo == (Write(CPU[0], "powersave"), Write(CPU[2], "schedutil"))
    assert f"w {GOVERNORS} - - - - performance\n" in (found.files[0].content or "")
    changed = after(before, found)
    assert one(Sysfs().judge(wanted, changed)).verdict == "ok"
    assert back(changed, found, before).files == before.files


def test_what_this_hardware_has_not_is_unsupported() -> None:
    found = judge({GOVERNORS: "performance", THP: "never"}, {THP: "always madvise [never]\n"})
    missing, there = found.findings
    assert seen(missing) == ("-", "-", "unsupported")
    assert there.verdict == "differs"
    assert found.changes == ()
    assert GOVERNORS not in (found.files[0].content or "")


def test_a_closed_file_is_unknown() -> None:
    found = judge({THP: "madvise"}, {}, closed=frozenset([THP]))
    assert seen(one(found)) == ("-", "-", "unknown")
    assert found.changes == ()
    assert found.files[0].content is None


def test_nothing_wanted_takes_our_file_away() -> None:
    found = judge({}, {OURS: HEAD + LINE})
    assert [(file.path, file.content) for file in found.files] == [(OURS, None)]
    assert Sysfs().look(Ground()).paths == (OURS,)


def test_look_asks_for_the_pattern_itself() -> None:
    assert Sysfs().look(ground("sysfs", {GOVERNORS: "performance"})).paths == (OURS, GOVERNORS)


@needs("systemd-tmpfiles")
@pytest.mark.parametrize("value", ["madvise", "5%", "%m", "1 2", "0-3,8"])
def test_tmpfiles_writes_that_value(value: str, tmp_path: Path) -> None:
    target, conf = tmp_path / "value", tmp_path / "x.conf"
    target.touch()
    conf.write_text(HEAD + tmpfiles_line(str(target), value))
    done = subprocess.run(
        ["systemd-tmpfiles", "--create", str(conf)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert target.read_text().strip() == value
