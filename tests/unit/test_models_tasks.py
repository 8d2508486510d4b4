"""Tasks about models as a user runs them: a hub, and machines that are all this one."""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from invoke.context import Context
from invoke.exceptions import Exit
from unit.models_servers import Asset, Hub, serving

from inferfleet.errors import CHANGES, FAILED, LOCKED, OK, USAGE
from inferfleet.hosts.local import LocalHost
from inferfleet.models import shelf as shelf_module
from inferfleet.models.needs import model_need
from inferfleet.models.shelf import Shelf, read_shelf
from inferfleet.models.transfer.store import open_store
from inferfleet.tasks.models import update_models
from inferfleet.tasks.shelf import list_, prune
from inferfleet.tasks.shelf import verify as verify_task

BIG = random.Random(5).randbytes(2_000_000)
STEADY = {
    "summary": "a process that has a model",
    "api": "http",
    "default-port": 20100,
    "model": {"bare": "hf"},
    "process": {"command": ["/bin/sleep", "1000", "{model}"]},
    "health": {"path": "/"},
    "probe": "http",
}


class Lab:
    """An overlay with machines that are all this one, and what their tasks say."""

    def __init__(self, folder: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.hub, self._capsys = folder, hub, capsys
        self.models = folder / "models"
        self.err = ""
        self._write("services/steady.yaml", STEADY)
        self.declare()
        self.machine("n1")

    def _write(self, path: str, data: dict[str, Any]) -> None:
        file = self.folder / "fleet" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(data))

    def machine(self, name: str, model: Any = "tiny", **keys: Any) -> None:
        service = {"kind": "steady", "program": "/bin/sleep", "model": model, "port": 20101}
        self._write(f"inventory/{name}.yaml", {
            "hardware": "cpu", "root": str(self.folder / name), "models": str(self.models),
            "runtime": "process", "services": {"a": service}, **keys,
        })  # fmt: skip

    def declare(self, **keys: Any) -> None:
        self._write("inventory/models/tiny.yaml", {"source": "hf:org/tiny", **keys})

    def ask(self, task: Any, *hosts: str, **options: Any) -> tuple[int, list[dict[str, Any]]]:
        """(exit code, rows) of a task."""
        self._capsys.readouterr()
        code = OK
        try:
            task(Context(), host=hosts or ("n1",), format="json", **options)
        except Exit as ended:
            code = ended.code or OK
        out, self.err = self._capsys.readouterr()
        return code, json.loads(out) if out else []

    def refuse(self, status: int) -> None:
        """From now on the hub answers no question about a model."""
        for path in list(self.hub.server.assets):
            if path.startswith("/api/"):
                self.hub.server.assets[path] = Asset(b"{}", status)

    def fetched(self) -> int:
        return len([r for r in self.hub.storage.requests if r.method == "GET"])


