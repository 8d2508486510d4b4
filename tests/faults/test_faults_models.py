"""Services and the files of their models: whoever changes these, what runs with others is seen."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults.fleet import KIND, MACHINE, FleetBox
from ports import free_port

from inferfleet.errors import FleetError
from inferfleet.events import silent

OTHER = "other"
FILES = "its model's files changed since it started"
TEXT = "a text in its model's alias changed"
REPLACE = [("replace", "echo", FILES)]


class Reader:
    """The machine of the box, and on request another one on the same disk; both read one file."""

    def __init__(self, box: FleetBox, folder: Path) -> None:
        self.box, self.source = box, folder / "m.bin"
        self.models = folder / "models"
        kind = {**KIND, "model": {"bare": "hf"}}
        (box.overlay / "services" / "echo.yaml").write_text(yaml.safe_dump(kind))
        box.machine["models"] = str(self.models)
        self.publish("one")
        self.want()

    def publish(self, text: str) -> str:
        """The source's content, and its checksum."""
        self.source.write_text(text)
        return hashlib.sha256(text.encode()).hexdigest()

    def want(self, **keys: Any) -> None:
        self.box.serve("one", model={"source": f"file:{self.source}", **keys})

    def share(self, other: FleetBox) -> None:
        """A second machine, of its own root and port."""
        self.box.machine["site"] = "lab"
        self.box.write()
        service = {**self.box.services["echo"], "port": other.port}
        machine = {**self.box.machine, "root": str(other.root), "services": {"echo": service}}
        path = self.box.overlay / "inventory" / f"{OTHER}.yaml"
        path.write_text(yaml.safe_dump(machine))

    def steps(self) -> list[tuple[str, str, str]]:
        return [(s.action, s.target, s.reason) for s in self.box.plan().steps]

    def pid(self) -> str:
        return self.box.observed().units["echo"].detail.split(",")[0]

    def update(self, *words: str, at: str = MACHINE) -> tuple[int, dict[str, Any]]:
        ran = self.box.invoke("update-models", "--host", at, "--yes", "--format", "json", *words)
        return ran.returncode, json.loads(ran.stdout)[0]


@pytest.fixture
def reader(empty: FleetBox, tmp_path: Path) -> Reader:
    """Its service runs."""
    made = Reader(empty, tmp_path)
    assert empty.up().ok
    assert made.steps() == []
    return made


def test_what_was_not_restarted_is_seen_until_it_is(reader: Reader) -> None:
    box, before = reader.box, reader.pid()
    reader.publish("two")
    code, row = reader.update("--no-restart")
    assert (code, row["verdict"], row["outdated"]) == (0, "updated", ["echo"])
    assert (reader.steps(), reader.pid()) == (REPLACE, before)
    (status,) = json.loads(box.invoke("status", "--host", MACHINE, "--format", "json").stdout)
    assert status["detail"].endswith(f"replace pending: {FILES}")
    code, row = reader.update("--check")
    assert (code, row["verdict"], row["outdated"]) == (2, "current", ["echo"])
    assert row["detail"] == "echo to restart: runs with other files"
    assert reader.update("--check", "--no-restart")[0] == 0
    assert box.up().ok
    assert (reader.steps(), box.current()) == ([], 1)
    assert reader.pid() != before
    assert reader.update("--check")[0] == 0


def test_other_changes_wait_and_then_take_the_files_with_them(reader: Reader) -> None:
    reader.publish("two")
    reader.box.serve("more", "more", port=free_port())
    code, row = reader.update()
    assert (code, row["detail"]) == (0, "not restarted: other changes wait for `invoke up`")
    assert reader.steps()[-2:] == [*REPLACE, ("start", "more", "is new")]
    assert reader.box.up().ok
    assert reader.steps() == []


