"""What Ollama's API does, without its HTTP: pull, create, show, run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from testbed.ollama_store import (
    CONFIG,
    DETAILS,
    KINDS,
    PARAMS,
    REGISTRY,
    SYSTEM,
    TEMPLATE,
    TRAINED,
    WEIGHTS,
    Answer,
    Refused,
    Store,
    manifest,
    parts,
    shortest,
    stamp,
)

_NUMBERS = {"num_keep", "seed", "num_predict", "top_k", "repeat_last_n", "num_ctx", "num_batch",
            "num_gpu", "main_gpu", "num_thread", "draft_num_predict"}  # fmt: skip
_FRACTIONS = {"top_p", "min_p", "typical_p", "temperature", "repeat_penalty", "presence_penalty",
              "frequency_penalty"}  # fmt: skip


class Api:
    """A store and what can be pulled into it: library, name -> sizes of layers.

    calls: what was asked of it by POST. error_in_stream: ends the next pulls with these words;
    break_off: ends them without any. damaged: names whose weights arrive with another digest.
    dies: why no model can be loaded.
    """

    def __init__(self, folder: Path, library: Mapping[str, list[int]]) -> None:
        self.store = Store(folder)
        self.library = dict(library)
        self.calls: list[tuple[str, Answer]] = []
        self.loaded: dict[str, float] = {}
        self.error_in_stream, self.break_off = "", False
        self.dies, self.damaged = "", set[str]()

    def pull(self, body: Answer) -> Iterator[Answer]:
        name = str(body.get("model") or body.get("name") or "")
        parts(name)
        return self._pull(name)

    def _pull(self, name: str) -> Iterator[Answer]:
        yield {"status": "pulling manifest"}
        sizes = next((s for known, s in self.library.items() if parts(known) == parts(name)), None)
        if sizes is None:
            host, space, model, tag = parts(name)
            if host != REGISTRY and host not in {parts(known)[0] for known in self.library}:
                asked = f'Get "https://{host}/v2/{space}/{model}/manifests/{tag}"'
                why = f"dial tcp {host}: connect: connection refused"
                raise Refused(500, f"pull model manifest: {asked}: {why}")
            raise Refused(500, "pull model manifest: file does not exist")
        layers = []
        for number, size in enumerate(sizes):
            filler = f"{name} {number} ".encode()
            text = b"{{ .Prompt }}".ljust(size) if number == 1 else filler * size
            layer, _ = self.store.layer(KINDS[min(number, 2)], text[:size])
            status = {"status": f"pulling {layer['digest'][7:19]}", "digest": layer["digest"]}
            total = layer["size"]
            for done in (0, total // 2, total):
                yield {**status, "total": total, **({"completed": done} if done else {})}
            layers.append(layer)
        if self.error_in_stream:
            raise Refused(500, self.error_in_stream)
        if self.break_off:
            return
        yield {"status": "verifying sha256 digest"}
        if name in self.damaged:
            want, got = f"sha256:{'1' * 64}", layers[0]["digest"]
            words = f"file must be downloaded again: want {want}, got {got}"
            raise Refused(500, f"digest mismatch, {words}")
        yield {"status": "writing manifest"}
        config, _ = self.store.layer(CONFIG, json.dumps(DETAILS).encode() + b"\n")
        self.store.write(name, manifest(config, layers))
        yield {"status": "success"}

    def create(self, body: Answer) -> Iterator[Answer]:
        name = str(body.get("model") or body.get("name") or "")
        parts(name)
        if not body.get("from") and body.get("files") is None:
            raise Refused(400, "neither 'from' or 'files' was specified")
        if body.get("from"):
            parts(str(body["from"]))
        return self._create(name, body)

    def _weights(self, body: Answer) -> Iterator[Answer]:
        """Layers of the base, from a model or from blobs; what is said of it is yielded."""
        if not body.get("from"):
            yield {"status": "parsing GGUF"}
            path = self.store.blob_path(next(iter(body["files"].values())))
            if not path.is_file():
                raise Refused(500, f"open {path}: no such file or directory")
            yield {"status": "verifying conversion"}
            # The weights are written anew, with a digest of their own.
            layer, said = self.store.layer(WEIGHTS, path.read_bytes() + b"\0")
            yield {"layer": layer, "status": said}
            return
        base = str(body["from"])
        if not self.store.manifest(base).is_file():
            # The base is pulled, and what it says is part of this stream; so is its success.
            yield from self._pull(base)
        for layer in self.store.read(base)["layers"]:
            parent = {"from": shortest(parts(base))}
            yield {
                "layer": {**layer, **parent},
                "status": f"using existing layer {layer['digest']}",
            }

    def _create(self, name: str, body: Answer) -> Iterator[Answer]:
        layers: list[Answer] = []
        said: dict[str, str] = {}
        for news in self._weights(body):
            if "layer" in news:
                layers.append(news["layer"])
                said[layers[-1]["digest"]] = news["status"]
            else:
                yield news
        template = str(body.get("template") or "")
        if template.count("{{") != template.count("}}"):
            raise Refused(400, "template error: template: :1: unclosed action")
        before = self.store.settings(str(body["from"]))[0] if body.get("from") else {}
        laid = dict(before, **(body.get("parameters") or {}))
        new = {TEMPLATE: template, SYSTEM: str(body.get("system") or "")}
        if laid:  # whatever its names: what is unknown is skipped with a warning at every load
            new[PARAMS] = json.dumps(laid, sort_keys=True, separators=(",", ":")) + "\n"
        for kind, text in new.items():
            if text:
                layers = [layer for layer in layers if layer["mediaType"] != kind]
                layer, said_of = self.store.layer(kind, text.encode())
                layers.append(layer)
                said[layer["digest"]] = said_of
        config, _ = self.store.layer(CONFIG, json.dumps(DETAILS).encode() + b"\n")
        for layer in layers:
            yield {"status": said[layer["digest"]]}
        yield {"status": "writing manifest"}
        self.store.write(name, manifest(config, layers))
        yield {"status": "success"}

    def show(self, body: Answer) -> Answer:
        name = str(body.get("model") or body.get("name") or "")
        if not name:
            raise Refused(400, "model is required")
        short = shortest(parts(name))
        weights = self.store.read(short)["layers"][0]["digest"]
        parameters, system, template = self.store.settings(short)
        template = template or "{{ .Prompt }}"
        lines = [
            f"{key:<30} {json.dumps(item) if isinstance(item, str) else item}"
            for key, value in sorted(parameters.items())
            for item in (value if isinstance(value, list) else [value])
        ]
        changed = self.store.manifest(short).stat().st_mtime
        blob = self.store.blob_path(weights)
        modelfile = f'# Modelfile generated by "ollama show"\nFROM {blob}\nTEMPLATE {template}\n'
        answer: Answer = {"modelfile": modelfile, "parameters": "\n".join(lines),
                          "template": template, "system": system,
                          "details": self.store.details(short),
                          "model_info": {"general.architecture": "qwen3",
                                         "qwen3.context_length": TRAINED},
                          "tensors": [{"name": "output_norm.weight", "type": "F32",
                                       "shape": [5120]}],
                          "capabilities": ["completion"],
                          "modified_at": stamp(changed)}  # fmt: skip
        return {key: value for key, value in answer.items() if value}

    def running(self) -> Answer:
        """/api/ps."""
        now, models = time.time(), {model["name"]: model for model in self.store.models()}
        return {"models": [
            {key: models[name][key] for key in ("name", "model", "size", "digest")}
            | {"details": DETAILS, "expires_at": stamp(until), "size_vram": 0,
               "context_length": min(self.store.settings(name)[0].get("num_ctx", 4096), TRAINED)}
            for name, until in self.loaded.items() if until > now and name in models
        ]}  # fmt: skip

    def generate(self, body: Answer, prompt: str) -> tuple[str, str, Answer]:
        """The model's short name, what it says, and the figures of the request."""
        name = str(body.get("model") or "")
        if not name:
            raise Refused(404, "model '' not found")
        short = shortest(parts(name))
        if not self.store.manifest(short).is_file():
            raise Refused(404, f"model '{name}' not found")
        parameters, system, _ = self.store.settings(short)
        options = {**parameters, **(body.get("options") or {})}
        for key, value in options.items():
            check_option(key, value)
        if self.dies:
            raise Refused(500, self.dies)
        if body.get("keep_alive") == 0 and not prompt:
            self.loaded.pop(short, None)
            return short, "", {"done_reason": "unload"}
        self.loaded[short] = time.time() + 300
        if not prompt:
            return short, "", {"done_reason": "load"}
        said = f"{system or 'no system prompt'} {prompt}".split()
        most = options.get("num_predict", -1)
        words = said if most < 0 else said[:most]
        figures = {
            "done_reason": "length" if len(words) < len(said) else "stop",
            "total_duration": 9000000, "load_duration": 4000000,
            "prompt_eval_count": len(prompt.split()), "prompt_eval_duration": 2000000,
            "eval_count": len(words), "eval_duration": 3000000,
        }  # fmt: skip
        return short, " ".join(words), figures

    def delete(self, body: Answer) -> None:
        name = str(body.get("model") or body.get("name") or "")
        try:
            path = self.store.manifest(name)
        except Refused:
            raise Refused(400, f'name "{name}" is invalid') from None
        if not path.is_file():
            raise Refused(404, f"model '{name}' not found")
        path.unlink()


def check_option(name: str, value: object) -> None:
    """Refused for a value of the wrong type; unknown names are skipped."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
    for names, kind, good in (
        (_NUMBERS, "integer", number), (_FRACTIONS, "float32", number),
        ({"use_mmap"}, "boolean", isinstance(value, bool)), ({"stop"}, "array", texts),
    ):  # fmt: skip
        if name in names and value is not None and not good:
            raise Refused(500, f'option "{name}" must be of type {kind}')
