"""Plans as text and data; archives; the second question."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest
from plan_cases import ROOT, applied, edited, make_release

from inferfleet.observe.observed import parse_observed
from inferfleet.plan.details import Details, details_script, parse_details, with_details
from inferfleet.plan.diff import plan_data, plan_lines, reasons
from inferfleet.plan.obstacles import PortTaken
from inferfleet.plan.plan import Goal, make_plan
from inferfleet.release.archive import pack
from inferfleet.release.release import Release

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"
CANARY = "canary-SECRET"
COMPOSE = "services:\n  a:\n    image: {image}\n    cpus: {cpus}\n"


def release(image: str, cpus: int = 1, key: str = CANARY) -> Release:
    return make_release(
        {
            "files": {
                "compose.yaml": COMPOSE.format(image=image, cpus=cpus),
                "env/a.env": {"text": f"KEY={key}\n", "mode": 600, "secret": True},
            },
            "units": {"a": {"digest": sha256(f"{image}{cpus}{key}".encode()).hexdigest()}},
        }
    )


def test_lines_of_an_edit() -> None:
    new, old = release("two"), release("one")
    contents = {"compose.yaml": old.files["compose.yaml"].content}
    observed = parse_observed(applied(old), ROOT)
    first = make_plan(new, observed, Goal())
    plan = make_plan(new, observed, Goal(), reasons(new, first, contents))
    assert plan_lines(plan, new, contents) == [
        "~ update compose.yaml",
        "    --- a/compose.yaml",
        "    +++ b/compose.yaml",
        "    @@ -1,4 +1,4 @@",
        "     services:",
        "       a:",
        "    -    image: one",
        "    +    image: two",
        "         cpus: 1",
        "~ replace a  (image changed)",
        "Plan: 1 file, 1 service to restart.",
    ]


@pytest.mark.parametrize("full", [False, True])
def test_our_own_programs_are_one_line_and_what_the_user_says_is_shown(full: bool) -> None:
    files = {"control": "a\nb\n", "process/a/run": "one\n", "compose.yaml": "x\n"}
    new = make_release({"files": files})
    fresh = parse_observed("end\n", ROOT)
    lines = plan_lines(make_plan(new, fresh, Goal()), new, {}, full=full)
    assert ("    +one" in lines, "    +b" in lines, "    +x" in lines) == (full, full, True)
    if not full:
        assert "+ create control  (2 lines; --full shows them)" in lines
        assert "+ create process/a/run  (1 lines; --full shows them)" in lines
    assert lines[-1] == "Plan: 3 files, 1 service to start."
    old = make_release({"files": {**files, "control": "a\n", "process/a/run": "zero\n"}})
    plan = make_plan(new, parse_observed(applied(old), ROOT), Goal())
    before = {path: file.content for path, file in old.files.items()}
    lines = plan_lines(plan, new, before, full=full)
    # Under it stands what the user's options come to: a change there is the point of a plan.
    assert "    +one" in lines
    assert ("    +b" in lines) == full


def test_programs_of_a_kind_are_one_line_unless_they_are_the_users() -> None:
    ours = (TEMPLATES / "gateway/pool.lua").read_text()
    before = {"files/g/gateway_pool.lua": "old\n", "files/g/own.lua": "one\n", "compose.yaml": "x"}
    files = {**before, "files/g/gateway_pool.lua": ours}
    for old, new, action in (
        ({"compose.yaml": "x"}, files, "create"),
        (before, {**files, "files/g/own.lua": "two\n"}, "update"),
        (files, {"compose.yaml": "x"}, "delete"),
    ):
        was, then = make_release({"files": old}), make_release({"files": new})
        plan = make_plan(then, parse_observed(applied(was), ROOT), Goal())
        contents = {path: file.content for path, file in was.files.items()}
        lines = plan_lines(plan, then, contents)
        [line] = [line for line in lines if "gateway_pool" in line]
        assert f"{action} files/g/gateway_pool.lua  (" in line
        assert line.endswith("; --full shows them)")
        assert any(line in {"    +one", "    +two", "    -one"} for line in lines)
        full = plan_lines(plan, then, contents, full=True)
        assert any("local M = {}" in line for line in full)


def test_nothing_to_change() -> None:
    one = release("one")
    plan = make_plan(one, parse_observed(applied(one), ROOT), Goal())
    assert plan_lines(plan, one, {}) == ["nothing to change"]
    assert plan_data(plan, one, {})["changes"] is False


@pytest.mark.parametrize("gone", [False, True])
def test_secrets_show_as_changed_only(gone: bool) -> None:
    old = release("one")
    new = make_release({"files": {"compose.yaml": "x\n"}}) if gone else release("one", key="new")
    observed = parse_observed(applied(old), ROOT)
    plan = make_plan(new, observed, Goal())
    # Even if its content came here, it would not be shown.
    contents = {"env/a.env": f"KEY={CANARY}\n".encode(), "compose.yaml": b"y\n"}
    shown = "\n".join(plan_lines(plan, new, contents))
    assert "    env/a.env: secret, content not shown" in shown.splitlines()
    question = details_script(new, observed, plan)
    everything = shown + json.dumps(plan_data(plan, new, contents)) + question
    assert CANARY not in everything
    assert "KEY" not in everything
    assert "env/a.env" not in question
    assert CANARY not in repr(old)


def test_details_ask_for_the_ports_that_are_needed() -> None:
    one = release("one")
    fresh = parse_observed("end\n", ROOT)
    plan = make_plan(one, fresh, Goal())
    assert "\nports=8080\n" in f"\n{details_script(one, fresh, plan)}"
    found = parse_details("listen\t0100007F:1F90\nculprit\t8080\tprocess 7 (nginx)\n")
    assert found.listeners == {("127.0.0.1", 8080)}
    running = parse_observed(applied(one), ROOT)
    again = make_plan(one, running, Goal(restart=True))
    assert [step.action for step in again.steps] == ["replace"]
    assert "\nports=''\n" in f"\n{details_script(one, running, again)}"


def test_data_is_json_and_complete() -> None:
    one = release("one")
    plan = make_plan(one, parse_observed("fact\tuser\tme\nend\n", ROOT), Goal())
    data = json.loads(json.dumps(plan_data(plan, one, {})))
    assert sorted(data) == [
        "changes", "counts", "generation", "machine", "notes", "problems", "steps",
    ]  # fmt: skip
    assert data["counts"] == {
        "fetch": 0, "files": 2, "links": 0, "start": 1, "restart": 0, "stop": 0,
    }  # fmt: skip
    assert data["generation"] == {"from": 0, "to": 1}
    assert [(s["action"], s["target"]) for s in data["steps"]] == [
        ("create", "compose.yaml"), ("create", "env/a.env"), ("start", "a"),
    ]  # fmt: skip
    assert "+    image: one" in data["steps"][0]["diff"]


def test_problems_and_notes_are_lines() -> None:
    one = release("one")
    seen = parse_observed(
        edited(
            applied(one), [], [["lock", "alive", "7|1|ann@x|t|up"], ["trouble", "compose", "off"]]
        ),
        ROOT,
    )
    lines = plan_lines(make_plan(one, seen, Goal()), one, {})
    assert lines[0] == "note: compose: off"
    assert "error: box is locked by ann@x since t (up, process 7)" in lines
    assert any(line.startswith("hint: ") for line in lines)


def test_archive_is_the_same_bytes_and_holds_modes() -> None:
    one = release("one")
    assert pack(one) == pack(release("one"))
    assert pack(one) != pack(release("two"))
    with tarfile.open(fileobj=io.BytesIO(pack(one))) as archive:
        entries = {entry.name: entry for entry in archive}
    assert set(entries) == {
        ".", ".files", ".manifest", ".models", ".sha256", ".unconfirmed", ".units",
        "compose.yaml", "env", "env/a.env",
    }  # fmt: skip
    assert entries["env/a.env"].mode == 0o600
    assert entries[".manifest"].mode == 0o600
    assert entries["env"].mode == 0o755
    assert {(e.uid, e.gid, e.mtime) for e in entries.values()} == {(0, 0, 0)}


def test_details_are_read() -> None:
    body = base64.b64encode(b"\xff\n").decode()
    details = parse_details(
        f"content\tx\t{body}\ntool\tdocker\tis not installed\n"
        "culprit\t80\tp (x)\nculprit\t80\tq\nodd\n"
    )
    assert details == Details({"x": b"\xff\n"}, {"docker": "is not installed"}, {80: "p (x)"})


def test_details_make_problems() -> None:
    one = release("one")
    fresh = "fact\tfree_kb\t1000\nfact\tnear\t/srv\nlisten\t0100007F:1F90\nend\n"
    seen = parse_observed(fresh, ROOT)
    details = Details({}, {"docker": "is not installed"}, {8080: "process 7 (nginx)"})
    plan = with_details(make_plan(one, seen, Goal()), details, seen, 10_000)
    port, tool, disk = plan.problems
    assert isinstance(port, PortTaken)
    assert port.what.endswith("already taken on 127.0.0.1 by process 7 (nginx)")
    assert tool.what == "docker: is not installed"
    assert "install Docker" in tool.hint
    assert disk.what == "/srv has 0 MiB free, 2 MiB are needed"
    enough = parse_observed(fresh.replace("\t1000", "\t100000"), ROOT)
    again = with_details(make_plan(one, enough, Goal()), Details({}, {}, {}), enough, 10_000)
    assert [type(problem) for problem in again.problems] == [PortTaken]


def test_broken_yaml_on_the_machine_gives_no_reason_but_no_error() -> None:
    one, two = release("one"), release("two")
    plan = make_plan(two, parse_observed(applied(one), ROOT), Goal())
    for content in (b"\t:", b"services: 3", b"services: {a: 3}", b"\xff\xfe"):
        assert reasons(two, plan, {"compose.yaml": content}).get("a") is None
