"""Machines of one site and one run: who brings a model, and what happens when a copy fails."""

from __future__ import annotations

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
