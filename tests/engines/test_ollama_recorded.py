"""The server that stands for Ollama answers as the real one was recorded to answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.fleet import REPOSITORY
from testbed.ollama_asks import GROUPS
from testbed.ollama_record import plain, record
from testbed.ollama_server import VERSION, Ollama

from inferfleet.release.failure import Failure, find_cause

RECORDED = Path(__file__).parent.parent / "cases" / "ollama"
ASKS = [(group, ask.name) for group, asks in GROUPS.items() for ask in asks]


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    ollama = Ollama(tmp_path_factory.mktemp("store"), library={}).start()

    def known(registry: str) -> None:
        names = [f"{registry}/library/{name}" for name in ("tiny", "damaged")]
        ollama.library = {name: [3 << 20] for name in names}
        ollama.damaged = {f"http://{names[1]}"}

    try:
        found = record(f"http://127.0.0.1:{ollama.port}", b"GGUF" * 9, known)
    finally:
        ollama.close()
    return {(group, each["name"]): each for group, all_ in found.items() for each in all_}


@pytest.mark.parametrize(("group", "name"), ASKS)
def test_as_recorded(answered: dict[tuple[str, str], Any], group: str, name: str) -> None:
    kept = json.loads((RECORDED / f"{group}.json").read_text())
    assert kept["version"] == VERSION
    (real,) = [each for each in kept["exchanges"] if each["name"] == name]
    assert plain(answered[group, name]) == plain(real)


def test_what_it_says_when_it_cannot_load_is_recognised() -> None:
    """As it is said, and as a request for a token shows it: inside JSON, cut at 200 characters."""
    kind = yaml.safe_load((REPOSITORY / "services" / "ollama.yaml").read_text())
    failures = [Failure(each["match"], each["says"]) for each in kind["failures"]]
    kept = json.loads((RECORDED / "failures.json").read_text())
    assert kept["version"] == VERSION
    found = []
    for each in kept["said"]:
        shown = f"answers 500: {json.dumps({'error': each['words']})[:200]}"
        told = {cause.says for line in (each["words"], shown)
                if (cause := find_cause(line.splitlines(), failures))}  # fmt: skip
        assert len(told) == 1, (each, told)
        found += told
    assert found == [
        "the kernel ended the process that holds the model; most often there was no memory left",
        "the model needs 46080.00 MB of memory at once, and the machine has no such amount left",
        "Ollama refuses the parameter num_ctx: it must be of type integer",
        "something else listens on the port already",
    ]


def test_nothing_is_left_unasked() -> None:
    for group, asks in GROUPS.items():
        kept = json.loads((RECORDED / f"{group}.json").read_text())["exchanges"]
        assert [each["name"] for each in kept] == [ask.name for ask in asks]


def test_plain_keeps_what_counts() -> None:
    real = {"status": 200, "answer": [{"status": "success", "size": 5, "digest": "sha256:a"}]}
    for other in (
        {"status": 500, "answer": real["answer"]},
        {"status": 200, "answer": []},
        {"status": 200, "answer": [{"status": "done", "size": 5, "digest": "sha256:a"}]},
        {"status": 200, "answer": [{"status": "success", "digest": "sha256:a"}]},
    ):
        assert plain(other) != plain(real)
    assert plain({"size": 1, "done": True}) == plain({"size": 99, "done": True})
