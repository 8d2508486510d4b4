"""Ollama's models through its API, against the server of tests/testbed that answers as it does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed.ollama_server import Ollama
from unit.models_servers import Asset, Server, serving

from inferfleet.errors import USAGE, FleetError
from inferfleet.hosts.local import LocalHost
from inferfleet.models.need import ModelNeed
from inferfleet.models.needs import model_need
from inferfleet.models.ollama import ensure_ollama, ollama_state
from inferfleet.models.stale import latest, staleness
from inferfleet.models.transfer.fetch import bring

MODELFILE = {
    "parameters": {"num_ctx": 32768, "stop": "a"},
    "system": "Be kind",
    "template": None,
}


class Log:
    def __init__(self) -> None:
        self.moves: list[tuple[int, int | None]] = []

    def advance(self, need_key: str, done: int, total: int | None) -> None:
        self.moves.append((done, total))

    def note(self, text: str) -> None:
        raise AssertionError(text)


@pytest.fixture
def ollama(tmp_path: Path) -> Iterator[Ollama]:
    server = Ollama(tmp_path, library={"qwen3:8b": [300, 20, 200]}).start()
    yield server
    server.close()


def listed(ollama: Ollama) -> dict[str, str]:
    return {model["name"]: model["digest"] for model in ollama.store.models()}


def need_of(text: str) -> ModelNeed:
    need = model_need("chat", text, "ollama", "/models")
    assert need is not None
    return need


def test_pull_once_then_leave_alone(ollama: Ollama) -> None:
    need, host, log = need_of("qwen3:8b"), LocalHost("m1"), Log()
    assert bring(host, need, progress=log, secrets={}).changed is False
    assert staleness(need, ollama_state(host, need, ollama.port), None) == "missing"
    assert ensure_ollama(host, need, ollama.port, None, None, log) is True
    assert log.moves[-1] == (520, 520)
    assert [done for done, _ in log.moves] == sorted(done for done, _ in log.moves)
    assert ollama.calls == [("/api/pull", {"model": "qwen3:8b", "stream": True})]
    assert ensure_ollama(host, need, ollama.port, None, None, log) is False
    assert len(ollama.calls) == 1
    assert ensure_ollama(host, need, ollama.port, None, None, log, update=True) is False
    ollama.library["qwen3:8b"] = [300, 20, 250]
    assert ensure_ollama(host, need, ollama.port, None, None, log, update=True) is True


def test_a_modelfile_under_a_served_name(ollama: Ollama) -> None:
    need, host = need_of("qwen3:8b"), LocalHost("m1")
    assert ensure_ollama(host, need, ollama.port, MODELFILE, "qwen3-fp8", Log()) is True
    assert ollama.calls[-1] == (
        "/api/create",
        {
            "model": "qwen3-fp8",
            "from": "qwen3:8b",
            "stream": True,
            "parameters": {"num_ctx": 32768, "stop": ["a"]},  # a text alone is refused
            "system": "Be kind",
        },
    )
    assert "qwen3-fp8:latest" in listed(ollama)
    assert ollama.store.settings("qwen3-fp8")[:2] == ({"num_ctx": 32768, "stop": ["a"]}, "Be kind")
    assert ensure_ollama(host, need, ollama.port, MODELFILE, "qwen3-fp8", Log()) is False
    other = {**MODELFILE, "system": "Be brief"}
    assert ensure_ollama(host, need, ollama.port, other, "qwen3-fp8", Log()) is True
    with pytest.raises(FleetError, match="served-name") as caught:
        ensure_ollama(host, need, ollama.port, MODELFILE, None, Log())
    assert caught.value.code == USAGE


def test_the_engines_own_words_are_shown(ollama: Ollama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferfleet.models.ollama._START_SECONDS", 0.0)
    host = LocalHost("m1")
    with pytest.raises(FleetError, match="file does not exist") as caught:
        ensure_ollama(host, need_of("qwen9"), ollama.port, None, None, Log())
    assert "spelling of qwen9" in caught.value.hint
    need = need_of("qwen3:8b")
    bad = {"template": "{{ .Prompt"}
    with pytest.raises(FleetError, match="create x: template error: template: :1: unclosed action"):
        ensure_ollama(host, need, ollama.port, bad, "x", Log())
    with pytest.raises(FleetError, match="create a b: invalid model name"):
        ensure_ollama(host, need, ollama.port, None, "a b", Log())
    need = need_of("qwen3:4b")
    ollama.library["qwen3:4b"] = [300, 20, 100]
    ollama.error_in_stream = "write /root/.ollama/x: no space left on device"
    with pytest.raises(FleetError, match="no space left") as caught:
        ensure_ollama(host, need, ollama.port, None, None, Log())
    assert "make room" in caught.value.hint
    ollama.error_in_stream, ollama.break_off = "", True
    with pytest.raises(FleetError, match=r"it stopped at: pulling [0-9a-f]{12}"):
        ensure_ollama(host, need, ollama.port, None, None, Log())
    port = ollama.port
    ollama.close()
    with pytest.raises(FleetError, match="lost Ollama on port"):
        ensure_ollama(host, need, port, None, None, Log())


@pytest.fixture
def registry() -> Iterator[Server]:
    with serving() as server:
        yield server


def test_stale_by_the_registrys_manifest(ollama: Ollama, registry: Server) -> None:
    sizes = [{"size": 300, "mediaType": "m"}, {"size": 200, "mediaType": "p"}]
    manifest = json.dumps({"config": {"size": 10}, "layers": sizes}).encode()
    path = "/v2/library/tiny/manifests/8b"
    registry.assets[path] = Asset(manifest)
    name = f"127.0.0.1:{registry.port}/library/tiny:8b"
    need, host = need_of(name), LocalHost("m1")
    now = latest(need, {})
    assert (now.revision, now.bytes) == (hashlib.sha256(manifest).hexdigest(), 510)
    ollama.store.write(name, manifest)
    assert staleness(need, ollama_state(host, need, ollama.port), now) == "current"
    registry.assets[path] = Asset(manifest.replace(b"300", b"301"))
    again = latest(need, {})
    assert staleness(need, ollama_state(host, need, ollama.port), again) == "stale"
    del registry.assets[path]
    with pytest.raises(FleetError, match="does not exist"):
        latest(need, {})
