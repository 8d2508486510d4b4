"""Apply for real on this machine: twice, edited, failing, rolled back, pruned."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest
from faults.fleet import FleetBox, Recorder
from ports import free_port

from inferfleet.errors import FleetError
from inferfleet.plan.plan import Goal


def test_first_apply_then_nothing(empty: FleetBox) -> None:
    recorder = Recorder()
    outcome = empty.up(recorder)
    assert outcome.ok
    assert outcome.changed
    assert recorder.steps() == [
        "prepare", "lock", "upload", "stage", "link", "switch", "start", "confirm", "unlock",
    ]  # fmt: skip
    assert empty.says() == "one"
    assert empty.plan().empty
    again = empty.up()
    assert again.ok
    assert not again.changed
    assert empty.history() == [("up", 0, 1)]
    assert empty.leftovers() == []


def test_edit_replaces_the_service(box: FleetBox) -> None:
    box.serve("two")
    planned = box.planned()
    assert [(s.action, s.target) for s in planned.plan.steps] == [
        ("update", "process/echo/run"),
        ("replace", "echo"),
    ]
    assert planned.plan.targets("replace") == ["echo"]
    assert "process/echo/run changed" in planned.plan.steps[1].reason
    assert box.up().ok
    assert box.says() == "two"
    assert box.plan().empty
    assert box.kept() == [1, 2]


@pytest.mark.parametrize("mode", ["crash", "never"])
def test_a_release_that_fails_is_rolled_back(box: FleetBox, mode: str) -> None:
    box.serve("two", mode=mode, **{"start-timeout": "2s"} if mode == "never" else {})
    outcome = box.up()
    assert not outcome.ok
    assert outcome.rolled_back
    assert outcome.notes == ()
    if mode == "crash":
        assert any("echo: cannot say two" in line for line in outcome.logs)
        assert "does not stay up: restarts" in outcome.failure
    else:
        assert "not ready after 2 s: /health answers 503" in outcome.failure
        assert "echo: says two" in outcome.logs
    assert box.says() == "one"
    assert box.current() == 1
    assert box.kept() == [1]
    assert box.history() == [("up", 0, 1), ("rolled-back", 1, 2)]
    assert box.leftovers() == []
    box.services["echo"].pop("start-timeout", None)
    box.serve("one")
    assert box.plan().empty


def test_a_slow_start_is_not_a_failure(empty: FleetBox) -> None:
    empty.serve("slow", mode="late")
    recorder = Recorder()
    assert empty.up(recorder).ok
    assert "/health answers 503" in [e.text for e in recorder.events if e.kind == "wait"]


def test_first_apply_that_fails_leaves_nothing(empty: FleetBox) -> None:
    empty.services["echo"]["program"] = "/nonexistent"
    empty.serve("one", mode="never", **{"start-timeout": "1s"})
    outcome = empty.up()
    assert not outcome.ok
    assert outcome.rolled_back
    assert empty.current() == 0
    assert not os.path.lexists(empty.root / "current")
    assert empty.kept() == []
    assert empty.leftovers() == []
    assert empty.processes() == []
    assert empty.history() == [("rolled-back", 0, 1)]


def test_a_service_added_beside_another_goes_when_it_fails(box: FleetBox) -> None:
    box.serve("extra", "more", port=free_port(), mode="never", **{"start-timeout": "1s"})
    pid = box.observed().units["echo"].detail.split(",")[0]
    outcome = box.up()
    assert outcome.rolled_back
    assert box.observed().units["echo"].detail.split(",")[0] == pid
    assert set(box.observed().units) == {"echo"}


def test_a_service_removed_comes_back_when_the_new_one_fails(box: FleetBox) -> None:
    port = box.services.pop("echo")["port"]
    box.serve("other", "other", port=port, mode="never", **{"start-timeout": "1s"})
    planned = box.plan()
    assert planned.targets("remove") == ["echo"]
    outcome = box.up()
    assert outcome.rolled_back
    assert outcome.notes == ()
    assert box.says() == "one"


def test_down_stops_and_up_starts_again(box: FleetBox) -> None:
    recorder = Recorder()
    planned = box.session().plan_down(None)
    assert planned.talk.apply(planned, "down", recorder).ok
    assert recorder.steps() == [
        "prepare", "lock", "link", "switch", "stop", "confirm", "unlock",
    ]  # fmt: skip
    assert box.says() is None
    assert box.processes() == []
    assert box.session().plan_down(None).plan.empty
    assert box.planned(Goal(start=False)).plan.empty
    assert [(s.action, s.reason) for s in box.plan().steps] == [("start", "is stopped")]
    assert box.up().ok
    assert box.says() == "one"
    assert box.current() == 1
    assert box.history() == [("up", 0, 1), ("down", 1, 1), ("up", 1, 1)]


def test_down_removes_what_has_failed(box: FleetBox) -> None:
    run = box.root / ".inferbase" / "run" / "echo"
    box.session().host.run(f"sh {box.root}/current/process/echo/run stop")
    (run / "failed").write_text("1\n")
    assert box.observed().units["echo"].state == "failed"
    assert box.down().ok
    assert box.observed().units["echo"].state == "stopped"


def test_restart_that_fails_does_not_claim_to_have_returned(box: FleetBox) -> None:
    planned = box.planned(Goal(restart=True))
    run = box.root / "current" / "process" / "echo" / "run"
    run.write_text("#!/bin/sh\necho broken; exit 3\n")
    outcome = planned.talk.apply(planned, "restart", lambda event: None)
    assert not outcome.ok
    assert not outcome.rolled_back
    assert box.current() == 1
    assert box.leftovers() == []


def test_rollback_to_the_previous_and_to_a_given_generation(box: FleetBox) -> None:
    assert box.down().ok
    for word in ("two", "three"):
        box.serve(word)
        apply_only(box)
    assert box.rollback().ok
    assert (box.says(), box.current()) == ("two", 2)
    assert box.rollback(1).ok
    assert (box.says(), box.current()) == ("one", 1)
    with pytest.raises(FleetError, match="no generation before the current one"):
        box.rollback()
    with pytest.raises(FleetError, match="keeps no generation 9"):
        box.rollback(9)
    assert box.history()[-2:] == [("rollback", 3, 2), ("rollback", 2, 1)]
    assert box.kept() == [1, 2, 3]


def test_generations_are_pruned_to_five_and_never_the_current(box: FleetBox) -> None:
    # What is stopped stays stopped, which makes this quick.
    assert box.down().ok
    for number in range(2, 7):
        box.serve(f"word-{number}")
        assert apply_only(box) == number
    assert box.kept() == [2, 3, 4, 5, 6]
    assert box.rollback(2).ok
    assert box.says() == "word-2"
    assert box.down().ok
    box.serve("after")
    assert apply_only(box) == 7
    assert box.kept() == [2, 3, 4, 5, 6, 7]
    assert box.current() == 7


def apply_only(box: FleetBox) -> int:
    planned = box.planned(Goal(start=False))
    assert planned.talk.apply(planned, "apply", lambda event: None).ok
    return planned.plan.to


def test_a_taken_port_names_the_culprit(empty: FleetBox) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", empty.port))):
        planned = empty.planned()
    (problem,) = planned.plan.problems
    assert f"port {empty.port} of service echo is already taken on 127.0.0.1" in problem.what
    assert f"process {os.getpid()} (" in problem.what
    with pytest.raises(FleetError, match="already taken"):
        planned.talk.apply(planned, "up", lambda event: None)
    assert not empty.root.exists()
    assert empty.up().ok


def test_a_drifted_file_is_put_right(box: FleetBox) -> None:
    run = box.root / "current" / "process" / "echo" / "run"
    run.write_text(run.read_text() + "# by hand\n")
    run.chmod(0o777)
    assert [(s.action, s.reason) for s in box.plan().steps] == [
        ("update", "was changed on the machine")
    ]
    assert box.up().ok
    assert box.plan().empty
    assert box.current() == 2