@pytest.fixture
def lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Lab]:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("INFERBASE_OVERLAY", str(tmp_path / "fleet"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with serving() as server, serving() as storage:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield Lab(tmp_path, Hub(server, storage), capsys)


@pytest.mark.parametrize("site", [None, "lab"])
def test_two_machines_on_one_disk_wait_for_each_other(lab: Lab, site: str | None) -> None:
    lab.hub.publish({"c.json": b"{}", "m.bin": BIG}, large=("m.bin",))
    lab.hub.large(BIG).pause = 0.02
    for name in ("n1", "n2"):
        lab.machine(name, **({"site": site} if site else {}))
    code, rows = lab.ask(update_models, "n1", "n2", yes=True)
    assert (code, {row["verdict"] for row in rows}) == (OK, {"updated", "current"}), rows
    assert {row["installed"] for row in rows} == {lab.hub.commit}
    assert lab.fetched() == 1
    assert "waits for n" in lab.err
    # Who has exactly these files copies nothing, not even by way of this machine.
    assert "in and out again" not in lab.err
    assert list(lab.models.glob(".inferbase/*.lock")) == []
    assert lab.ask(update_models, "n1", "n2", check=True)[0] == OK


def test_a_lock_of_another_run_is_not_waited_for(lab: Lab) -> None:
    lab.hub.publish({"m.bin": BIG}, large=("m.bin",))
    need = model_need("a", "hf:org/tiny", "hf", str(lab.models))
    assert need is not None
    lab.machine("n2")
    with open_store(LocalHost("n1"), need):
        code, rows = lab.ask(update_models, "n1", "n2", yes=True)
        assert code == LOCKED, rows
        assert {(row["verdict"], row["code"]) for row in rows} == {("failed", LOCKED)}
        assert all("another run (process " in row["detail"] for row in rows)
    assert lab.ask(update_models, yes=True)[0] == OK


@pytest.mark.parametrize("status", [429, 503])
def test_a_source_that_cannot_be_asked_is_unknown(lab: Lab, status: int) -> None:
    lab.hub.publish({"m.bin": BIG}, large=("m.bin",))
    lab.machine("n2", models=str(lab.folder / "models2"))
    assert lab.ask(update_models, yes=True)[0] == OK
    lab.refuse(status)
    code, rows = lab.ask(update_models, "n1", "n2", check=True)
    assert code == FAILED
    assert [row["verdict"] for row in rows] == ["unknown", "unknown"]
    assert all(f"HTTP {status}" in row["detail"] for row in rows)
    # Nothing that is known to fail is tried, and nobody is asked about it.
    code, again = lab.ask(update_models, "n1", "n2")
    said = [[(row["verdict"], row["detail"]) for row in found] for found in (rows, again)]
    assert (code, said[0]) == (FAILED, said[1])
    (lab.models / "hf/org--tiny/main/m.bin").unlink()
    assert [row["verdict"] for row in lab.ask(update_models, check=True)[1]] == ["unknown"]


def test_what_can_be_had_without_its_source_is(lab: Lab) -> None:
    first = lab.hub.publish({"m.bin": BIG}, large=("m.bin",))
    lab.ask(update_models, yes=True)
    lab.hub.publish({"m.bin": b"2"})
    lab.ask(update_models, yes=True)
    lab.refuse(503)
    # A pinned revision that the machine has kept,
    lab.declare(revision=first)
    code, rows = lab.ask(update_models, check=True)
    assert (code, rows[0]["verdict"], rows[0]["fetch_bytes"]) == (CHANGES, "missing", 0)
    assert lab.ask(update_models, yes=True)[0] == OK
    # and one that another machine of the site has.
    for name in ("n1", "n2"):
        lab.machine(name, site="lab", models=str(lab.folder / ("models" + name.strip("n1"))))
    code, rows = lab.ask(update_models, "n1", "n2", check=True)
    assert (code, [row["verdict"] for row in rows]) == (CHANGES, ["current", "missing"])
    code, rows = lab.ask(update_models, "n1", "n2", yes=True)
    assert (code, rows[1]["verdict"]) == (OK, "updated"), rows
    assert (lab.folder / f"models2/hf/org--tiny/{first}/m.bin").read_bytes() == BIG


def test_files_that_are_gone_cost_their_bytes(lab: Lab) -> None:
    lab.hub.publish({"c.json": b"{}", "m.bin": BIG}, large=("m.bin",))
    lab.ask(update_models, yes=True)
    (lab.models / "hf/org--tiny/main/m.bin").unlink()
    code, rows = lab.ask(update_models, check=True)
    assert (code, rows[0]["verdict"], rows[0]["fetch_bytes"]) == (CHANGES, "partial", len(BIG))


def test_a_branch_in_the_model_file_is_asked_for(lab: Lab) -> None:
    lab.hub.publish({"m.bin": BIG}, large=("m.bin",))
    lab.declare(revision="main")
    assert lab.ask(update_models, yes=True)[0] == OK
    second = lab.hub.publish({"m.bin": b"2"})
    code, rows = lab.ask(update_models, check=True)
    assert (code, rows[0]["verdict"], rows[0]["latest"]) == (CHANGES, "stale", second)


def test_the_list_shows_what_a_model_file_can_be_pinned_to(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    first = lab.hub.publish({"m.bin": BIG}, large=("m.bin",))
    lab.ask(update_models, yes=True)
    second = lab.hub.publish({"m.bin": b"2"})
    lab.ask(update_models, yes=True)
    assert {row["revision"] for row in lab.ask(list_)[1]} == {first, second}
    with suppress(Exit):
        list_(Context(), host=("n1",))
    assert {word for word in capsys.readouterr().out.split() if len(word) == 40} == {first, second}


def old_and_other(lab: Lab) -> tuple[str, str]:
    """Two revisions of tiny, of which the first is old, and a model that no service names."""
    first = lab.hub.publish({"m.bin": BIG}, large=("m.bin",))
    lab.machine("n1", "hf:org/other")
    Hub(lab.hub.server, lab.hub.storage, "org/other").publish({"x.bin": b"x"})
    lab.ask(update_models, yes=True)
    lab.machine("n1")
    lab.ask(update_models, yes=True)
    second = lab.hub.publish({"m.bin": b"2"})
    lab.ask(update_models, yes=True)
    return first, second


def test_pruning_one_model_only(lab: Lab) -> None:
    first, second = old_and_other(lab)

    def would_go(*models: str) -> tuple[int, list[tuple[str, str]]]:
        code, rows = lab.ask(prune, check=True, model=models)
        return code, [(row["what"], row["model"]) for row in rows]

    tiny, other = ("old", "hf:org/tiny"), ("unused", "hf:org/other")
    assert would_go() == (CHANGES, [tiny, other]) or would_go() == (CHANGES, [other, tiny])
    for name in ("tiny", "hf:org/tiny", "org/tiny", f"hf:org/tiny@{first}"):
        assert would_go(name) == (CHANGES, [tiny]), name
    assert would_go("hf:org/other") == (CHANGES, [other])
    # It has nothing that could go, but it is known.
    assert lab.ask(prune, yes=True, model=("tiny",))[0] == OK
    assert would_go("tiny") == (OK, [])
    assert would_go("hf:org/other", "tiny") == (CHANGES, [other])
    # A pinned model file means all of its old revisions, too.
    lab.declare(revision=second)
    assert would_go("tiny") == (CHANGES, [("unused", "hf:org/tiny")])


def test_a_model_that_nobody_has_is_a_usage_error(lab: Lab) -> None:
    old_and_other(lab)
    before = sorted(str(path) for path in lab.models.rglob("*"))
    for task in (prune, update_models, verify_task):
        for name in ("nonsense", "tinny", "hf:org/nobody", "hf:org/tiny@0000000"):
            assert lab.ask(task, model=(name,)) == (USAGE, []), (task, name)
            assert f"--model {name}: " in lab.err
            assert name != "tinny" or "did you mean tiny?" in lab.err
    assert sorted(str(path) for path in lab.models.rglob("*")) == before


def test_what_another_machine_may_read_is_not_pruned(lab: Lab) -> None:
    first, _ = old_and_other(lab)
    roots = lab.models / ".inferbase/roots"
    assert roots.read_text().split()[0] == os.uname().nodename
    with roots.open("a") as file:
        file.write("node2 /mnt/work/inference\n")
    for every in (False, True):
        code, rows = lab.ask(prune, yes=True, all_generations=every)
        assert code == OK
        assert {row["detail"] for row in rows} == {"node2 uses this disk, too"}
    assert first in {row["revision"] for row in rows}


def test_all_machines_of_a_disk_prune_it_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines that call themselves m1 and m2, by their roots, and see one disk."""
    first, _ = old_and_other(lab)
    lab.machine("n2")
    lab.machine("n3", models=str(lab.folder / "elsewhere"))
    (lab.models / ".inferbase/roots").write_text("n1 /opt/a\nn2 /opt/a\n")

    def read(host: Any, models: str, root: str, **more: Any) -> Shelf:
        found = read_shelf(host, models, root, **more)
        others = {"n1", "n2"} - {host.name}
        return replace(found, here=host.name, elsewhere=tuple(others) if found.stores else ())

    monkeypatch.setattr(shelf_module, "read_shelf", read)
    for hosts in (("n1",), ("n2", "n3")):
        code, rows = lab.ask(prune, *hosts, yes=True)
        assert (code, {row["result"] for row in rows}) == (OK, {"stays"})
    with next(lab.models.glob("hf/org--tiny/.main@*/m.bin")).open("rb"):
        code, rows = lab.ask(prune, "n1", "n2", "n3", check=True, model=("tiny",))
    assert {(row["machine"], row["revision"]) for row in rows} == {("n1", first)}
    code, rows = lab.ask(prune, "n1", "n2", "n3", yes=True)
    assert {(row["machine"], row["result"]) for row in rows} == {("n1", "removed")}
    assert (code, lab.ask(prune, "n1", "n2", "n3", check=True)) == (OK, (OK, []))


def test_a_machine_that_lost_the_disk_meanwhile_tells_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_and_other(lab)
    lab.machine("n2")
    (lab.models / ".inferbase/roots").write_text("n1 /opt/a\nn2 /opt/a\n")
    seen: list[str] = []

    def read(host: Any, models: str, root: str, **more: Any) -> Shelf:
        found = read_shelf(host, models, root, **more)
        if host.name == "n2" and host.name in seen:
            return Shelf(0, 0, here="n2")
        seen.append(host.name)
        return replace(found, here=host.name, elsewhere=tuple({"n1", "n2"} - {host.name}))

    monkeypatch.setattr(shelf_module, "read_shelf", read)
    code, rows = lab.ask(prune, "n1", "n2", yes=True)
    assert (code, {row["result"] for row in rows}) == (OK, {"stays"})
    assert {row["detail"] for row in rows} == {"n2 uses this disk, too"}


def test_what_a_service_was_started_with_is_not_pruned(lab: Lab) -> None:
    first, _ = old_and_other(lab)
    stamps = map(json.loads, (p.read_text() for p in lab.models.glob(".inferbase/*.json")))
    (store,) = (stamp["store"] for stamp in stamps if stamp["revision"] == first)
    started = lab.folder / "n1/.inferbase/started/a"
    started.parent.mkdir(parents=True, exist_ok=True)
    started.write_text(f"digest\n{lab.models}/hf/org--tiny/main\t{store}\n")
    rows = {row["what"]: row for row in lab.ask(prune, check=True)[1]}
    assert (rows["old"]["result"], rows["old"]["detail"]) == ("stays", "a process reads it")
    assert rows["unused"]["result"] == "goes"
    started.unlink()
    assert {row["result"] for row in lab.ask(prune, check=True)[1]} == {"goes"}


def test_a_model_that_another_run_has_is_not_pruned(lab: Lab) -> None:
    old_and_other(lab)
    need = model_need("a", "hf:org/other", "hf", str(lab.models))
    assert need is not None
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with open_store(LocalHost("n1"), need):
            locked.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert locked.wait(60)
        code, rows = lab.ask(prune, yes=True, model=("hf:org/other",))
    finally:
        done.set()
        thread.join()
    assert (code, [row["result"] for row in rows]) == (LOCKED, ["failed"])
