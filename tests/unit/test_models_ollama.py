"""Ollama's models through its API, against a server that keeps to its documented form."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from unit.models_servers import Asset, Server, serving

from inferfleet.errors import USAGE, FleetError
from inferfleet.hosts.local import LocalHost
from inferfleet.models.fetch import ensure, ensure_ollama
from inferfleet.models.need import ModelNeed
from inferfleet.models.needs import model_need
from inferfleet.models.ollama import full_name, ollama_state
from inferfleet.models.stale import latest, staleness

MODELFILE = {
    "parameters": {"num_ctx": 32768, "stop": ["a", "b"]},
    "system": "Be kind",
    "template": None,
}


class Ollama:
    """library: what can be pulled, name -> layer sizes; models: what is there, name -> digest."""

    def __init__(self) -> None:
        self.library: dict[str, list[int]] = {"qwen3:8b": [300, 200]}
        self.models: dict[str, str] = {}
        self.calls: list[tuple[str, dict[str, object]]] = []
        self.error_in_stream = ""
        self.break_off = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                models = [
                    {"name": name, "model": name, "digest": digest, "size": 500}
                    for name, digest in outer.models.items()
                ]
                self.reply(200, [{"models": models}])

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.calls.append((self.path, body))
                answer = {"/api/pull": outer.pull, "/api/create": outer.create}[self.path]
                self.reply(*answer(body))

            def reply(self, status: int, lines: list[dict[str, object]]) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/x-ndjson")
                self.end_headers()
                for line in lines:
                    self.wfile.write(json.dumps(line).encode() + b"\n")

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def pull(self, body: dict[str, object]) -> tuple[int, list[dict[str, object]]]:
        lines: list[dict[str, object]] = [{"status": "pulling manifest"}]
        name = full_name(str(body["model"]))
        if name not in self.library:
            words = "pull model manifest: file does not exist"
            return 200, [*lines, {"error": words}]
        for size in self.library[name]:
            layer = {"status": f"pulling {size}", "digest": f"sha256:{size}", "total": size}
            lines += [layer, {**layer, "completed": size // 2}, {**layer, "completed": size}]
        if self.error_in_stream:
            return 200, [*lines, {"error": self.error_in_stream}]
        if self.break_off:
            return 200, lines
        self.models[name] = hashlib.sha256(repr(self.library[name]).encode()).hexdigest()
        return 200, [*lines, {"status": "verifying sha256 digest"}, {"status": "success"}]

    def create(self, body: dict[str, object]) -> tuple[int, list[dict[str, object]]]:
        base = full_name(str(body["from"]))
        if base not in self.models:
            return 400, [{"error": f"model '{base}' not found"}]
        if "nonsense" in dict(body.get("parameters") or {}):  # type: ignore[call-overload]
            return 400, [{"error": "unknown parameter 'nonsense'"}]
        known = {key: body.get(key) for key in ("parameters", "system", "template")}
        text = json.dumps([self.models[base], known], sort_keys=True)
        self.models[full_name(str(body["model"]))] = hashlib.sha256(text.encode()).hexdigest()
        return 200, [{"status": "writing manifest"}, {"status": "success"}]


class Log:
    def __init__(self) -> None:
        self.moves: list[tuple[int, int | None]] = []

    def advance(self, need_key: str, done: int, total: int | None) -> None:
        self.moves.append((done, total))

    def note(self, text: str) -> None:
        raise AssertionError(text)


@pytest.fixture
def ollama() -> Iterator[Ollama]:
    server = Ollama()
    yield server
    server.close()


def need_of(text: str) -> ModelNeed:
    need = model_need("chat", text, "ollama", "/models")
    assert need is not None
    return need


def test_pull_once_then_leave_alone(ollama: Ollama) -> None:
    need, host, log = need_of("qwen3:8b"), LocalHost("m1"), Log()
    assert ensure(host, need, progress=log, secrets={}) is False
    assert staleness(need, ollama_state(host, need, ollama.port), None) == "missing"
    assert ensure_ollama(host, need, ollama.port, None, None, log) is True
    assert log.moves[-1] == (500, 500)
    assert [done for done, _ in log.moves] == sorted(done for done, _ in log.moves)
    assert ollama.calls == [("/api/pull", {"model": "qwen3:8b", "stream": True})]
    assert ensure_ollama(host, need, ollama.port, None, None, log) is False
    assert len(ollama.calls) == 1
    assert ensure_ollama(host, need, ollama.port, None, None, log, update=True) is False
    ollama.library["qwen3:8b"] = [300, 250]
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
            "parameters": {"num_ctx": 32768, "stop": ["a", "b"]},
            "system": "Be kind",
        },
    )
    assert "qwen3-fp8:latest" in ollama.models
    assert ensure_ollama(host, need, ollama.port, MODELFILE, "qwen3-fp8", Log()) is False
    other = {**MODELFILE, "system": "Be brief"}
    assert ensure_ollama(host, need, ollama.port, other, "qwen3-fp8", Log()) is True
    with pytest.raises(FleetError, match="served-name") as caught:
        ensure_ollama(host, need, ollama.port, MODELFILE, None, Log())
    assert caught.value.code == USAGE


def test_the_engines_own_words_are_shown(ollama: Ollama) -> None:
    host = LocalHost("m1")
    with pytest.raises(FleetError, match="file does not exist") as caught:
        ensure_ollama(host, need_of("qwen9"), ollama.port, None, None, Log())
    assert "spelling of qwen9" in caught.value.hint
    need = need_of("qwen3:8b")
    bad = {"parameters": {"nonsense": 1}}
    with pytest.raises(FleetError, match="create x: unknown parameter 'nonsense'"):
        ensure_ollama(host, need, ollama.port, bad, "x", Log())
    ollama.models.clear()
    ollama.error_in_stream = "write /root/.ollama/x: no space left on device"
    with pytest.raises(FleetError, match="no space left") as caught:
        ensure_ollama(host, need, ollama.port, None, None, Log())
    assert "make room" in caught.value.hint
    ollama.error_in_stream, ollama.break_off = "", True
    with pytest.raises(FleetError, match="it stopped at: pulling 200"):
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
    manifest = b'{"config":{"size":10},"layers":[{"size":300},{"size":200}]}'
    path = "/v2/library/tiny/manifests/8b"
    registry.assets[path] = Asset(manifest)
    name = f"127.0.0.1:{registry.port}/library/tiny:8b"
    need, host = need_of(name), LocalHost("m1")
    now = latest(need, {})
    assert (now.revision, now.bytes) == (hashlib.sha256(manifest).hexdigest(), 510)
    ollama.models[name] = now.revision
    assert staleness(need, ollama_state(host, need, ollama.port), now) == "current"
    registry.assets[path] = Asset(manifest.replace(b"300", b"301"))
    again = latest(need, {})
    assert staleness(need, ollama_state(host, need, ollama.port), again) == "stale"
    del registry.assets[path]
    with pytest.raises(FleetError, match="does not exist"):
        latest(need, {})
