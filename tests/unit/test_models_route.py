"""Which machine fetches, which one copies from whom, and what a row says of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from inferfleet.errors import FleetError
from inferfleet.hosts.local import LocalHost
from inferfleet.models.need import ModelNeed, Source
from inferfleet.models.observe import ModelState
from inferfleet.models.shelf import Shelf
from inferfleet.models.stale import Latest
from inferfleet.models.stamp import Stamp
from inferfleet.operations import survey as survey_module
from inferfleet.operations.route import plan_update, rows
from inferfleet.operations.survey import Sources, Survey, Want, merged

NEED = ModelNeed(
    "s", "k", Source("hf", "org/tiny"), "/m/hf/org--tiny/main", "", models_dir="/m", declared="tiny"
)
OLLAMA = ModelNeed("o", "q", Source("ollama", "qwen3"), "", "qwen3")


def one(name: str, verdict: str, fetch: int | None = 0, need: ModelNeed = NEED) -> Survey:
    stamp = Stamp("hf:org/tiny", "r1", ".main@x", (), "")
    state = ModelState("k", True, stamp, 7, True) if verdict in {"current", "stale"} else None
    want = Want(need, (need.service,), state, Latest("r2", 9), verdict, fetch=fetch, left=50)
    session: Any = SimpleNamespace(host=LocalHost(name), sudo=False)
    return Survey(session, SimpleNamespace(), Shelf(100, 200), (want,))  # type: ignore[arg-type]


LAB = {"a": "lab", "b": "lab", "c": "lab"}
CASES: list[tuple[dict[str, str], dict[str, str], dict[str, str | None]]] = [
    # verdicts, sites, where each gets it from
    ({"a": "missing", "b": "stale", "c": "partial"}, LAB, {"a": "hub", "b": "a", "c": "a"}),
    ({"a": "missing", "b": "current", "c": "stale"}, LAB, {"a": "b", "b": None, "c": "b"}),
    ({"a": "missing", "b": "missing"}, {}, {"a": "hub", "b": "hub"}),
    ({"a": "missing", "b": "missing"}, {"a": "x", "b": "y"}, {"a": "hub", "b": "hub"}),
    ({"a": "no-room", "b": "missing", "c": "missing"}, LAB, {"a": None, "b": "hub", "c": "b"}),
]


@pytest.mark.parametrize(("verdicts", "sites", "origins"), CASES)
def test_one_fetches_for_a_site(
    verdicts: dict[str, str], sites: dict[str, str], origins: dict[str, str | None]
) -> None:
    surveys = {name: one(name, verdict) for name, verdict in verdicts.items()}
    found = rows(plan_update(surveys, sites, {}))
    # Two local hosts cannot log in at each other: the way is through here.
    plain = {row["machine"]: row["from"] and row["from"].split(",")[0] for row in found}
    assert plain == origins


def test_a_row_has_every_figure() -> None:
    surveys = {"a": one("a", "current"), "b": one("b", "missing", 40)}
    assert rows(plan_update(surveys, LAB, {}))[1] == {
        "machine": "b",
        "services": ["s"],
        "model": "tiny",
        "verdict": "missing",
        "installed": None,
        "latest": "r2",
        "from": "a, through here",
        "fetch_bytes": 40,
        "through_here_bytes": 80,
        "free_bytes": 100,
        "left_bytes": 50,
        "detail": "b cannot copy by itself: one of the two is this machine",
        "outdated": [],
    }


def test_ollama_is_never_copied() -> None:
    surveys = {name: one(name, "missing", need=OLLAMA) for name in ("a", "b")}
    assert [row["from"] for row in rows(plan_update(surveys, LAB, {}))] == [None, None]


def test_a_model_of_several_services_counts_once() -> None:
    other = ModelNeed("t", "k", NEED.source, NEED.directory, "", aliases={"/m/x": {}})
    found = merged([NEED, other, OLLAMA], None, frozenset())
    assert [(need.key, services) for need, services in found] == [("k", ("s", "t")), ("q", ("o",))]
    assert found[0][0].aliases == {"/m/x": {}}
    assert merged([NEED, OLLAMA], frozenset({"o"}), frozenset()) == [(OLLAMA, ("o",))]
    for chosen in ("tiny", "hf:org/tiny"):
        assert merged([NEED, OLLAMA], None, frozenset({chosen})) == [(NEED, ("s",))]


def test_a_source_is_asked_once_for_all_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def latest(need: ModelNeed, secrets: object) -> Latest:
        asked.append(need.source.name)
        if need is OLLAMA:
            raise FleetError("gone")
        return Latest("r1", 1)

    monkeypatch.setattr(survey_module, "latest", latest)
    sources = Sources()
    assert [sources.latest(NEED, {}).revision for _ in range(3)] == ["r1"] * 3
    for _ in range(2):
        with pytest.raises(FleetError, match="gone"):
            sources.latest(OLLAMA, {})
    assert asked == ["org/tiny", "qwen3"]
