"""A small OpenAI-compatible HTTP server that misbehaves on request.

Arguments are flags with values: --host, --port, --word (what it answers), --mode:
good, crash (ends at once), never (health stays 503), late (healthy from the third look on).
TOKEN in the environment is the API key it wants; LEAK makes it print it; BEFORE is a script.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FLAGS = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
MODE = FLAGS.get("--mode", "good")
TOKEN = os.environ.get("TOKEN")
looks = 0


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        global looks
        looks += 1
        late = MODE == "late" and looks < 3
        self.answer(503 if MODE == "never" or late else 200, {"status": MODE})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if TOKEN and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, {"error": f"wrong key, not {TOKEN}"})
            return
        message = {"role": "assistant", "content": FLAGS["--word"]}
        body = {"choices": [{"message": message}], "usage": {"completion_tokens": 1}}
        self.answer(200, body)

    def answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


if os.environ.get("BEFORE"):
    # A shell script to run first; its exit status is ours.
    sys.exit(subprocess.run(["sh", os.environ["BEFORE"]], stderr=subprocess.DEVNULL).returncode)
if os.environ.get("LEAK"):
    print("the key is", TOKEN, flush=True)
if MODE == "crash":
    sys.exit(f"echo: cannot say {FLAGS['--word']}")
print("echo: says", FLAGS["--word"], flush=True)
ThreadingHTTPServer((FLAGS["--host"], int(FLAGS["--port"])), Handler).serve_forever()
