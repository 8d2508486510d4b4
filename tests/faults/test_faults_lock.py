"""Two operators at once, and locks whose holder is gone."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from faults.fleet import FleetBox, Recorder

from inferfleet.apply.apply import Outcome
from inferfleet.errors import LOCKED, FleetError


def lock(box: FleetBox, born: str) -> str:
    """Lock the box in the name of this process, as if it had been started then."""
    holder = f"{os.getpid()}|{born}|ann@desk|2026-01-02T03:04:05Z|up"
    (box.state / "lock").symlink_to(holder)
    return holder


def start_time() -> str:
    return Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]


def snapshot(box: FleetBox) -> list[tuple[str, int]]:
    return sorted((str(p), p.lstat().st_mtime_ns) for p in box.root.rglob("*"))


def test_locked_by_a_live_run(box: FleetBox) -> None:
    box.serve("two")
    before = box.planned()
    holder = lock(box, start_time())
    seen = snapshot(box)
    (problem,) = box.plan().problems
    assert problem.code == LOCKED
    assert f"locked by ann@desk since 2026-01-02T03:04:05Z (up, process {os.getpid()})" in str(
        problem
    )
    with pytest.raises(FleetError, match="locked by ann@desk") as caught:
        before.talk.apply(before, "up", lambda event: None)
    assert caught.value.code == LOCKED
    with pytest.raises(FleetError, match="locked by ann@desk"):
        box.down()
    assert snapshot(box) == seen
    result = box.invoke("up", "--host", "box")
    assert result.returncode == LOCKED
    assert "locked by ann@desk" in result.stderr
    assert box.invoke("plan", "--host", "box").returncode == LOCKED
    status = box.invoke("status", "--host", "box")
    assert status.returncode == 0
    assert "locked by ann@desk" in status.stdout
    assert os.readlink(box.state / "lock") == holder
    (box.state / "lock").unlink()
    assert box.up().ok


@pytest.mark.parametrize("holder", ["recycled", "gone", "nonsense"])
def test_lock_of_a_dead_run_is_taken_over(box: FleetBox, holder: str) -> None:
    if holder == "recycled":
        lock(box, "1")
    else:
        text = "999999999|5|ann@desk|then|up" if holder == "gone" else "?"
        (box.state / "lock").symlink_to(text)
    box.serve("two")
    assert "the lock of a dead run will be taken over" in box.plan().notes[0]
    recorder = Recorder()
    assert box.up(recorder).ok
    assert any("lock left by a dead run" in e.text for e in recorder.events if e.kind == "note")
    assert box.leftovers() == []
    assert box.says() == "two"


def test_a_file_where_the_lock_belongs(box: FleetBox) -> None:
    (box.state / "lock").write_text("mine")
    box.serve("two")
    with pytest.raises(FleetError, match="lock is not a lock of inferbase"):
        box.up()
    assert (box.state / "lock").read_text() == "mine"
    assert box.kept() == [1]


def test_two_operators_at_once(box: FleetBox) -> None:
    box.serve("two")
    plans = [box.planned() for _ in range(3)]
    outcomes: list[Outcome | FleetError] = []
    ready = threading.Barrier(len(plans))

    def run(number: int) -> None:
        ready.wait()
        try:
            outcomes.append(plans[number].talk.apply(plans[number], "up", lambda event: None))
        except FleetError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(plans))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    good = [o for o in outcomes if isinstance(o, Outcome) and o.ok]
    bad = [o for o in outcomes if isinstance(o, FleetError)]
    assert len(good) == 1
    assert len(bad) == 2
    assert all("is locked by" in e.what or "changed by another run" in e.what for e in bad)
    assert box.says() == "two"
    assert box.history() == [("up", 0, 1), ("up", 1, 2)]
    assert box.leftovers() == []
    assert box.plan().empty
