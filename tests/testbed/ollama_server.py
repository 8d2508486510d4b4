"""A server that answers as Ollama 0.33 does, for machines that cannot have the real one.

What it answers, to the word and the HTTP status, is what a real one was recorded to answer
(tests/cases/ollama, tests/engines/test_ollama_recorded.py): models as manifests and blobs in
OLLAMA_MODELS, /api/create from parts, /api/pull with its progress, errors before and within a
stream. Only the text it generates is made up, and what its registry holds: TESTBED_LIBRARY, JSON
{name: [sizes of layers]}, or LIBRARY.

`ollama_server.py serve` listens at OLLAMA_HOST; `ollama_server.py list` asks that server.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from testbed.ollama_api import Api
from testbed.ollama_store import Answer, Refused
from testbed.ollama_talk import chat, completion, generate

VERSION = "0.33.0-rc2"  # that of the recordings in tests/cases/ollama
BLOBS = "/api/blobs/"
POSTED = ("/api/pull", "/api/create", "/api/show", "/api/generate", "/api/chat")
LIBRARY = {"qwen3:32b-q8_0": [48000, 1700, 500]}


class Ollama(Api):
    """The API on a port of its own."""

    def __init__(
        self, folder: Path, address: tuple[str, int] = ("127.0.0.1", 0),
        library: Mapping[str, list[int]] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(folder, LIBRARY if library is None else library)
        handler = type("Handler", (_Handler,), {"ollama": self})
        self.http = ThreadingHTTPServer(address, handler)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]

    def start(self) -> Ollama:
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


class _Handler(BaseHTTPRequestHandler):
    ollama: Ollama
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        print(f"[GIN] {self.command} {self.path}", file=sys.stderr, flush=True)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        store = self.ollama.store
        answers = {
            "/api/version": lambda: {"version": VERSION},
            "/api/tags": lambda: {"models": store.models()},
            "/api/ps": self.ollama.running,
            "/v1/models": lambda: {"object": "list", "data": [
                {"id": model["name"], "object": "model", "owned_by": "library",
                 "created": int(datetime.fromisoformat(model["modified_at"]).timestamp())}
                for model in store.models()
            ] or None},
        }  # fmt: skip
        if self.path == "/":
            self._send(200, b"Ollama is running", "text/plain; charset=utf-8")
        elif self.path in answers:
            self._json(200, answers[self.path]())
        elif self.path.startswith(BLOBS) and self.command == "HEAD":
            there = store.blob_path(self.path.removeprefix(BLOBS)).exists()
            self._send(200, b"", "") if there else self._json(404, "")
        elif self.path in POSTED:
            self._send(405, b"405 method not allowed", "text/plain")
        else:
            self._send(404, b"404 page not found", "text/plain")

    def do_DELETE(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        openai = self.path.startswith("/v1/")
        try:
            if self.path.startswith(BLOBS):
                new = self.ollama.store.put(data, self.path.removeprefix(BLOBS))
                self._send(201 if new else 200, b"", "")
            elif (self.path == "/api/delete") == (self.command == "DELETE"):
                self._answer(self._body(data, openai))
            else:
                self._send(405, b"405 method not allowed", "text/plain")
        except Refused as error:
            kinds = {400: "invalid_request_error", 404: "not_found_error"}
            words = {"message": error.words, "type": kinds.get(error.status, "api_error"),
                     "param": None, "code": None}  # fmt: skip
            self._json(error.status, {"error": words if openai else error.words})

    def _body(self, data: bytes, openai: bool) -> Answer:
        if not data:
            raise Refused(400, "EOF" if openai else "missing request body")
        try:
            body: Answer = json.loads(data)
        except ValueError:
            raise Refused(400, "unexpected EOF") from None
        self.ollama.calls.append((self.path, body))
        return body

    def _answer(self, body: Answer) -> None:
        ollama = self.ollama
        match self.path:
            case "/api/pull":
                self._stream(body, ollama.pull(body))
            case "/api/create":
                self._stream(body, ollama.create(body))
            case "/api/show":
                self._json(200, ollama.show(body))
            case "/api/delete":
                ollama.delete(body)
                self._send(200, b"", "")
            case "/api/generate" | "/api/chat":
                lines = (generate if self.path.endswith("generate") else chat)(ollama, body)
                one = body.get("stream") is False or "eval_count" not in lines[-1]
                self._json(200, lines[0]) if one else self._stream(body, iter(lines))
            case "/v1/chat/completions":
                said = completion(ollama, body)
                if isinstance(said, dict):
                    self._json(200, said)
                else:
                    lines = [f"data: {json.dumps(piece)}\n\n" for piece in said]
                    text = "".join([*lines, "data: [DONE]\n\n"])
                    self._send(200, text.encode(), "text/event-stream")
            case _:
                self._send(404, b"404 page not found", "text/plain")

    def _stream(self, body: Answer, news: Iterator[Answer]) -> None:
        """One JSON object a line; an error before the first is an answer of its own."""
        lines, last, error = [], {}, None
        try:
            for last in news:
                lines.append(json.dumps(last))
        except Refused as refused:
            error = refused
        if error and (not lines or body.get("stream") is False):
            raise error
        if body.get("stream") is False:
            self._json(200, last)
            return
        if error:
            lines.append(json.dumps({"error": error.words}))
        self._send(200, "".join(f"{line}\n" for line in lines).encode(), "application/x-ndjson")

    def _json(self, status: int, answer: Answer | str) -> None:
        data = json.dumps(answer).encode() if answer else b""
        self._send(status, data, "application/json; charset=utf-8")

    def _send(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def main(words: list[str]) -> int:
    """`serve` or `list`, as the program ollama has them."""
    host, _, port = os.environ.get("OLLAMA_HOST", "127.0.0.1:11434").rpartition(":")
    if words == ["serve"]:
        library = os.environ.get("TESTBED_LIBRARY")
        folder = Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models")
        server = Ollama(folder, (host, int(port)), json.loads(library) if library else None)
        print(f"Listening on {host}:{port} (version {VERSION})", file=sys.stderr, flush=True)
        # As process 1 of a container it would otherwise ignore the signal.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        server.http.serve_forever()
    elif words == ["list"]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/tags", timeout=5) as answer:
            for model in json.load(answer)["models"]:
                print(model["name"], model["digest"][:12], model["size"])
    else:
        print("Usage: ollama serve | list", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
