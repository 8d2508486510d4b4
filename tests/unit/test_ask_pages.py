"""Services that generate no tokens: a page behind the key, an embedding; how long is waited."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import httpx
import pytest

from inferfleet.health.ask import ask_health, scrape
from inferfleet.health.ready import check
from inferfleet.release.release import Counters, Probe, Unit
from inferfleet.secrets import Secret

KEY = "sesame"


class Service(BaseHTTPRequestHandler):
    """/open to everybody, /page with the key, /broken to nobody; embeddings of one number."""

    def do_GET(self) -> None:
        allowed = self.headers.get("Authorization") == f"Bearer {KEY}"
        codes = {"/open": 200, "/page?x=1": 200 if allowed else 403, "/loading": 503}
        self._answer(codes.get(self.path, 500), {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        vector = [] if body["model"] == "empty" else [0.5]
        known = self.path == "/v1/embeddings" and body["input"]
        self._answer(200 if known else 404, {"data": [{"embedding": vector}]})

    def _answer(self, code: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def served() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Service) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def unit(request: str, page: str | None, model: str | None = "m", health: str = "/open") -> Unit:
    probe = Probe(health, (503,), request, model, "KEY", 60, page=page)
    return Unit(
        "s", "k", "compose", "n", "d", ("127.0.0.1", 1), "web", model, probe, None, True, False
    )


@pytest.mark.parametrize(
    ("asked", "key", "stage", "words"),
    [
        (unit("http", None), None, "ready", "healthy"),
        (unit("http", "/page?x=1"), KEY, "ready", "/page?x=1 answers"),
        (unit("http", "/page?x=1"), None, "refused", "answers 403"),
        (unit("http", "/page?x=1"), "other", "refused", "answers 403"),
        (unit("http", "/broken"), KEY, "http", "answers 500"),
        (unit("http", "/page?x=1", health="/loading"), KEY, "loading", "answers 503"),
        (unit("openai-embedding", None), KEY, "ready", "made an embedding"),
        (unit("openai-embedding", None, "empty"), KEY, "http", "without"),
    ],
)
def test_stages(asked: Unit, key: str | None, stage: str, words: str) -> None:
    with served() as url:
        found = check(url, asked, Secret(key) if key else None, 5.0)
    assert found.stage == stage
    assert words in found.detail


@pytest.mark.parametrize(("own", "seconds"), [(0, 5), (3, 5), (10, 10)])
def test_a_health_url_gets_the_time_of_its_kind(own: int, seconds: float) -> None:
    waited = []

    def answer(request: httpx.Request) -> httpx.Response:
        waited.append(request.extensions["timeout"]["read"])
        raise httpx.ReadTimeout("late")

    probe = Probe("/health", (503,), "http", None, None, 60, health_timeout=own)
    with httpx.Client(base_url="http://x", transport=httpx.MockTransport(answer)) as client:
        assert ask_health(client, probe).outcome == "silent"
    assert waited == [seconds]


@pytest.mark.parametrize(
    ("answer", "there", "late"),
    [
        (httpx.Response(200, text="n 1"), True, False),
        (httpx.Response(200, text="other 1"), False, False),
        (httpx.Response(404), False, False),
        (httpx.ConnectError("refused"), False, False),
        (httpx.ReadTimeout("late"), False, True),
    ],
    ids=["there", "others", "none", "closed", "late"],
)
def test_late_counters_are_not_absent_ones(
    answer: httpx.Response | Exception, there: bool, late: bool
) -> None:
    def reply(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    with httpx.Client(base_url="http://x", transport=httpx.MockTransport(reply)) as client:
        sample, timed_out = scrape(client, Counters("/metrics", progress=("n",)))
        assert scrape(client, None) == (None, False)
    assert (sample is not None, timed_out) == (there, late)
