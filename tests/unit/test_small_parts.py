"""Parallel work, events as lines, history, the doctor's findings, readiness, the way back."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from plan_cases import ROOT, applied, edited, make_release, make_unit

from inferfleet.apply.generations import read_generation, read_history
from inferfleet.errors import USAGE, FleetError, FleetErrors, Where
from inferfleet.events import Event
from inferfleet.health.ask import token_request
from inferfleet.health.ready import check
from inferfleet.hosts.host import Result
from inferfleet.hosts.local import LocalHost
from inferfleet.observe.observed import parse_observed
from inferfleet.observe.states import last_logs
from inferfleet.operations.doctor import check_machine
from inferfleet.parallel import on_each
from inferfleet.plan.plan import Goal, down_plan, make_plan
from inferfleet.plan.undo import way_back
from inferfleet.release.manifest import dump_manifest
from inferfleet.run.session import Session
from inferfleet.show import Reporter, hidden, mib, narrow_table, output, say


class Answers(LocalHost):
    """A host that answers every script with the same text."""

    def __init__(self, out: str) -> None:
        super().__init__("box")
        self.out = out

    def run(self, script: str, **options: Any) -> Result:
        return Result(0, self.out, "")


def test_answers_keep_their_order_and_errors_their_machine() -> None:
    names = [f"m{n}" for n in range(40)]

    def work(name: str) -> str:
        if name == "m7":
            raise FleetError("broken")
        return name.upper()

    answers = on_each(names, work)
    assert [a.machine for a in answers] == names
    assert [a.value for a in answers if a.error is None] == [n.upper() for n in names if n != "m7"]
    assert [a.machine for a in answers if a.error] == ["m7"]


def test_an_error_says_whose_it_is_once() -> None:
    def work(name: str) -> None:
        if name == "a":
            raise FleetErrors([FleetError("no key", "get one", code=USAGE)])
        raise FleetError(f"{name} is away", where=Where("x.yaml", 3, 1))

    a, b = (answer.error for answer in on_each(["a", "b"], work))
    assert a is not None
    assert b is not None
    assert str(a) == "a: no key\nhint: get one"
    assert (a.what, a.hint, a.code) == ("no key", "get one", USAGE)
    assert str(b) == "x.yaml:3:1: b is away"
    assert b.data == {"what": "b is away", "hint": "", "where": "x.yaml:3:1", "code": 1}
    both = FleetErrors([FleetError("one"), FleetError("two")])
    assert both.what == "2 errors"
    assert [error["what"] for error in both.of("m").data["errors"]] == ["one", "two"]
    assert str(both.of("m")) == "m: one\nm: two"


WIDE = [
    {"machine": "m1", "model": "Qwen/Qwen3-32B-FP8", "size": 12, "free": "", "why": "a " * 30},
    {"machine": "m1", "model": "smol", "size": 3, "free": None, "why": ""},
]


def test_a_narrow_terminal_loses_no_word() -> None:
    columns = ["machine", "model", "size", "free", "why"]
    assert narrow_table(WIDE, columns, 200)[0].split() == ["MACHINE", "MODEL", "SIZE", "WHY"]
    assert narrow_table(WIDE, columns, 40) == [
        "all: machine: m1",
        "MODEL               SIZE",
        "Qwen/Qwen3-32B-FP8  12",
        "    why: a a a a a a a a a a a a a a a a",
        "      a a a a a a a a a a a a a a",
        "smol                3",
    ]
    assert all(len(line) <= 24 for line in narrow_table(WIDE, columns, 24))
    # What is the same everywhere may be the very thing to know.
    failed = [{"machine": f"spark{n}", "state": "failed", "detail": "x" * 30} for n in (1, 2)]
    assert narrow_table(failed, ["machine", "state", "detail"], 44)[:2] == [
        "all: state: failed", "MACHINE  DETAIL"
    ]  # fmt: skip
    # In the only row nothing is the same as in others.
    only = narrow_table(WIDE[1:], ["machine", "model", "why"], 12)
    assert only == ["MACHINE", "m1", "    model:", "      smol"]


def test_a_table_without_rows(capsys: pytest.CaptureFixture[str]) -> None:
    output([], ["a"], "table", "nothing to remove")
    assert capsys.readouterr() == ("", "nothing to remove\n")
    output([], ["a"], "json", "nothing to remove")
    assert capsys.readouterr() == ("[]\n", "")


def test_machines_work_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=30)
    assert len({a.value for a in on_each(["a", "b", "c"], lambda _: meeting.wait())}) == 3


@pytest.mark.parametrize("names", [["a"], ["a", "b"]])
def test_a_bug_stays_a_traceback(names: list[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        on_each(names, lambda name: 1 / 0)


def test_no_machines() -> None:
    assert on_each([], lambda name: name) == []


def test_reporter_lines(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(lambda text: text.replace("s3cret", "***"))
    for event in (
        Event("m", "step", "lock"),
        Event("m", "step", "upload"),
        Event("m", "step", "stop"),
        Event("m", "log", "has s3cret"),
        Event("m", "wait", "no answer", "a"),
        Event("m", "fetch", "x", done=0, total=2 << 20),
        Event("m", "fetch", "x", done=1 << 20, total=2 << 20),
        Event("m", "fetch", "x", done=2 << 20, total=2 << 20),
        Event("m", "fetch", "x", done=2 << 20, total=2 << 20),
    ):
        reporter(event)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "m: uploading the release",
        "m: stopping services",
        "m:   has ***",
        "m a: no answer",
        "m: fetching x: 0 MiB of 2 MiB (0 %)",
        "m: fetching x: 2 MiB of 2 MiB (100 %)",
    ]


def test_output(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"a": None, "b": True, "c": ["x", "y"]}, {"a": "long " * 30, "b": False, "c": []}]
    output(rows, ["a", "b", "c"], "json")
    assert '"a": null' in capsys.readouterr().out
    output(rows, ["a", "b", "c"], "table")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["A", "B", "C"]
    assert lines[1].split() == ["-", "yes", "x,", "y"]
    # In a pipe a row is one line, however long.
    assert [line.rstrip() for line in lines] == lines
    assert lines[2] == f"{'long ' * 30}  no   -"
    output([{"a": "two\nlines", "b_c": 1}], ["a", "b_c"], "table")
    assert capsys.readouterr().out == "A          B C\ntwo lines  1\n"
    output([], ["a"], "table")
    assert capsys.readouterr().out == "A\n"
    say("to stderr")
    assert capsys.readouterr() == ("", "to stderr\n")
    assert mib(20 << 30) == "20.0 GiB"


def test_hidden_reaches_every_text() -> None:
    data = {"a": ["x", {"b": "x"}], "n": 1, "t": ("x",), "none": None}
    assert hidden(data, lambda text: text.upper()) == {
        "a": ["X", {"b": "X"}], "n": 1, "t": ["X"], "none": None,
    }  # fmt: skip


def test_history_of_a_failed_release_is_not_another_ones() -> None:
    text = (
        "kept\t1\nkept\t2\ncurrent\t.inferbase/generations/2\n"
        "entry\t100\tann@x\tup\t0\t1\tup\n"
        "entry\t200\tann@x\trolled-back\t1\t2\tup\n"
        "entry\t300\tann@x\tup\t1\t2\tup\t/app at 1a2b\n"
        "entry\tbroken\nentry\t1\t2\n"
    )
    entries = read_history(Answers(text), ROOT, sudo=False)
    assert [(e.when, e.event, e.kept, e.current) for e in entries] == [
        (100, "up", True, False),
        (200, "rolled-back", False, False),
        (300, "up", True, True),
    ]
    assert [e.by for e in entries] == ["", "", "/app at 1a2b"]


@pytest.mark.parametrize(
    "content", ["content\tcompose.yaml\t!!\n", "content\tcompose.yaml\tAAA\n", ""]
)
def test_generation_with_damaged_content(content: str) -> None:
    release = make_release({})
    host = Answers(f"manifest\t{dump_manifest(release)}\n{content}")
    with pytest.raises(FleetError, match=r"generation 1 is damaged: compose\.yaml"):
        read_generation(host, release, 1, sudo=False)
    with pytest.raises(FleetError, match="no readable manifest"):
        read_generation(Answers("manifest\t\n"), release, 1, sudo=False)


def findings(facts: dict[str, str], **unit: Any) -> dict[str, str]:
    text = "".join(f"{key}\t{value}\n" for key, value in facts.items())
    session = Session(Answers(text), make_release({"units": {"a": unit}}), False, {}, {})
    found = check_machine(session)
    assert all(f.remedy for f in found if f.verdict in {"warn", "fail"})
    return {f.check: f.verdict for f in found}


def test_doctor() -> None:
    bare = {"now": "5", "free_kb": "1000", "near": "/", "uid": "1000"}
    assert findings(bare, runtime="compose", gpu=True) == {
        "clock": "warn", "disk": "warn", "docker": "fail", "compose": "fail", "gpu": "fail",
    }  # fmt: skip
    good = {"free_kb": "99999999", "near": "/", "docker": "28.0.1", "compose": "2.40"}
    assert findings({**good, "now": "x"}, runtime="compose") == {
        "clock": "unknown", "disk": "ok", "docker": "ok", "compose": "ok", "gpu": "ok",
    }  # fmt: skip
    old = findings({**good, "docker": "20.10.5"}, runtime="compose")
    assert old["docker version"] == "warn"
    assert findings({"systemd": "yes", "uid": "0"}, runtime="systemd")["systemd"] == "ok"
    assert findings({"systemd": "yes", "uid": "7"}, runtime="systemd")["systemd"] == "fail"


def test_readiness_of_a_port_nobody_listens_on() -> None:
    found = check("http://127.0.0.1:9", make_unit("a", {}), None, 1.0)
    assert (found.stage, found.ready) == ("down", False)


def test_token_requests() -> None:
    unit = make_unit("a", {})
    assert unit.probe is not None
    found = token_request(unit.probe)
    assert found is not None
    assert found[0] == "/v1/chat/completions"
    assert found[1]["max_tokens"] == 1


def test_logs_of_a_machine_that_does_not_answer() -> None:
    class Silent(Answers):
        def run(self, script: str, **options: Any) -> Result:
            raise FleetError("lost")

    assert last_logs(Silent(""), ROOT, "a", False) == []


def test_the_way_back_of_an_edit_an_addition_and_a_removal() -> None:
    old = make_release({"units": {"a": {}, "gone": {"address": None}, "off": {"address": None}}})
    new = make_release(
        {
            "files": {"compose.yaml": "new\n"},
            "units": {"a": {"digest": "new"}, "b": {"address": None}, "off": {"address": None}},
        }
    )
    text = edited(applied(old), [["unit", "off"]], [["unit", "off", "stopped", ""]])
    seen = parse_observed(text, ROOT)
    undo = way_back(new, seen, make_plan(new, seen, Goal()))
    assert (undo.back, undo.remove, undo.stop, undo.replace) == (1, ("b",), ("off",), ("a", "gone"))


def test_the_way_back_of_down_starts_again_what_ran() -> None:
    release = make_release({})
    seen = parse_observed(applied(release), ROOT)
    plan = down_plan(release, seen, None)
    undo = way_back(release, seen, plan)
    assert (undo.remove, undo.stop, undo.replace) == ((), (), ("a",))
    assert undo.returns(plan)
    assert not plan.confirm


@pytest.mark.parametrize("state", [None, "stopped"])
def test_down_ends_that_a_service_was_evicted(state: str | None) -> None:
    """Of a container nothing is left, of a process its name."""
    runtime = "process" if state else "compose"
    release = make_release({"units": {"a": {"runtime": runtime}, "b": {"address": None}}})
    units = [["unit", "a", state, ""]] if state else []
    rows = [*units, ["evicted", "a"], ["evicted", "other"]]
    seen = parse_observed(edited(applied(release), [["unit", "a"]], rows), ROOT)
    plan = down_plan(release, seen, None)
    assert (plan.targets("remove"), plan.steps[-1].reason) == (["b", "a"], "was evicted")
    assert way_back(release, seen, plan).replace == ("b",)
    assert down_plan(release, seen, frozenset({"b"})).targets("remove") == ["b"]


def test_a_restart_has_no_way_back() -> None:
    release = make_release({})
    seen = parse_observed(applied(release), ROOT)
    plan = make_plan(release, seen, Goal(restart=True))
    assert not way_back(release, seen, plan).returns(plan)


def test_the_way_back_of_links() -> None:
    native = {"units": {"a": {"runtime": "systemd"}}, "files": {"x": "1"}}
    old = make_release({**native, "links": {"/etc/systemd/system/old.service": "systemd/old"}})
    new = make_release({**native, "links": {"/etc/systemd/system/new.service": "systemd/new"}})
    seen = parse_observed(applied(old), ROOT)
    undo = way_back(new, seen, make_plan(new, seen, Goal()))
    assert undo.links == {"/etc/systemd/system/old.service": f"{ROOT}/current/systemd/old"}
    assert undo.unlinks == ("/etc/systemd/system/new.service",)


def test_a_service_that_moved_is_removed_before_the_old_one_returns() -> None:
    old = make_release({})
    new = make_release({"files": {"p": "x"}, "units": {"a": {"runtime": "process", "name": "a"}}})
    seen = parse_observed(applied(old), ROOT)
    undo = way_back(new, seen, make_plan(new, seen, Goal()))
    assert (undo.remove, undo.replace) == (("a",), ("a",))
