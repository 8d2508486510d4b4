"""models.prune and update-models as a user runs them, while others use the same disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from invoke.context import Context

from inferfleet.errors import FleetError
from inferfleet.hosts.local import LocalHost
from inferfleet.models.need import ModelNeed, Source
from inferfleet.models.stamp import Stamp, StampFile
from inferfleet.models.transfer.depot import Depot
from inferfleet.models.transfer.fetch import Brought
from inferfleet.operations import update
from inferfleet.operations.route import Fleetwide
from inferfleet.operations.survey import Survey, Want
from inferfleet.run import sharing
from inferfleet.tasks import carry
from inferfleet.tasks.shelf import prune

NAMES = ("one", "two")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine's root, with two models that no service names."""
    root, inventory = tmp_path / "root", tmp_path / "fleet" / "inventory"
    inventory.mkdir(parents=True)
    local = {"root": str(root), "models": str(root / "models"), "services": None}
    (inventory / "local.yaml").write_text(yaml.safe_dump(local))
    monkeypatch.setenv("INFERBASE_OVERLAY", str(tmp_path / "fleet"))
    (root / "models" / ".inferbase").mkdir(parents=True)
    for name in NAMES:
        store = f".{name}@{'a' * 12}"
        folder = root / "models" / "hf" / "x" / store
        folder.mkdir(parents=True)
        (folder / "m.bin").write_bytes(b"1234")
        (folder.parent / name).symlink_to(store)
        stamp = Stamp(f"hf:x/{name}", "r", store, (StampFile("m.bin", 4, "0"),), "now")
        (root / "models" / ".inferbase" / f"{name}.json").write_text(stamp.to_json() + "\n")
    return root


def test_what_is_taken_into_use_while_it_is_asked_stays(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def confirmed(_: Sequence[str]) -> bool:
        generation = root / ".inferbase" / "generations" / "4"
        generation.mkdir(parents=True)
        (generation / "compose.yaml").write_text("/models/hf/x/two/m.bin")
        (root / "current").symlink_to(".inferbase/generations/4")
        return True

    monkeypatch.setattr(carry, "confirmed", confirmed)
    prune.body(Context(), format="json")
    rows = {row["model"]: row for row in json.loads(capsys.readouterr().out)}
    assert {name: row["result"] for name, row in rows.items()} == {
        "hf:x/one": "removed", "hf:x/two": "stays",
    }  # fmt: skip
    assert rows["hf:x/two"]["detail"] == f"generation 4 of {root} runs with it"
    assert not (root / "models/hf/x/one").exists()
    assert (root / "models/hf/x/two/m.bin").read_bytes() == b"1234"


def test_files_that_cannot_be_put_back_are_said_to_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    need = ModelNeed("s", "k", Source("hf", "x/one"), "/m/hf/x/one", "", models_dir="/m")
    want = Want(need, ("s",), None, None, "stale")
    outcomes = iter([SimpleNamespace(ok=False, logs=(), failure="s does not get ready")] * 2)
    planned: Any = SimpleNamespace(plan=SimpleNamespace(problems=(), steps=()))
    unit = SimpleNamespace(up=True)
    observed: Any = SimpleNamespace(units={"s": unit}, loaded={}, manifest=None, model_lines=())
    session: Any = SimpleNamespace(
        host=LocalHost("m1"),
        sudo=False,
        secrets={},
        release=SimpleNamespace(models=(need,), root="/r"),
        observe=lambda: observed,
        plan=lambda goal: planned,
        apply=lambda *_: next(outcomes),
    )
    old = Stamp("hf:x/one", "r1", ".one@a", (), "")
    brought = Brought(True, Stamp("hf:x/one", "r2", ".one@b", (), ""), old)

    def gone(*_: object, **__: object) -> None:
        raise FleetError("m1: the files are gone")

    monkeypatch.setattr(sharing, "bring", lambda *_, **__: brought)
    monkeypatch.setattr(update, "put_back", gone)
    plan = Fleetwide({"m1": Survey(session, observed, None, (want,))}, {}, Depot({}))
    (row,) = update.carry_out(plan, {}, lambda event: None, True)
    assert (row["verdict"], row["installed"]) == ("failed", "r2")
    assert row["detail"] == "s does not get ready; not put back: m1: the files are gone"
