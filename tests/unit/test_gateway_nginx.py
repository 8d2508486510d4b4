"""The rendered gateway in the real nginx: its configuration, figures, secrets, and many streams."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

from fake_engine import Behaviour, Engine
from gateway_box import (
    CLIENT,
    KEY,
    NGINX,
    OTHER_KEY,
    REPOSITORY,
    SECRETS,
    USER,
    Bed,
    engine,
    eventually,
    gateway,
    limited,
    metrics,
)
from tools import needs

pytestmark = needs("nginx")
# 500 streams are 1,000 sockets of this process.
_files = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, _files[1]), _files[1]))


def test_figures(bed: Bed) -> None:
    before = bed.box.metric('inferbase_gateway_requests_total{model="m",key="beta",code="200"}')
    bed.box.chat("m-latest", OTHER_KEY)
    text = metrics(bed.box)
    after = bed.box.metric('inferbase_gateway_requests_total{model="m",key="beta",code="200"}')
    assert after == before + 1
    assert 'inferbase_gateway_first_byte_seconds_bucket{model="m",le="+Inf"}' in text
    figures = [line.rpartition(" ")[2] for line in text.splitlines() if line[0] != "#"]
    assert all(float(figure) >= 0 for figure in figures)


def test_no_key_is_seen_anywhere(bed: Bed) -> None:
    bed.box.chat("keyed")
    bed.box.chat(key="canary-sk-not-a-key")
    for path, file in bed.box.release.files.items():
        assert (b"canary-engine" in file.content) == (
            path in {"env/gateway.env", "env/keyed.env"}
        ), path
        assert b"canary-sk" not in file.content, path
    hidden = bed.box.release.files["env/gateway.env"]
    assert (hidden.mode, hidden.secret) == (0o600, True)
    assert hashlib.sha256(KEY.encode()).hexdigest().encode() in hidden.content
    seen = metrics(bed.box) + bed.box.log
    seen += subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True).stdout
    for key in (*SECRETS.values(), "canary-sk-not-a-key"):
        assert key not in seen


def test_without_keys_and_routes_it_is_open(tmp_path: Path) -> None:
    with Engine() as one, gateway(tmp_path, {"e": engine(one.port, "m")}) as box:
        assert box.chat(key=None).status_code == 200
        names = [found["id"] for found in CLIENT.get(f"{box.url}/v1/models").json()["data"]]
        assert names == ["m"]


def test_five_hundred_streams_at_once(tmp_path: Path) -> None:
    count = 500
    fake = Engine(behaviour=Behaviour(tokens=2, hold=True))
    with fake as one, limited(tmp_path, one.port) as box:
        port = int(box.url.rpartition(":")[2])
        body = json.dumps({"model": "m", "messages": USER, "stream": True}).encode()
        request = (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s"
        ) % (KEY.encode(), len(body), body)
        with ExitStack() as stack:
            clients = []
            for _ in range(count):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                client.sendall(request)
                clients.append(client)
            eventually(lambda: one.open == count, 60)
            one.behaviour.hold = False
            for client in clients:
                with client.makefile("rb") as answer:
                    assert answer.read().endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_patterns_are_anchored() -> None:
    for file in (REPOSITORY / "templates/gateway").glob("*.lua"):
        found = re.findall(
            r"""\b(?:match|find)\([^"'\n]*["'](?:\.[*+-]|\(\.|%s\*)""", file.read_text()
        )
        assert not found, file.name


def test_nginx_accepts_the_configuration(tmp_path: Path) -> None:
    with gateway(tmp_path, {"e": engine(1, "m")}) as box:
        config = str(box.root / "current/files/gateway/nginx.conf")
        done = subprocess.run(
            [NGINX, "-t", "-e", "stderr", "-c", config], capture_output=True, text=True
        )
        assert done.returncode == 0
        # Only to others than root nginx says that it ignores `user`.
        assert done.stderr.count("[warn]") == int(os.geteuid() != 0)
