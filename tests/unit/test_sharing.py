"""Machines of one site and one run: who brings a model, and what happens when a copy fails."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from inferfleet.errors import LOCKED, FleetError
from inferfleet.hosts.local import LocalHost
from inferfleet.models.need import ModelNeed, Source
from inferfleet.models.stamp import Stamp
from inferfleet.models.transfer.fetch import Brought
from inferfleet.run import sharing
from inferfleet.run.sharing import Sharing
from inferfleet.run.turns import Turn, Turns

NEED = ModelNeed("s", "k", Source("hf", "o/m"), "/m/k", "/m/k")
STAMP = Stamp("hf:o/m", "r1", ".k@1", (), "")


class Log:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def advance(self, need_key: str, done: int, total: int | None) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


def session(name: str) -> Any:
    return SimpleNamespace(
        host=LocalHost(name), sudo=False, secrets={}, release=SimpleNamespace(root="/r")
    )


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """How a model comes: "copy" and "source", each a Brought or what is raised; "asked": order."""
    ways: dict[str, Any] = {"source": Brought(True, STAMP), "asked": []}

    def bring(host: Any, need: ModelNeed, *, supply: Any, **_: Any) -> Brought:
        way = "copy" if supply else "source"
        ways["asked"].append((host.name, way))
        if isinstance(ways[way], FleetError):
            raise ways[way]
        return ways[way]

    monkeypatch.setattr(sharing, "bring", bring)
    monkeypatch.setattr(sharing, "_copy", lambda holder, *_: holder)
    return ways


def test_one_fetches_and_the_other_copies(ways: dict[str, Any]) -> None:
    ways["copy"] = Brought(True, STAMP)
    shared = Sharing({"a": "lab", "b": "lab"}, {})
    for name in ("a", "b", "alone"):
        shared.bring(session(name), NEED, Log())
    assert ways["asked"] == [("a", "source"), ("b", "copy"), ("alone", "source")]


def test_a_copy_that_fails_is_fetched(ways: dict[str, Any]) -> None:
    ways["copy"], log = FleetError("b: wrong checksum of m.gguf"), Log()
    shared = Sharing({"a": "lab", "b": "lab"}, {})
    shared.bring(session("a"), NEED, Log())
    assert shared.bring(session("b"), NEED, log).stamp == STAMP
    assert ways["asked"][1:] == [("b", "copy"), ("b", "source")]
    assert log.notes == ["not copied from a: b: wrong checksum of m.gguf"]


def test_one_that_another_run_works_on_is_no_reason_to_fetch(ways: dict[str, Any]) -> None:
    ways["copy"] = FleetError("b: another run is at work", code=LOCKED)
    shared = Sharing({"a": "lab", "b": "lab"}, {})
    shared.bring(session("a"), NEED, Log())
    with pytest.raises(FleetError, match="another run"):
        shared.bring(session("b"), NEED, Log())
    assert ways["asked"][1:] == [("b", "copy")]


def test_who_cannot_fetch_leaves_it_to_the_next(ways: dict[str, Any]) -> None:
    good, ways["source"] = ways["source"], FleetError("a: no route to the hub")
    shared = Sharing({"a": "lab", "b": "lab"}, {})
    with pytest.raises(FleetError, match="no route"):
        shared.bring(session("a"), NEED, Log())
    ways["source"] = good
    assert shared.bring(session("b"), NEED, Log()).stamp == STAMP


def test_aliases_of_a_path_are_made_without_waiting(ways: dict[str, Any]) -> None:
    """Each machine has its own; nobody copies what is given as a path."""
    ways["source"] = Brought(True)
    own = ModelNeed("s", "k", Source("path", "/m"), "", "/a", aliases={"/a": {}})
    shared = Sharing({"a": "lab", "b": "lab"}, {})
    for name in ("a", "b"):
        done = threading.Thread(target=shared.bring, args=(session(name), own, Log()), daemon=True)
        done.start()
        done.join(20)
        assert not done.is_alive(), name


def waited(turns: Turns, turn: Turn, owner: str, told: list[str]) -> Any:
    """A thread that waits for the owner's lock, and what came of it, once it has ended."""
    found: list[bool] = []
    thread = threading.Thread(
        target=lambda: found.append(turns.wait(turn, "k", owner, told.append))
    )
    thread.start()

    def ended() -> bool:
        thread.join(20)
        return found[0]

    return thread, ended


def test_a_lock_is_waited_for_while_this_run_has_it() -> None:
    turns, told = Turns(), list[str]()
    with turns.turn("b", "k") as mine, turns.turn("b", "other"):
        with turns.turn("a", "k") as holds:
            # Nobody knows yet whether it is a that got the lock.
            thread, ended = waited(turns, mine, "7 vm", told)
            assert thread.is_alive()
            turns.taken(holds, "7 vm")
            while not told:
                assert thread.is_alive()
        assert ended() is True
        assert told == ["a"]
        # One that has just ended may not have let go yet.
        assert turns.wait(mine, "k", "7 vm", told.append) is True
        assert turns.wait(mine, "k", "8 vm", told.append) is False


def test_two_that_another_run_locks_out_do_not_wait_for_each_other() -> None:
    turns, told = Turns(), list[str]()
    with turns.turn("a", "k") as one, turns.turn("b", "k") as two, turns.turn("c", "k") as holds:
        turns.taken(holds, "9 vm")
        ends = [waited(turns, turn, "7 other", told)[1] for turn in (one, two)]
        assert [ended() for ended in ends] == [False, False]
    assert told == []
