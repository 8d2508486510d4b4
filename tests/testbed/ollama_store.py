"""What the Ollama of the tests keeps: models as manifests and blobs, laid out as Ollama does."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

REGISTRY = "registry.ollama.ai"
WEIGHTS = "application/vnd.ollama.image.model"
TEMPLATE = "application/vnd.ollama.image.template"
SYSTEM = "application/vnd.ollama.image.system"
PARAMS = "application/vnd.ollama.image.params"
CONFIG = "application/vnd.docker.container.image.v1+json"
KINDS = (WEIGHTS, TEMPLATE, "application/vnd.ollama.image.license")
DETAILS = {
    "parent_model": "", "format": "gguf", "family": "qwen3", "families": ["qwen3"],
    "parameter_size": "32.8B", "quantization_level": "Q8_0",
}  # fmt: skip
TRAINED = 40960  # tokens of context; Ollama gives a model no more, whatever num_ctx says
_DIGEST = re.compile(r"sha256[:-][0-9a-f]{64}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")

Answer = dict[str, Any]


class Refused(Exception):
    """An error of the API: its HTTP status, unless a stream has begun, and its words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status, self.words = status, words


class Store:
    """Manifests and blobs below a folder, as Ollama lays them out."""

    def __init__(self, folder: Path) -> None:
        self.blobs, self.manifests = folder / "blobs", folder / "manifests"
        self.blobs.mkdir(parents=True, exist_ok=True)
        self.manifests.mkdir(exist_ok=True)

    def manifest(self, name: str) -> Path:
        host, space, model, tag = parts(name)
        return self.manifests / host / space / model / tag

    def read(self, name: str) -> Answer:
        path = self.manifest(name)
        if not path.is_file():
            raise Refused(404, f"model '{name}' not found")
        return dict(json.loads(path.read_text()))

    def put(self, data: bytes, digest: str) -> bool:
        """Keep a blob that is said to have this digest; False when it is there already."""
        self.blob_path(digest)
        if self.blob_path(digest).exists():
            return False
        real = f"sha256:{hashlib.sha256(data).hexdigest()}"
        # It is kept under the digest that it has, whatever was said.
        self.blob_path(real).write_bytes(data)
        if real != digest:
            raise Refused(400, f'digest mismatch, expected "{digest}", got "{real}"')
        return True

    def blob_path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise Refused(400, "invalid digest format")
        return self.blobs / digest.replace(":", "-")

    def layer(self, kind: str, data: bytes) -> tuple[Answer, str]:
        """A layer of these bytes, and what creating it is called."""
        digest = hashlib.sha256(data).hexdigest()
        path = self.blobs / f"sha256-{digest}"
        status = "using existing layer" if path.exists() else "creating new layer"
        path.write_bytes(data)
        digest = f"sha256:{digest}"
        return {"mediaType": kind, "digest": digest, "size": len(data)}, f"{status} {digest}"

    def blob(self, layer: Mapping[str, Any]) -> bytes:
        return self.blob_path(str(layer["digest"])).read_bytes()

    def details(self, name: str) -> Answer:
        """What the weights are, and from which model they were taken."""
        parents = [str(layer.get("from", "")) for layer in self.read(name)["layers"]]
        return {**DETAILS, "parent_model": parents[0] if parents else ""}

    def write(self, name: str, manifest: bytes) -> None:
        path = self.manifest(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(manifest)

    def models(self) -> list[Answer]:
        """/api/tags, the newest first."""
        found = []
        for path in self.manifests.rglob("*"):
            if path.is_file():
                data, changed = path.read_bytes(), path.stat().st_mtime
                manifest = json.loads(data)
                size = sum(layer["size"] for layer in manifest["layers"] + [manifest["config"]])
                shown = shortest(path.relative_to(self.manifests).parts)
                digest = hashlib.sha256(data).hexdigest()
                found.append((changed, {
                    "name": shown, "model": shown, "modified_at": stamp(changed), "size": size,
                    "digest": digest, "details": self.details(shown),
                    "capabilities": ["completion"],
                }))  # fmt: skip
        return [model for _, model in sorted(found, key=lambda each: -each[0])]

    def settings(self, name: str) -> tuple[Answer, str, str]:
        """Parameters, system prompt and template of a model."""
        layers = {layer["mediaType"]: self.blob(layer) for layer in self.read(name)["layers"]}
        parameters = json.loads(layers.get(PARAMS, b"{}"))
        return parameters, layers.get(SYSTEM, b"").decode(), layers.get(TEMPLATE, b"").decode()


def parts(name: str) -> tuple[str, str, str, str]:
    """Host, namespace, model and tag of a name; Refused for what is none."""
    name = name.removeprefix("http://").removeprefix("https://")
    *before, last = name.split("/")
    model, _, tag = last.partition(":")
    space = before.pop() if before else "library"
    host = before.pop() if before else REGISTRY
    if before or not all(_PART.fullmatch(part) for part in (model, tag or "latest", space)):
        raise Refused(400, "invalid model name")
    return host, space, model, tag or "latest"


def shortest(of: tuple[str, ...]) -> str:
    """The name with these parts, without those that are taken for granted."""
    host, space, model, tag = of
    if host != REGISTRY:
        return f"{host}/{space}/{model}:{tag}"
    return f"{model}:{tag}" if space == "library" else f"{space}/{model}:{tag}"


def manifest(config: Answer, layers: list[Answer]) -> bytes:
    """The bytes of a manifest file."""
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    made = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers}
    return json.dumps(made, separators=(",", ":")).encode() + b"\n"


def stamp(seconds: float) -> str:
    """A time as Ollama writes it."""
    return (datetime.fromtimestamp(0, UTC) + timedelta(seconds=seconds)).isoformat()
