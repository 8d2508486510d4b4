"""Real HTTP servers on loopback for the tests of models: files, a hub, an Ollama."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Asset:
    """What a path answers. cuts: bytes after which the next answers break off, one each; delay:
    seconds before the answer begins."""

    data: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    token: str = ""
    ranges: bool = True
    length: bool = True
    cuts: list[int] = field(default_factory=list)
    pause: float = 0.0
    delay: float = 0.0


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]


class Server:
    """Serves assets by path and remembers what was asked."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.assets: dict[str, Asset] = {}
        self.requests: list[Request] = []
        self.gone = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                outer.answer(self, body=True)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.answer(self, body=True)

            def do_HEAD(self) -> None:
                outer.answer(self, body=False)

        self._http = ThreadingHTTPServer((address, 0), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self.url = f"http://{address}:{self.port}"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def asked(self, path: str, method: str = "GET") -> list[Request]:
        return [r for r in self.requests if r.path == path and r.method == method]

    def answer(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        path = unquote(urlsplit(handler.path).path)
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.requests.append(Request(handler.command, path, headers))
        asset = self.assets.get(path) or Asset(b"no such thing", 404)
        if asset.token and headers.get("authorization") != f"Bearer {asset.token}":
            asset = Asset(b"refused", 401, asset.headers)
        time.sleep(asset.delay)
        start, status = 0, asset.status
        asked = headers.get("range", "")
        if asked and asset.ranges and status == 200:
            start, status = int(asked.removeprefix("bytes=").split("-")[0]), 206
            if start >= len(asset.data):
                handler.send_response(416)
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
        data = asset.data[start:]
        handler.send_response(status)
        for name, value in asset.headers.items():
            handler.send_header(name, value)
        if status == 206:
            total = len(asset.data)
            handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if asset.length:
            handler.send_header("Content-Length", str(len(data)))
        else:
            handler.close_connection = True
        handler.end_headers()
        if not body:
            return
        if asset.cuts:
            data = data[: asset.cuts.pop(0)]
            handler.close_connection = True
        for at in range(0, len(data), 65536):
            if self.gone:
                return
            try:
                handler.wfile.write(data[at : at + 65536])
            except ConnectionError:
                return
            time.sleep(asset.pause)


@contextmanager
def serving(address: str = "127.0.0.1") -> Iterator[Server]:
    server = Server(address)
    try:
        yield server
    finally:
        server.gone = True
        server.close()


class Hub:
    """A repository of the hub: metadata and small files here, large files on another host."""

    def __init__(self, server: Server, storage: Server, name: str = "org/tiny") -> None:
        self.server, self.storage, self.name = server, storage, name
        self.token = ""
        self.gated = False

    def publish(self, files: dict[str, bytes], large: tuple[str, ...] = ()) -> str:
        """Make a commit of these files the head of main; its id."""
        total = hashlib.sha1()
        for name, data in sorted(files.items()):
            total.update(name.encode() + data)
        commit = total.hexdigest()
        siblings = []
        refusal = {"X-Error-Code": "GatedRepo"} if self.gated else {}
        for name, data in files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            entry: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": blob}
            path = f"/{self.name}/resolve/{commit}/{name}"
            if name in large:
                sha256 = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"size": len(data), "sha256": sha256, "pointerSize": 130}
                target = f"{self.storage.url}/blob/{sha256}"
                self.storage.assets[f"/blob/{sha256}"] = Asset(data)
                headers = {"Location": f"{target}?signature=x", **refusal}
                self.server.assets[path] = Asset(b"", 302, headers, self.token)
            else:
                self.server.assets[path] = Asset(data, headers=dict(refusal), token=self.token)
            siblings.append(entry)
        info = {"id": self.name, "modelId": self.name, "sha": commit, "siblings": siblings}
        info["gated"] = "manual" if self.gated else False
        answer = Asset(json.dumps(info).encode(), headers={"Content-Type": "application/json"})
        base = f"/api/models/{self.name}"
        for path in (base, f"{base}/revision/main", f"{base}/revision/{commit}"):
            self.server.assets[path] = answer
        self.commit = commit
        return commit

    def large(self, data: bytes) -> Asset:
        """The stored asset of a large file's content."""
        return self.storage.assets[f"/blob/{hashlib.sha256(data).hexdigest()}"]
