"""inventory.show: what holds for a machine, in the words of its files, as a machine file again."""

from __future__ import annotations

from pathlib import Path

import pytest
import render_cases
import yaml
from fleet_files import error_lines, load_files

from inferfleet.load.load import Loaded, load
from inferfleet.load.written import written
from inferfleet.operations.effective import effective, hardware_line, place, places, span
from inferfleet.paths import Roots
from inferfleet.render.render import draft
from inferfleet.schema.fleet import Fleet
from inferfleet.schema.nodes import Node

ROOTS = [Roots(render_cases.REPOSITORY)]
ROOTS += [Roots(render_cases.REPOSITORY, render_cases.CASES / name) for name in render_cases.NAMES]


def shown(loaded: Loaded, name: str, sources: bool = False) -> str:
    lines = written(effective(loaded, name), place if sources else lambda _: "")
    return "".join(f"{line}\n" for line in lines)


def files(fleet: Fleet, name: str) -> dict[str, str]:
    """Everything rendered without secrets, and what the units are."""
    made = draft(fleet, name, home="/home/x", python="/p")
    texts = {path: file.content.decode() for path, file in made.release.files.items()}
    return texts | {unit.service: repr(unit) for unit in made.release.units.values()}


@pytest.mark.parametrize("roots", ROOTS, ids=lambda roots: roots.overlay and roots.overlay.name)
def test_what_is_shown_is_a_machine_file_that_says_the_same(roots: Roots, tmp_path: Path) -> None:
    loaded = load(roots)
    names = [name for name in loaded.fleet.machines if not roots.overlay or "case" in name]
    over = tmp_path / "inventory"
    over.mkdir()
    for name in names:
        text = shown(loaded, name, sources=len(names) == 1)
        assert yaml.safe_load(text) == effective(loaded, name).plain()
        (over / f"{name}.yaml").write_text(f"merge: false\n{text}")
    for folder in ("services", "templates", "hostprep"):
        if roots.overlay and (roots.overlay / folder).is_dir():
            (tmp_path / folder).symlink_to(roots.overlay / folder)
    if roots.overlay:
        for path in (roots.overlay / "inventory").iterdir():
            if not (over / path.name).exists():
                (over / path.name).symlink_to(path)
    again = load(Roots(roots.data, tmp_path))
    assert error_lines(again) == ""
    for name in names:
        assert files(again.fleet, name) == files(loaded.fleet, name), name


def test_values_are_as_written_and_defaults_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load(Roots(render_cases.REPOSITORY))
    found = effective(loaded, "spark").plain()
    vllm = next(entry for entry in found["services"].values() if entry["kind"] == "vllm")
    assert vllm["memory"] == "104G"
    assert vllm["bind"] == "127.0.0.1"
    assert vllm["image"].startswith("vllm/vllm-openai:v")
    assert vllm["start-timeout"] == "20m"
    assert (vllm["evict"], vllm["admission"]) == ("allowed", "refuse")
    assert vllm["restart"] == {"window": "84m", "backoff": "1m", "max": 3}
    assert vllm["health"]["probe"] == "openai-completion"
    assert "127600748K" in hardware_line(loaded, "spark")
    assert hardware_line(load_files(tmp_path / "x", {"inventory/m.yaml": "{}\n"}), "m") == ""


def test_each_value_says_where_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ours = "address: a\nservices:\n  s: {kind: engine, model: /m, memory: 4G}\n"
    over = "services:\n  s:\n    memory: 5G\n    options: {threads: 3}\n"
    loaded = load_files(tmp_path, {"inventory/m.yaml": ours}, inventory__m=over)
    found = places(effective(loaded, "m"))
    assert found["address"] == "inventory/m.yaml:1"
    assert found["services.s.memory"] == "fleet/inventory/m.yaml:3"
    assert found["services.s.options.threads"] == "fleet/inventory/m.yaml:4"
    assert found["services.s.port"].startswith("services/engine.yaml:")
    assert found["bind"] == "default"
    assert "    memory: 5G  # fleet/inventory/m.yaml:3\n" in shown(loaded, "m", sources=True)


@pytest.mark.parametrize(
    "text",
    ["no", "0600", "22:22", "1e3", "1_000", "~", "y", "a: b", "a #b", "- x", "", "x:", "null",
     "127.0.0.1", "hf:a/b@c", "two\nlines", "caf\u00e9", "[x]", "{x", "0x1f", "1.5", "a,b", "=",
     "12e03"],
)  # fmt: skip
def test_every_text_comes_back(text: str) -> None:
    items = Node([Node(text, "f", (1, 1))], "f", (1, 1))
    node = Node({text or "k": Node(text, "f", (1, 1)), "list": items}, "f", (1, 1))
    (line, more) = written(node, lambda _: "f:1")
    assert yaml.safe_load(f"{line}\n{more}") == {text or "k": text, "list": [text]}
    from inferfleet.load.yaml12 import read

    root = read(f"{line}\n{more}".encode(), "f").root
    assert root is not None
    assert root.plain() == {text or "k": text, "list": [text]}


def test_spans() -> None:
    assert [span(n) for n in (1200, 7200, 90, 3600)] == ["20m", "2h", "90s", "1h"]
