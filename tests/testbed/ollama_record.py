"""Records what an Ollama answers: `python3 -m testbed.ollama_record URL FOLDER` below tests/.

URL is a server with an empty store on this machine (its registry is a port of this process);
FOLDER gets one JSON file for each group of testbed.ollama_asks. `plain` reduces two recordings to
what must be equal: all but times, sizes, digests and the words of a model.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from testbed.ollama_asks import GROUPS, Ask

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_WEIGHTS = "application/vnd.ollama.image.model"
_TIMES = frozenset({"created_at", "modified_at", "expires_at", "created", "content", "response"})
# What depends on the model alone, and what on how much of it there is.
_OF_A_MODEL = frozenset({"model_info", "tensors", "modelfile", "digest",
                         "family", "families", "parameter_size", "quantization_level",
                         "embedding_length", "context", "context_length"})  # fmt: skip
_AMOUNT = re.compile(r"(size|size_vram|total|completed|.*_duration|.*_count|.*_tokens)$")
_STORE = re.compile(r'/[^\s"]*/blobs/')
_DIGEST = re.compile(r"\b[0-9a-f]{64}\b|\{weights\}|(?<=chatcmpl-)\d+")


def record(
    url: str, weights: bytes, known: Callable[[str], None] = lambda _: None
) -> dict[str, list[dict[str, Any]]]:
    """By group, every request of ollama_asks with its answer; known is told the registry."""
    digest = f"sha256:{hashlib.sha256(weights).hexdigest()}"
    # Other bytes than those of the blob, which would be there already.
    with registry(weights + bytes(32)) as address:
        known(address)
        names = {"{weights}": digest, "{registry}": address}
        return {
            group: [_ask(url, ask, names, weights) for ask in asks]
            for group, asks in GROUPS.items()
        }


@contextmanager
def registry(weights: bytes) -> Iterator[str]:
    """The address of a registry that has library/tiny, and library/damaged, which is cut."""
    about = {"model_format": "gguf", "model_family": "llama", "model_families": ["llama"],
             "model_type": "1.09M", "file_type": "F16"}  # fmt: skip
    config = json.dumps(about).encode()
    blobs = {f"sha256:{hashlib.sha256(data).hexdigest()}": data for data in (config, weights)}
    layers: list[dict[str, Any]] = [
        {"mediaType": kind, "digest": digest, "size": len(blobs[digest])}
        for kind, digest in zip((_CONFIG, _WEIGHTS), blobs, strict=True)
    ]
    bad = {**layers[1], "digest": f"sha256:{'1' * 64}"}
    pages: dict[str, bytes] = {}
    for name, layer in (("tiny", layers[1]), ("damaged", bad)):
        made = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": layers[0], "layers": [layer]}
        pages[f"/v2/library/{name}/manifests/latest"] = json.dumps(made).encode()
        for digest, data in {**blobs, bad["digest"]: weights}.items():
            pages[f"/v2/library/{name}/blobs/{digest}"] = pages[f"/data/{digest}"] = data
    handler = type("Handler", (_Registry,), {"pages": pages})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class _Registry(BaseHTTPRequestHandler):
    pages: Mapping[str, bytes]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        data = self.pages.get(self.path)
        status, body = (404, b"") if data is None else (200, data)
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        if data is not None and span:
            status, body = 206, data[int(span[1]) : int(span[2]) + 1]
        place = ""
        if data is not None and self.command == "GET" and "/blobs/" in self.path:
            # Ollama wants to be sent to another host for them: it takes no 200 here.
            status, body = 307, b""
            _, _, port = self.headers["Host"].rpartition(":")
            place = f"http://localhost:{port}/data/{self.path.rpartition('/')[2]}"
        self.send_response(status)
        if place:
            self.send_header("Location", place)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            half = len(body) // 2
            self.wfile.write(body[:half])
            time.sleep(0.3 if half > 1 << 16 else 0)  # time for a line about what has come
            self.wfile.write(body[half:])


def _ask(url: str, ask: Ask, names: Mapping[str, str], weights: bytes) -> dict[str, Any]:
    path, text = ask.path, ask.body if isinstance(ask.body, str) else json.dumps(ask.body)
    for name, value in names.items():
        path, text = path.replace(name, value), text.replace(name, value)
    data = weights if ask.body == "weights" else None if ask.body is None else text.encode()
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=300)
    try:
        connection.request(ask.method, path, data)
        answer = connection.getresponse()
        said, kind = answer.read().decode(), answer.headers.get_content_type()
    finally:
        connection.close()
    kind = kind if answer.headers["Content-Type"] else ""
    for name, value in names.items():
        said = said.replace(value, name)
    said = _STORE.sub("{store}/blobs/", said)
    asked = {key: value for key, value in (("body", ask.body),) if value is not None}
    return {"name": ask.name, "method": ask.method, "path": ask.path, **asked,
            "status": answer.status, "type": kind, "answer": _parsed(kind, said)}  # fmt: skip


def _parsed(kind: str, said: str) -> Any:
    if kind == "application/json" and said:
        answer = json.loads(said)
        if isinstance(answer, dict) and "tensors" in answer:
            answer["tensors"] = answer["tensors"][:1]  # one line for each is one enough
        return answer
    if kind == "application/x-ndjson":
        return [json.loads(line) for line in said.splitlines()]
    if kind == "text/event-stream":
        lines = [line.removeprefix("data: ") for line in said.splitlines() if line]
        return [json.loads(line) if line.startswith("{") else line for line in lines]
    return said


def plain(answer: Any, key: str = "") -> Any:
    """An answer without what another time, another model or another size of one changes."""
    if key == "parameters":  # Ollama writes them in another order each time
        return sorted(answer.splitlines()) if isinstance(answer, str) else answer
    if key in _TIMES or _AMOUNT.match(key) or (key in _OF_A_MODEL and answer):
        return type(answer).__name__
    if isinstance(answer, dict):
        if str(answer.get("status", "")).startswith("pulling ") and "digest" in answer:
            answer = {"status": "pulling DIGEST"}  # which layers, and how often, is time
        return {name: plain(value, name) for name, value in answer.items()}
    if isinstance(answer, list):
        # However many pieces a stream has: the same one after another is one.
        items = [plain(item) for item in answer]
        if key in ("models", "data"):  # those of one second are in any order
            return sorted(items, key=lambda item: item.get("name") or item["id"])
        return [item for place, item in enumerate(items) if not place or items[place - 1] != item]
    if isinstance(answer, str):
        return _DIGEST.sub("DIGEST", answer)
    return answer


def main(words: list[str]) -> int:
    """Record the server at a URL into a folder."""
    url, folder = words
    import tiny_gguf

    with tempfile.TemporaryDirectory() as made:
        tiny_gguf.llama(Path(made) / "tiny.gguf")
        weights = (Path(made) / "tiny.gguf").read_bytes()
    found = record(url, weights)
    for group, exchanges in found.items():
        text = json.dumps({"version": found["empty"][2]["answer"]["version"],
                           "exchanges": exchanges}, indent=1)  # fmt: skip
        (Path(folder) / f"{group}.json").write_text(f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
