"""What people and programs read of a plan; steps as data and as shell."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from inferfleet.hostprep.judge import Prepared
from inferfleet.hostprep.setting import Change, Finding, Verdict, Wanted
from inferfleet.hostprep.show import costs, plan_data, plan_lines, reboots, rows, undo_lines
from inferfleet.hostprep.steps import PutFile, Restore, Run, Step, Write, dump, load, shell

OLD, NEW = "a = 1\nb = 2\nc = 3\n", "a = 1\nb = 20\nc = 3\n"
FILE = PutFile("/etc/x.conf", NEW)
LIVE = Change(
    ("sysctl.b",), "2 -> 20", (Write("/proc/sys/b", "20"),), (Write("/proc/sys/b", "2"),), cuts=True
)


def finding(verdict: Verdict = "differs", value: Any = 20, **more: str) -> Finding:
    wanted = Wanted("sysctl", "b", value, "why it is", "a book", "calm", more.get("cost", ""))
    return Finding(wanted, "2", "-", verdict, more.get("remedy", ""))


PREPARED = Prepared(
    (finding(remedy="do it"),),
    (Change(("/etc/x.conf",), "written", (), ()), LIVE),
    (FILE,),
    {"/etc/x.conf": OLD},
)


def prepared(*findings: Finding) -> Prepared:
    return Prepared(findings, (), (), {})


def test_a_plan_is_a_diff_and_a_line_for_each_live_value() -> None:
    assert list(plan_lines(PREPARED)) == [
        "--- /etc/x.conf",
        "+++ /etc/x.conf",
        "@@ -1,3 +1,3 @@",
        " a = 1",
        "-b = 2",
        "+b = 20",
        " c = 3",
        "~ sysctl.b: 2 -> 20",
    ]


def test_new_and_removed_files() -> None:
    new = Prepared((), (), (PutFile("/etc/n", "one\n"),), {"/etc/n": None})
    assert list(plan_lines(new)) == ["--- /dev/null", "+++ /etc/n", "@@ -0,0 +1 @@", "+one"]
    gone = Prepared((), (), (PutFile("/etc/n", None),), {"/etc/n": "one\n"})
    assert list(plan_lines(gone)) == ["--- /etc/n", "+++ /dev/null", "@@ -1 +0,0 @@", "-one"]


def test_nothing_to_change_has_no_lines() -> None:
    assert list(plan_lines(prepared(finding("ok")))) == []


def test_reboots_of_changes_and_of_earlier_runs() -> None:
    late = Change(("/etc/default/grub.d/x",), "written", (), (), reboot="read at boot")
    waiting = Finding(Wanted("cmdline", "quiet", True), "-", "quiet", "pending")
    assert reboots(Prepared((waiting, finding("ok")), (late,), (), {})) == [
        "reboot needed: /etc/default/grub.d/x (read at boot), cmdline.quiet"
    ]
    assert reboots(PREPARED) == []
    assert list(plan_lines(Prepared((), (late,), (), {}))) == [
        "reboot needed: /etc/default/grub.d/x (read at boot)"
    ]


def test_costs() -> None:
    assert costs(prepared(finding("ok"), finding("ok", cost="others starve"))) == [
        "sysctl.b has a cost: others starve"
    ]


def test_a_row_says_all_of_a_setting() -> None:
    assert rows("m", PREPARED) == [
        {
            "machine": "m",
            "setting": "sysctl.b",
            "wanted": "20",
            "live": "2",
            "persisted": "-",
            "verdict": "differs",
            "remedy": "do it",
            "why": "why it is",
            "origin": "calm",
        }
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (True, "yes"),
        (False, "no"),
        ("4096 131072", "4096 131072"),
        ({"owner": "root", "mode": None, "mount": True}, "owner root, mount True"),
        (["1g.12gb", "2g.24gb"], "['1g.12gb', '2g.24gb']"),
        ("first\nsecond\n", "first"),
        ("x" * 40, "x" * 40),
        ("x" * 41, "x" * 37 + "..."),
    ],
)
def test_a_wanted_value_in_a_table(value: Any, text: str) -> None:
    assert rows("m", prepared(finding(value=value)))[0]["wanted"] == text


def test_a_plan_for_programs() -> None:
    data = json.loads(json.dumps(plan_data("m", PREPARED)))
    assert data["machine"] == "m"
    assert data["files"] == [{"path": "/etc/x.conf", "before": OLD, "after": NEW}]
    assert data["changes"][1] == {
        "settings": ["sysctl.b"],
        "text": "2 -> 20",
        "do": ["write_value /proc/sys/b 20"],
        "undo": ["write_value /proc/sys/b 2"],
        "reboot": "",
        "cuts": True,
    }
    assert data["settings"][0]["verdict"] == "differs"


STEPS: list[Step] = [
    PutFile("/etc/a b", "text\n'quoted' \u00e4\n", 0o600),
    PutFile("/etc/empty", ""),
    PutFile("/etc/none", None),
    Restore("/etc/it's"),
    Write("/sys/x", "1 2 $(id)"),
    Run(("chmod", "0600", "--", "/etc/a b")),
    Run(("swapoff", "-a"), quiet=True),
]


@pytest.mark.parametrize("step", STEPS)
def test_a_step_survives_being_data(step: Step) -> None:
    assert load(json.loads(json.dumps(dump(step)))) == step


def test_what_follows_a_file_is_a_step_of_its_own() -> None:
    """So it is not in the data of the file."""
    file = PutFile("/etc/a", "x", after=("reload",), reboot="later", cuts=True)
    assert load(dump(file)) == PutFile("/etc/a", "x")


@pytest.mark.parametrize("data", [{}, {"put": "/a"}, {"write": "/a"}, {"run": ["x"]}])
def test_data_that_is_no_step(data: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError)):
        load(data)


@pytest.mark.parametrize("step", STEPS)
def test_a_step_as_shell_is_one_line_of_words(step: Step) -> None:
    words = shlex.split(shell(step))
    match step:
        case PutFile(path, None):
            assert words == ["drop_file", path]
        case PutFile(path, _, mode):
            assert words[:3] == ["put_file", path, f"{mode:o}"]
        case Restore(path):
            assert words == ["restore_file", path]
        case Write(path, value):
            assert words == ["write_value", path, value]
        case Run(argv, quiet):
            assert words == ["run_quietly" if quiet else "run_program", *argv]
    assert "\n" not in shell(step)


def test_an_undo_is_told_from_its_record() -> None:
    record = {
        "number": 3, "when": "2026-01-01T00:00:00Z", "who": "ann@x",
        "undo": [dump(step) for step in STEPS],
    }  # fmt: skip
    assert undo_lines(json.loads(json.dumps(record))) == [
        "generation 3 of 2026-01-01T00:00:00Z by ann@x:",
        "  ~ /etc/a b",
        "  ~ /etc/empty",
        "  ~ /etc/none",
        "  ~ /etc/it's: as it was before",
        "  ~ /sys/x: -> 1 2 $(id)",
        "  ~ run chmod 0600 -- /etc/a b",
        "  ~ run swapoff -a",
    ]
