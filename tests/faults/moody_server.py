"""An engine whose mood is read from a file at every request.

Arguments are flags with values: --host, --port, --mood FILE. Moods: good, busy (takes requests
and never answers them, but its counters grow), stuck (the same with counters that stand still),
mute (its counters do not answer either), mute-once (until the next request, then good), loading
(503), broken (500), shy (429), dead (ends).
"""

from __future__ import annotations

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FLAGS = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
TOKEN = os.environ.get("TOKEN")
lock = threading.Lock()
tokens = running = 0


def mood() -> str:
    return Path(FLAGS["--mood"]).read_text().strip()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        global tokens
        if self.path == "/health":
            self.answer(503 if mood() == "loading" else 200, "{}")
        elif TOKEN and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, "{}")
        elif mood() in {"mute", "mute-once"}:
            self.hang()
        else:
            with lock:
                tokens += 10 if mood() == "busy" else 0
            self.answer(200, f'moody:tokens_total{{model="m"}} {tokens}\nmoody:running {running}\n')

    def do_POST(self) -> None:
        global tokens, running
        self.rfile.read(int(self.headers["Content-Length"]))
        now = mood()
        if now == "mute-once":
            Path(FLAGS["--mood"]).write_text("good")
        if now in {"busy", "stuck", "mute", "mute-once"}:
            running += 1
            self.hang()
            running -= 1
        elif now in {"broken", "shy"}:
            self.answer(500 if now == "broken" else 429, json.dumps({"error": "CUDA is gone"}))
        else:
            tokens += 1
            body = {"choices": [{"message": {}}], "usage": {"completion_tokens": 1}}
            self.answer(200, json.dumps(body))

    def hang(self) -> None:
        """Until the client goes away, as an engine does that has lost its worker."""
        self.close_connection = True
        self.connection.recv(1)

    def answer(self, status: int, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


if mood() == "dead":
    sys.exit("moody: CUDA out of luck: 7 MiB short")
print("moody: up", flush=True)
ThreadingHTTPServer((FLAGS["--host"], int(FLAGS["--port"])), Handler).serve_forever()
