"""Ollama's whole path, from the machine file to a token, against the server that stands for it."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.fleet import REPOSITORY, Fleet, Ran
from ports import free_port
from testbed.ollama_server import Ollama
from unit.models_servers import Asset, serving

NAME = "qwen3-32b-fp8"
BASE = "qwen3:32b-q8_0"
# Of the reference system: context 32,768, batch 512, all layers on the GPU, a system prompt.
MODELFILE = f'''\
FROM {BASE}
PARAMETER num_batch 512
PARAMETER num_ctx 32768
PARAMETER num_gpu 99
SYSTEM """You are a helpful assistant."""
'''


class Place:
    """This machine, with the Ollama service of inventory/spark.yaml and the tests' image."""

    def __init__(self, folder: Path, image: str) -> None:
        self.fleet = Fleet(folder, folder)
        self.root = folder / f"spark{os.getpid()}"
        self.container = f"{self.root.name}-ollama-{NAME}"
        self.port = free_port()
        spark = yaml.safe_load((REPOSITORY / "inventory" / "spark.yaml").read_text())
        self.service = spark["services"][f"ollama-{NAME}"]
        # By its own name: as the inventory declares it, it would be measured, and not fit here.
        here = {"image": image, "port": self.port, "gpus": "none", "memory": "256M",
                "model": f"ollama:{BASE}"}  # fmt: skip
        self.service |= {**here, "autostart": True, "start-timeout": 60}
        del self.service["volumes"]  # the spark's own store; here it is the kind's volume

    def write(self, **changes: Any) -> None:
        service = {**self.service, **changes}
        services = {f"ollama-{NAME}": service}
        self.fleet.machine("here", root=str(self.root), runtime="compose", services=services)

    def invoke(self, task: str, *words: str) -> Ran:
        return self.fleet.invoke(task, "--host", "here", *words)

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def docker(self, *words: str) -> str:
        done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr


@pytest.fixture
def place(tmp_path: Path, ollama_tag: str) -> Iterator[Place]:
    made = Place(tmp_path, ollama_tag)
    yield made
    made.docker("rm", "-f", made.container)
    for kind in ("volume", "network"):
        names = made.docker(kind, "ls", "-q", "--filter", f"name={made.root.name}")
        if names.split():
            made.docker(kind, "rm", *names.split())


@pytest.mark.e2e
def test_the_model_of_the_reference_system(place: Place) -> None:
    place.write()
    fresh = place.invoke("up")
    assert fresh.rc == 0, fresh
    assert "ready after" in fresh.err
    rendered = place.root / "current" / "ollama" / f"ollama-{NAME}" / "Modelfile"
    assert rendered.read_text() == MODELFILE

    names = [model["name"] for model in place.ask("/api/tags")["models"]]
    assert sorted(names) == [f"{NAME}:latest", BASE]
    shown = place.ask("/api/show", {"model": NAME})
    assert shown["system"] == "You are a helpful assistant."
    parameters = dict(line.split() for line in shown["parameters"].splitlines())
    assert parameters == {"num_ctx": "32768", "num_batch": "512", "num_gpu": "99"}
    # Readiness was a token of the model under its served name, with its context.
    (running,) = place.ask("/api/ps")["models"]
    assert (running["name"], running["context_length"]) == (f"{NAME}:latest", 32768)
    messages = [{"role": "user", "content": "Hello"}]
    chat = place.ask("/v1/chat/completions", {"model": NAME, "messages": messages})
    assert "helpful assistant" in chat["choices"][0]["message"]["content"]
    assert "OLLAMA_NUM_PARALLEL=8" in place.docker("inspect", place.container)

    again = place.invoke("up")
    assert again.rc == 0, again
    assert "nothing to change" in again.err

    # Down and up: the store stays, nothing is pulled again, and another prompt is put in.
    assert place.invoke("down").rc == 0
    with pytest.raises(urllib.error.URLError):
        place.ask("/api/version")
    place.write(modelfile={**place.service["modelfile"], "system": "Be brief."})
    back = place.invoke("up")
    assert back.rc == 0, back
    assert "/api/pull" not in place.docker("logs", place.container)
    assert place.ask("/api/show", {"model": NAME})["system"] == "Be brief."