def test_what_another_machine_brought_to_their_disk(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = FleetBox(tmp_path / "other")
    reader.share(other)
    try:
        assert reader.box.invoke("up", "--host", OTHER).returncode == 0
        # It has brought nothing, and whoever prunes the disk has to know of it all the same.
        roots = (reader.models / ".inferbase/roots").read_text().split()[1::2]
        assert roots == [str(reader.box.root), str(other.root)]
        reader.publish("two")
        code, row = reader.update()
        assert (code, row["detail"]) == (0, "restarted echo")
        assert reader.steps() == []
        planned = reader.box.invoke("plan", "--host", OTHER)
        assert (planned.returncode, FILES in planned.stdout) == (2, True), planned
        code, row = reader.update(at=OTHER)
        assert (code, row["verdict"]) == (0, "current")
        assert (row["detail"], row["outdated"]) == ("restarted echo", [])
        assert reader.box.invoke("plan", "--host", OTHER).returncode == 0
        # In one run one of them brings the files, and both are restarted.
        reader.publish("three")
        both = ("--host", MACHINE, "--host", OTHER)
        ran = reader.box.invoke("update-models", *both, "--yes", "--format", "json")
        assert [row["detail"] for row in json.loads(ran.stdout)] == ["restarted echo"] * 2, ran
        assert reader.box.invoke("plan", *both).returncode == 0
    finally:
        other.end()


def test_a_run_that_was_cut_after_the_fetch_is_finished_by_the_next(reader: Reader) -> None:
    box, two = reader.box, reader.publish("two")
    reader.want(sha256=two)
    planned = box.planned()
    assert [step.action for step in planned.plan.steps] == ["fetch", "replace"]
    planned.talk.fetch(planned.plan, silent)
    assert reader.steps() == REPLACE
    assert box.up().ok
    assert reader.steps() == []


def test_what_an_earlier_version_started_is_left_alone(reader: Reader) -> None:
    note = reader.box.state / "started" / "echo"
    first, *more = note.read_text().splitlines()
    assert len(more) == 1
    note.write_text(f"{first}\n")
    assert reader.steps() == []
    reader.publish("two")
    assert reader.update("--no-restart")[0] == 0
    assert reader.steps() == []
    # What it brings itself, it knows to be other files.
    reader.publish("three")
    assert reader.update()[1]["detail"] == "restarted echo"
    assert len(note.read_text().splitlines()) == 2


def test_a_wrong_checksum_stops_nothing(reader: Reader) -> None:
    box, before = reader.box, reader.pid()
    reader.want(sha256="0" * 64)
    with pytest.raises(FleetError, match=r"SHA-256|checksum"):
        box.up()
    assert (box.says(), reader.pid(), box.leftovers()) == ("one", before, [])
    assert [s[0] for s in reader.steps()] == ["fetch", "replace"]
    code, row = reader.update()
    assert (code, row["verdict"], reader.pid()) == (1, "failed", before)
    assert box.down().ok
    with pytest.raises(FleetError, match=r"SHA-256|checksum"):
        box.up()
    assert box.says() is None
    reader.want()
    assert box.up().ok


def test_another_text_in_an_alias(reader: Reader) -> None:
    box, prompt = reader.box, reader.models / "team" / "x" / "p.txt"
    reader.want(alias="team/x", extra={"p.txt": "one"})
    assert box.up().ok
    assert (prompt.read_text(), reader.steps()) == ("one", [])
    reader.want(alias="team/x", extra={"p.txt": "two"})
    assert [(s[0], s[2]) for s in reader.steps()] == [
        ("fetch", "for echo: its alias differs"), ("replace", TEXT),
    ]  # fmt: skip
    assert reader.update("--no-restart")[1]["outdated"] == ["echo"]
    assert (prompt.read_text(), reader.steps()) == ("two", [("replace", "echo", TEXT)])
    assert reader.update()[1]["detail"] == "restarted echo"
    assert reader.steps() == []


def test_an_alias_that_nobody_loads_restarts_nobody(reader: Reader) -> None:
    box, prompt = reader.box, reader.models / "team" / "x" / "p.txt"
    (box.overlay / "inventory" / "models").mkdir()
    declared = box.overlay / "inventory" / "models" / "tiny.yaml"
    before = reader.pid()
    box.serve("one", model="tiny")
    for text in ("one", "two"):
        aliases = {"team/x": {"p.txt": text}}
        model = {"source": f"file:{reader.source}", "aliases": aliases}
        declared.write_text(yaml.safe_dump(model))
        assert [step[0] for step in reader.steps()] == ["fetch"]
        assert box.up().ok
        assert (prompt.read_text(), reader.steps(), reader.pid()) == (text, [], before)


def test_texts_beside_a_model_that_is_on_the_machine(reader: Reader) -> None:
    for text in ("one", "two"):
        extra = {"p.txt": text}
        reader.box.serve("one", model={"source": str(reader.source), "alias": "y", "extra": extra})
        assert [step[0] for step in reader.steps()] == ["fetch", "replace"]
        assert reader.box.up().ok
        assert ((reader.models / "y/p.txt").read_text(), reader.steps()) == (text, [])