@pytest.mark.e2e
def test_refused_in_its_own_words(place: Place) -> None:
    place.write()
    assert place.invoke("up").rc == 0
    before = place.ask("/api/show", {"model": NAME})
    place.write(modelfile={**place.service["modelfile"], "template": "{{ .Prompt"})
    broken = place.invoke("up")
    assert broken.rc == 1, broken
    assert "template error: template: :1: unclosed action" in broken.out + broken.err
    assert "Ollama refuses the template of the Modelfile: template: :1: unclosed" in broken.err
    assert "hint: correct modelfile.template in the machine file" in broken.err, broken
    assert place.ask("/api/show", {"model": NAME}) == before

    place.write(model="ollama:no-such-model")
    missing = place.invoke("up")
    assert missing.rc == 1, missing
    assert "pull model manifest: file does not exist" in missing.out + missing.err
    assert "check the spelling of no-such-model" in missing.out + missing.err
    assert place.ask("/api/show", {"model": NAME}) == before


@pytest.mark.e2e
def test_update_models_asks_the_registry(place: Place) -> None:
    with serving() as registry:
        name = f"127.0.0.1:{registry.port}/library/qwen3:32b-q8_0"
        library = json.dumps({name: [900, 20, 30]})
        place.write(model=f"ollama:{name}", env={"TESTBED_LIBRARY": library})
        first = place.invoke("up")
        assert first.rc == 0, first
        path = "/v2/library/qwen3/manifests/32b-q8_0"
        held = f"/data/models/manifests/127.0.0.1:{registry.port}/library/qwen3/32b-q8_0"
        script = f"print(open({held!r}).read(), end='')"
        words = ("exec", place.container, "/usr/bin/python3.11", "-c", script)
        manifest = place.docker(*words).encode()
        registry.assets[path] = Asset(manifest)
        current = place.invoke("update-models", "--check")
        assert current.rc == 0, current

        registry.assets[path] = Asset(manifest + b" ")
        updated = place.invoke("update-models")
        assert updated.rc == 0, updated
        assert place.docker("logs", place.container).count("POST /api/pull") == 2


def answer(ollama: Ollama, path: str, body: Any) -> tuple[int, Any]:
    """Status and JSON, or the JSON of each line, of an answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{ollama.port}{path}", data)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            lines = [json.loads(line) for line in reply.read().splitlines()]
            return reply.status, lines if len(lines) != 1 else lines[0]
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_server_answers_as_its_source_says(tmp_path: Path) -> None:
    ollama = Ollama(tmp_path).start()
    try:
        refused = {
            ("/api/pull", b""): (400, "missing request body"),
            ("/api/create", json.dumps({"model": "x"}).encode()): (
                400,
                "neither 'from' or 'files' was specified",
            ),
            ("/api/create", json.dumps({"model": "a b", "from": BASE}).encode()): (
                400,
                "invalid model name",
            ),
            ("/api/generate", json.dumps({"model": "x", "prompt": "Hi"}).encode()): (
                404,
                "model 'x' not found",
            ),
            ("/api/chat", b"{}"): (400, "model is required"),
            ("/api/show", json.dumps({"model": "x"}).encode()): (404, "model 'x:latest' not found"),
        }
        for (path, body), (status, words) in refused.items():
            assert answer(ollama, path, body) == (status, {"error": words}), path
        status, lines = answer(ollama, "/api/pull", {"model": "nothing"})
        assert (status, lines[0]) == (200, {"status": "pulling manifest"})
        assert lines[-1] == {"error": "pull model manifest: file does not exist"}
        whole = {"model": "nothing", "stream": False}
        assert answer(ollama, "/api/pull", whole)[0] == 500

        # A base that is not there is pulled; unknown parameters are kept and have no effect.
        body = {"model": "mine", "from": BASE, "parameters": {"nonsense": 1, "num_ctx": "many"}}
        status, lines = answer(ollama, "/api/create", body)
        said = [line["status"] for line in lines]
        assert (said[0], said[-2:]) == ("pulling manifest", ["writing manifest", "success"])
        assert any(line.startswith("creating new layer sha256:") for line in said)
        status, words = answer(ollama, "/api/generate", {"model": "mine", "prompt": "Hi"})
        assert (status, words) == (500, {"error": 'option "num_ctx" must be of type integer'})
        openai = {"model": "x", "messages": [{"role": "user", "content": "Hi"}]}
        status, words = answer(ollama, "/v1/chat/completions", openai)
        assert (status, words["error"]["type"]) == (404, "not_found_error")
    finally:
        ollama.close()
