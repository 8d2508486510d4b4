"""The rendered gateway in the real nginx, before engines that fail as they are told to."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_engine import Behaviour, Engine
from gateway_box import (
    CLIENT,
    KEY,
    NGINX,
    OTHER_KEY,
    REPOSITORY,
    SECRETS,
    Box,
    engine,
    gateway,
    run_rendered,
    wait_up,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from ports import free_port
from tools import needs

pytestmark = needs("nginx")
# 500 streams are 1,000 sockets of this process.
_files = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, _files[1]), _files[1]))

SYSTEM = 'Answer in one word. "Really" \\ \N{SNOWMAN}\nAlways.'
USER = [{"role": "user", "content": "Hi"}]


class Bed:
    """Two engines for model m, one each for solo, keyed and prompted; one gateway before them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        names = ("one", "two", "solo", "keyed", "alias")
        self.engines = {name: stack.enter_context(Engine(name)) for name in names}
        services = {
            "one": engine(self.engines["one"].port, "served/m"),
            "two": engine(self.engines["two"].port, "served/m"),
            "solo": engine(
                self.engines["solo"].port, "solo", "/models/b.gguf", **{"start-timeout": 4}
            ),
            "keyed": engine(
                self.engines["keyed"].port, "keyed", "/models/c.gguf", secrets=["LLAMA_API_KEY"]
            ),
            "alias": engine(
                self.engines["alias"].port,
                "aliased",
                model={
                    "source": "hf:x/y/z.gguf",
                    "alias": "team/hl",
                    "extra": {"system_prompt.txt": "From the alias.\n"},
                },
            ),
        }
        settings = {
            "routes": {
                "m": {"to": ["one", "two"], "aliases": ["m-latest"]},
                "solo": {"to": ["solo"], "timeout": 1},
                "keyed": {"to": ["keyed"]},
                "prompted": {"to": ["solo"], "system-prompt": {"file": "prompts/p.txt"}},
                "hl": {"to": ["alias"], "system-prompt": {"alias": "team/hl"}},
            },
            "keys": {
                "alpha": {"secret": "ALPHA"},
                "beta": {"secret": "BETA", "models": ["m-latest"]},
            },
        }
        self.box = stack.enter_context(
            gateway(folder, services, settings, {"prompts/p.txt": f"{SYSTEM}\n"})
        )

    def calm(self) -> None:
        """Every engine as it should be, and known to be."""
        for one in self.engines.values():
            one.behaviour = Behaviour()
            one.seen.clear()
        eventually(lambda: "service_up" in metrics(self.box) and not down(self.box))


def metrics(box: Box) -> str:
    return CLIENT.get(f"{box.url}/metrics").text


def down(box: Box) -> list[str]:
    return [
        line for line in metrics(box).splitlines() if "service_up" in line and line.endswith(" 0")
    ]


def eventually(true: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wrong(answer: Any) -> dict[str, Any]:
    """The error of an answer, which must have the API's form."""
    found = answer.json()
    assert set(found) == {"error"}
    assert set(found["error"]) == {"message", "type", "param", "code"}
    assert isinstance(found["error"]["message"], str)
    return found["error"]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with ExitStack() as stack:
        yield Bed(tmp_path_factory.mktemp("gateway"), stack)


@pytest.fixture
def bed(shared: Bed) -> Bed:
    shared.calm()
    return shared


def test_a_chat(bed: Bed) -> None:
    answer = bed.box.chat()
    assert answer.status_code == 200
    assert answer.json()["usage"]["total_tokens"] == 12
    path, headers, body = [*bed.engines["one"].seen, *bed.engines["two"].seen][0]
    assert (path, body["model"], body["messages"]) == ("/v1/chat/completions", "served/m", USER)
    assert "authorization" not in headers


def test_services_take_turns(bed: Bed) -> None:
    assert {bed.box.chat().json()["by"] for _ in range(6)} == {"one", "two"}


def test_the_least_busy_service_is_chosen(bed: Bed) -> None:
    for name in ("one", "two"):
        bed.engines[name].behaviour = Behaviour(tokens=100, pause=0.02)
    headers = {"Authorization": f"Bearer {KEY}"}
    with ExitStack() as stack:
        for _ in range(8):
            body = {"model": "m", "messages": USER, "stream": True}
            url = f"{bed.box.url}/v1/chat/completions"
            stack.enter_context(CLIENT.stream("POST", url, json=body, headers=headers))
        assert [bed.engines[name].open for name in ("one", "two")] == [4, 4]


def test_an_alias(bed: Bed) -> None:
    assert bed.box.chat("m-latest").status_code == 200
    assert {found[2]["model"] for e in bed.engines.values() for found in e.seen} == {"served/m"}


def test_only_the_model_is_changed_in_a_request(bed: Bed) -> None:
    raw = b'{ "tools":[],"seed":12345678901234567890,"x":1.10, "model" : "m-latest" ,"messages":[]}'
    bed.box.post(None)  # a body that is null
    answer = CLIENT.post(
        f"{bed.box.url}/v1/chat/completions",
        content=raw,
        headers={"Authorization": f"Bearer {KEY}"},
    )
    assert answer.status_code == 200
    _, headers, body = [*bed.engines["one"].seen, *bed.engines["two"].seen][0]
    wanted = raw.replace(b'"m-latest"', b'"served/m"')
    assert int(headers["content-length"]) == len(wanted)
    assert body == json.loads(wanted)


READ = {"model", "messages", "stream", "stream_options", "instructions"}
NAMES = st.text(max_size=6).filter(lambda name: name.casefold() not in READ)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)


@settings(max_examples=40, deadline=None)
@given(
    more=st.dictionaries(NAMES, VALUES, max_size=4),
    system=st.none() | TEXTS,
    place=st.integers(0, 4),
    indent=st.none() | st.just(2),
    ascii=st.booleans(),
)
def test_any_request_arrives_as_it_was_sent(
    shared: Bed, more: Any, system: str | None, place: int, indent: int | None, ascii: bool
) -> None:
    shared.engines["solo"].seen.clear()
    own = [] if system is None else [{"content": system, "role": "system"}]
    items = list(more.items())
    items[place:place] = [("messages", [*own, *USER]), ("model", "prompted")]
    text = json.dumps(dict(items), indent=indent, ensure_ascii=ascii)
    answer = CLIENT.post(
        f"{shared.box.url}/v1/chat/completions",
        content=text.encode("utf-8", "surrogatepass"),
        headers={"Authorization": f"Bearer {KEY}"},
    )
    assert answer.status_code == 200
    first = SYSTEM if system is None else f"{SYSTEM}\n\n{system}"
    messages = [{"content": first, "role": "system"}, *USER]
    wanted = {**more, "messages": messages, "model": "solo"}
    assert shared.engines["solo"].seen[0][2] == json.loads(json.dumps(wanted))


def test_streaming_is_not_buffered(bed: Bed) -> None:
    # The engine ends its answer only after the client has read its first token.
    before = bed.engines["solo"].open
    bed.engines["solo"].behaviour = Behaviour(tokens=400, pause=0.01)
    body = {"model": "solo", "messages": USER, "stream": True}
    headers = {"Authorization": f"Bearer {KEY}"}
    url = f"{bed.box.url}/v1/chat/completions"
    with CLIENT.stream("POST", url, json=body, headers=headers) as answer:
        first = next(answer.iter_text())
        assert "t0" in first
        assert bed.engines["solo"].open == before + 1
    # A client that goes takes its request with it.
    eventually(lambda: bed.engines["solo"].open <= before)


@pytest.mark.parametrize("split", [False, True])
def test_usage_is_asked_for_and_kept_from_the_client(bed: Bed, split: bool) -> None:
    bed.engines["solo"].behaviour = Behaviour(tokens=3, split=split)
    before = bed.box.metric('inferbase_gateway_tokens_total{model="solo",key="alpha"')
    answer = bed.box.chat("solo", stream=True)
    assert bed.engines["solo"].seen[0][2]["stream_options"] == {"include_usage": True}
    events = [line for line in answer.text.split("\n\n") if line]
    assert [json.loads(e[6:])["choices"][0]["delta"]["content"] for e in events[:-1]] == [
        "t0 ",
        "t1 ",
        "t2 ",
    ]
    assert events[-1] == "data: [DONE]"
    tokens = 'inferbase_gateway_tokens_total{model="solo",key="alpha"'
    eventually(lambda: bed.box.metric(tokens) - before == 10)


@pytest.mark.parametrize(
    ("options", "sent", "told"),
    [
        ({"include_usage": True}, {"include_usage": True}, True),
        ({"include_usage": False}, {"include_usage": True}, False),
        ({"other": 1}, {"include_usage": True, "other": 1}, False),
        ({}, {"include_usage": True}, False),
        (None, {"include_usage": True}, False),
    ],
)
def test_usage_is_told_to_those_who_ask(bed: Bed, options: Any, sent: Any, told: bool) -> None:
    answer = bed.box.chat("solo", stream=True, stream_options=options)
    assert bed.engines["solo"].seen[0][2]["stream_options"] == sent
    assert ('"usage"' in answer.text) == told


@pytest.mark.parametrize(
    ("messages", "sent"),
    [
        (USER, [{"role": "system", "content": SYSTEM}, *USER]),
        ([], [{"role": "system", "content": SYSTEM}]),
        (
            [{"content": "Mine.", "role": "system"}, *USER],
            [{"content": f"{SYSTEM}\n\nMine.", "role": "system"}, *USER],
        ),
        (
            [{"role": "developer", "content": [{"type": "text", "text": "Mine."}]}],
            [
                {
                    "role": "developer",
                    "content": [
                        {"type": "text", "text": SYSTEM},
                        {"type": "text", "text": "Mine."},
                    ],
                }
            ],
        ),
        (
            [{"role": "system", "content": []}],
            [{"role": "system", "content": [{"type": "text", "text": SYSTEM}]}],
        ),
        (
            [{"role": "system", "content": None}, *USER],
            [{"role": "system", "content": SYSTEM}, *USER],
        ),
    ],
)
def test_system_prompt(bed: Bed, messages: Any, sent: Any) -> None:
    bed.box.post({"model": "prompted", "messages": messages})
    assert bed.engines["solo"].seen[0][2] == {"model": "solo", "messages": sent}


def test_system_prompt_of_an_alias_directory(bed: Bed) -> None:
    bed.box.chat("hl")
    first = bed.engines["alias"].seen[0][2]["messages"][0]  # type: ignore[index]
    assert first == {"role": "system", "content": "From the alias."}


def test_system_prompt_of_a_response(bed: Bed) -> None:
    for own, sent in (({}, SYSTEM), ({"instructions": "Mine."}, f"{SYSTEM}\n\nMine.")):
        bed.box.post({"model": "prompted", "input": "Hi", **own}, path="/v1/responses")
        assert bed.engines["solo"].seen[-1][2]["instructions"] == sent


def test_completions_get_no_system_prompt(bed: Bed) -> None:
    bed.box.post({"model": "prompted", "prompt": "Hi"}, path="/v1/completions")
    assert bed.engines["solo"].seen[0][2] == {"model": "solo", "prompt": "Hi"}


def test_a_service_gets_its_own_key(bed: Bed) -> None:
    assert bed.box.chat("keyed").status_code == 200
    assert bed.engines["keyed"].seen[0][1]["authorization"] == f"Bearer {SECRETS['LLAMA_API_KEY']}"


def test_a_service_that_refuses_the_gateway_is_no_fault_of_the_client(bed: Bed) -> None:
    bed.engines["keyed"].behaviour = Behaviour(status=401)
    answer = bed.box.chat("keyed")
    assert (answer.status_code, wrong(answer)["code"]) == (502, "upstream_refused")


@pytest.mark.parametrize(
    "key", [None, "", "wrong", KEY[:-1], hashlib.sha256(KEY.encode()).hexdigest()]
)
def test_a_key_that_is_wrong_or_missing(bed: Bed, key: str | None) -> None:
    for answer in (bed.box.chat(key=key), CLIENT.get(f"{bed.box.url}/v1/models")):
        assert (answer.status_code, wrong(answer)["code"]) == (401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert not any(one.seen for one in bed.engines.values())


def test_models_are_those_of_the_key(bed: Bed) -> None:
    def names(key: str) -> list[str]:
        answer = CLIENT.get(f"{bed.box.url}/v1/models", headers={"Authorization": f"Bearer {key}"})
        assert answer.json()["object"] == "list"
        return [found["id"] for found in answer.json()["data"]]

    assert names(KEY) == ["hl", "keyed", "m", "m-latest", "prompted", "solo"]
    assert names(OTHER_KEY) == ["m", "m-latest"]
    assert bed.box.chat("m", OTHER_KEY).status_code == 200
    answer = bed.box.chat("solo", OTHER_KEY)
    assert (answer.status_code, wrong(answer)["code"]) == (404, "model_not_found")
    one = CLIENT.get(f"{bed.box.url}/v1/models/m", headers={"Authorization": f"Bearer {KEY}"})
    assert one.json()["id"] == "m"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"model": "m"', 400),
        (b'{"model": "m"} x', 400),
        (b'{"model": 3}', 400),
        (b'{"model": "m", "model": "solo"}', 400),
        (b'{"model": "m", "mod\\u0065l": "solo"}', 400),
        (b'{"model": "prompted"}', 400),
        # Go's reader takes the last of names that differ in case only.
        (b'{"model": "m", "messages": [], "Model": "solo"}', 400),
        (b'{"model": "m", "mo\\u0044el": "solo"}', 400),
        (b'{"model": "prompted", "messages": [], "Messages": []}', 400),
        ('{"model": "prompted", "messages": [], "me\u017fsages": []}'.encode(), 400),
        (b'{"model": "prompted", "messages": [], "me\\u017f\\u017fages": []}', 400),
        (b'{"model": "prompted", "messages": [{"role": "user", "Role": "system"}]}', 400),
        (b'{"model": "prompted", "messages": [{"role": "system", "content": 3}]}', 400),
        (b'{"model": "m", "stream": false, "STREAM": true}', 400),
        (b'{"model": "m", "stream": true, "stream_options": {"Include_usage": false}}', 400),
        (b'{"model": "nothing"}', 404),
    ],
)
def test_requests_that_cannot_be_used(bed: Bed, body: bytes, status: int) -> None:
    answer = CLIENT.post(
        f"{bed.box.url}/v1/chat/completions",
        content=body,
        headers={"Authorization": f"Bearer {KEY}"},
    )
    assert answer.status_code == status
    wrong(answer)
    assert not any(one.seen for one in bed.engines.values())


def test_names_that_the_gateway_does_not_read_may_have_any_case(bed: Bed) -> None:
    more = {"Temperature": 1, "top_K": 2, "\u212a": 3, "metadata": {"Model": "solo"}}
    assert bed.box.chat("solo", **more).status_code == 200
    assert {**bed.engines["solo"].seen[0][2], **more} == bed.engines["solo"].seen[0][2]


def raw_request(box: Box, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", int(box.url.rpartition(":")[2]))) as client:
        client.sendall(sent)
        client.settimeout(10)
        answer = b""
        # nginx waits for the rest of a request that it refused before it closes the connection.
        while not answer.endswith(b"0\r\n\r\n") and (more := client.recv(65536)):
            answer += more
        return answer


def counted(box: Box, status: int) -> None:
    figure = f'inferbase_gateway_requests_total{{model="",key="",code="{status}"}}'
    eventually(lambda: box.metric(figure))


def test_what_nginx_itself_refuses_has_the_form_of_the_api(bed: Bed) -> None:
    start = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    auth = f"Authorization: Bearer {KEY}\r\n".encode()
    for sent, status in (
        (start + auth + b"Transfer-Encoding: chunked\r\n\r\nno chunk\r\n\r\n", 400),
        (start + auth + b"Content-Length: x\r\n\r\n", 400),
        (start + b"Content-Length: 99999999\r\n\r\n", 413),
    ):
        head, _, body = raw_request(bed.box, sent).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d" % status)
        assert b"application/json" in head
        assert b'"type":"invalid_request_error"' in body
        counted(bed.box, status)


def test_a_request_that_is_none_is_no_fault_of_the_gateway(bed: Bed) -> None:
    before = len(bed.box.log)
    for sent, status in (
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET /v1/%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 9000), 414),
    ):
        answer = raw_request(bed.box, sent)
        assert answer.startswith(b"HTTP/1.1 %d" % status)
        assert b'"type":"invalid_request_error"' in answer
    bed.box.chat("solo")
    assert "lua" not in bed.box.log[before:]


def test_the_scheme_of_the_key_has_no_case(bed: Bed) -> None:
    def status(value: str) -> int:
        headers = {"Authorization": value}
        return CLIENT.get(f"{bed.box.url}/v1/models", headers=headers).status_code

    assert [status(f"{word}  {KEY}") for word in ("BEARER", "bearer", "Bearer")] == [200] * 3
    assert [status(f"Bearer {KEY} x"), status(f"Basic {KEY}"), status("Bearer")] == [401] * 3


def test_other_paths_and_methods(bed: Bed) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    for method, path, status in (
        ("POST", "/v1/load_lora_adapter", 404),
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/nothing", 404),
    ):
        answer = CLIENT.request(method, bed.box.url + path, headers=headers)
        assert answer.status_code == status
        wrong(answer)


def test_a_large_request_and_one_that_is_too_large(bed: Bed) -> None:
    text = "x" * (1 << 20)
    assert bed.box.post({"messages": [{"role": "user", "content": text}], "model": "m"}).is_success
    with socket.create_connection(("127.0.0.1", int(bed.box.url.rpartition(":")[2]))) as client:
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"
        )
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b'"invalid_request_error"' in answer


def test_an_error_of_the_engine_is_passed_on(bed: Bed) -> None:
    for status in (400, 404, 413, 422, 429, 500):
        bed.engines["solo"].behaviour = Behaviour(status=status)
        answer = bed.box.chat("solo")
        assert (answer.status_code, answer.json()) == (status, {"error": {"message": "no"}})


@pytest.mark.parametrize("fault", [Behaviour(status=503), Behaviour(dies=0)])
def test_failover(bed: Bed, fault: Behaviour) -> None:
    bed.engines["one"].behaviour = fault
    for _ in range(6):
        answer = bed.box.chat()
        assert (answer.status_code, answer.json()["by"]) == (200, "two")


def test_failover_when_a_service_is_gone(bed: Bed) -> None:
    lost = bed.engines["one"]
    lost.__exit__()
    try:
        for _ in range(6):
            assert bed.box.chat().json()["by"] == "two"
        assert down(bed.box) == ['inferbase_gateway_service_up{service="one"} 0']
    finally:
        lost.__enter__()
    eventually(lambda: not down(bed.box))
    assert {bed.box.chat().json()["by"] for _ in range(6)} == {"one", "two"}


def test_a_stream_that_breaks_ends_without_its_end(bed: Bed) -> None:
    bed.engines["solo"].behaviour = Behaviour(tokens=9, dies=4)
    with pytest.raises(httpx.RemoteProtocolError):
        bed.box.chat("solo", stream=True)


def test_while_a_model_loads(bed: Bed) -> None:
    bed.engines["solo"].behaviour = Behaviour(status=503)
    answer = bed.box.chat("solo")
    assert (answer.status_code, wrong(answer)["code"]) == (429, "model_loading")
    assert int(answer.headers["retry-after"]) >= 1
    # Longer than its start-timeout: this is no loading any more.
    eventually(lambda: bed.box.chat("solo").status_code == 503)
    assert wrong(bed.box.chat("solo"))["code"] == "model_unavailable"
    bed.engines["solo"].behaviour = Behaviour()
    assert bed.box.chat("solo").status_code == 200


def test_a_silent_engine(bed: Bed) -> None:
    bed.engines["solo"].behaviour = Behaviour(tokens=1, pause=30)
    answer = bed.box.chat("solo")
    assert (answer.status_code, wrong(answer)["code"]) == (504, "timeout")
    assert len(bed.engines["solo"].seen) == 1


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


def limited(folder: Path, port: int, **limits: Any) -> Any:
    keys = {"alpha": {"secret": "ALPHA", **limits}, "beta": {"secret": "BETA"}}
    return gateway(folder, {"e": engine(port, "m")}, {"keys": keys})


def test_requests_a_minute(tmp_path: Path) -> None:
    with Engine() as one, limited(tmp_path, one.port, rpm=3) as box:
        found = [box.chat() for _ in range(5)]
        assert [answer.status_code for answer in found] == [200, 200, 200, 429, 429]
        assert wrong(found[-1])["code"] == "rate_limit_exceeded"
        assert 1 <= int(found[-1].headers["retry-after"]) <= 120
        assert box.chat(key=OTHER_KEY).status_code == 200
        assert len(one.seen) == 4


def test_tokens_a_minute(tmp_path: Path) -> None:
    with Engine() as one, limited(tmp_path, one.port, tpm=20) as box:
        found = []
        for number, stream in enumerate((True, False, True)):
            found.append(box.chat(stream=stream))
            eventually(
                lambda n=number: box.metric("inferbase_gateway_requests_total") >= min(n + 1, 2)
            )
        assert [answer.status_code for answer in found] == [200, 200, 429]
        assert 1 <= int(found[-1].headers["retry-after"]) <= 120


def test_a_budget_outlives_the_gateway(tmp_path: Path) -> None:
    budget = {"tokens": 30, "per": "total"}
    with Engine() as one:
        with limited(tmp_path, one.port, budget=budget) as box:
            assert box.chat().status_code == 200
            assert box.metric('inferbase_gateway_budget_used_tokens{key="alpha"}') == 12
            box.stop()
        with limited(tmp_path, one.port, budget=budget) as box:
            assert box.metric('inferbase_gateway_budget_used_tokens{key="alpha"}') == 12
            assert [box.chat().status_code for _ in range(3)] == [200, 200, 429]
            # As much is lost when the machine loses its power: what was not saved yet.
            kept = box.root / ".inferbase/run/gateway/budgets.json"
            eventually(lambda: json.loads(kept.read_text()) == {"alpha|total": 36})
            master = box.process.pid
            workers = Path(f"/proc/{master}/task/{master}/children").read_text().split()
            box.process.kill()
            for worker in workers:
                os.kill(int(worker), signal.SIGKILL)
        with limited(tmp_path, one.port, budget=budget) as box:
            answer = box.chat()
            assert (answer.status_code, wrong(answer)["code"]) == (429, "insufficient_quota")
            assert "retry-after" not in answer.headers
            assert box.chat(key=OTHER_KEY).status_code == 200


def test_damaged_budgets_keep_it_from_starting(tmp_path: Path) -> None:
    kept = tmp_path / "root/.inferbase/run/gateway/budgets.json"
    kept.parent.mkdir(parents=True)
    kept.write_text('{"alpha|tot')
    box = limited(tmp_path, 1, budget={"tokens": 1})
    with pytest.raises(RuntimeError, match=r"budgets\.json is damaged"), box:
        pass


def test_a_failed_request_costs_nothing(tmp_path: Path) -> None:
    fake = Engine(behaviour=Behaviour(status=400))
    with fake as one, limited(tmp_path, one.port, tpm=1000, budget={"tokens": 9}) as box:
        # What a request costs is known a moment after its answer.
        used = 'inferbase_gateway_budget_used_tokens{key="alpha"}'
        for _ in range(4):
            assert box.chat().status_code == 400
            eventually(lambda: box.metric(used) == 0)


def test_an_engine_that_tells_no_usage(tmp_path: Path) -> None:
    fake = Engine(behaviour=Behaviour(tokens=8, usage=False))
    with fake as one, limited(tmp_path, one.port, budget={"tokens": 99}) as box:
        box.chat(stream=True)
        assert box.metric('inferbase_gateway_tokens_total{model="m",key="alpha",type="output"') in (
            8,
            9,
        )


def test_an_answer_without_usage_is_counted_by_its_length(tmp_path: Path) -> None:
    fake = Engine(behaviour=Behaviour(usage=False))
    out = 'inferbase_gateway_tokens_total{model="m",key="alpha",type="output"'
    with fake as one, limited(tmp_path, one.port) as box:
        guess = -(-len(box.chat().content) // 4)
        eventually(lambda: box.metric(out) == guess)
        # Vectors are no text that the model wrote.
        box.post({"model": "m", "input": "Hi"}, path="/v1/embeddings")
        eventually(lambda: box.metric("inferbase_gateway_requests_total") == 2)
        assert box.metric(out) == guess


def usage_event(into: int, out: int) -> bytes:
    choice = [{"delta": {"content": "x"}}]
    usage = {"prompt_tokens": into, "completion_tokens": out}
    return b"data: " + json.dumps({"choices": choice, "usage": usage}).encode() + b"\n\n"


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("cut", [None, 5, 60, 75])
def test_the_last_usage_of_a_stream_counts(tmp_path: Path, asked: bool, cut: int | None) -> None:
    events = [usage_event(7, count) for count in (1, 2, 3)]
    raw = b"".join(events)
    if cut is not None:
        raw_parts: tuple[bytes, ...] = (raw[: -len(events[2]) + cut], raw[-len(events[2]) + cut :])
    else:
        raw_parts = (raw,)
    fake = Engine(behaviour=Behaviour(raw=raw_parts))
    with fake as one, limited(tmp_path, one.port) as box:
        answer = box.chat(stream=True, stream_options={"include_usage": asked})
        assert answer.content == raw
        eventually(lambda: box.metric("inferbase_gateway_tokens_total") == 10)


def test_usage_at_the_end_of_a_stream_without_its_end(tmp_path: Path) -> None:
    fake = Engine(behaviour=Behaviour(raw=(usage_event(7, 1), usage_event(7, 3).rstrip())))
    with fake as one, limited(tmp_path, one.port) as box:
        assert box.chat(stream=True).status_code == 200
        eventually(lambda: box.metric("inferbase_gateway_tokens_total") == 10)


def test_a_long_event_does_not_stop_the_worker(tmp_path: Path) -> None:
    # With a pattern that is tried at every place this takes an hour; the client gives up before.
    raw = b'data: {"choices":[{"delta":{"content":"' + b"x" * 900_000 + b'"}}]}\n\n'
    fake = Engine(behaviour=Behaviour(raw=(raw,)))
    with fake as one, limited(tmp_path, one.port) as box:
        assert box.chat(stream=True).content == raw


def test_patterns_are_anchored() -> None:
    for file in (REPOSITORY / "templates/gateway").glob("*.lua"):
        found = re.findall(
            r"""\b(?:match|find)\([^"'\n]*["'](?:\.[*+-]|\(\.|%s\*)""", file.read_text()
        )
        assert not found, file.name


def clocked(box: Box, clock: Path) -> None:
    """Write the gateway's limits anew so that they take the time from a file."""
    file = box.root / "current/files/gateway/gateway_limits.lua"
    text = file.read_text()
    read = f'tonumber(io.open("{clock}"):read("*a"))'
    assert text.count("ngx.now()") == 1
    file.write_text(text.replace("ngx.now()", read).replace("ngx.time()", read))


def test_what_was_charged_in_advance_is_given_back_where_it_was_taken(tmp_path: Path) -> None:
    clock, day = tmp_path / "clock", 86400
    used = 'inferbase_gateway_budget_used_tokens{key="alpha"}'
    limits = {"tpm": 20, "budget": {"tokens": 10**6, "per": "day"}}
    with Engine() as one, limited(tmp_path, one.port, **limits) as box, ExitStack() as stack:
        box.stop()
        clocked(box, clock)
        clock.write_text(str(day - 1))
        process = run_rendered(box.root / "current", box.root / "again.log")
        box.process = stack.enter_context(process)
        wait_up(box)
        one.behaviour = Behaviour(hold=True)
        body = {"model": "m", "stream": True, "messages": USER, "pad": "x" * 4000}
        headers = {"Authorization": f"Bearer {KEY}"}
        url = f"{box.url}/v1/chat/completions"
        with CLIENT.stream("POST", url, json=body, headers=headers) as answer:
            assert box.metric(used) > 1000
            assert box.chat().status_code == 429
            clock.write_text(str(day + 59))
            one.behaviour.hold = False
            answer.read()
        eventually(lambda: box.metric("inferbase_gateway_tokens_total"))
        eventually(lambda: box.metric(used) == 12)
        assert [box.chat().status_code for _ in range(2)] == [200, 429]
        clock.write_text(str(day - 1))
        assert box.metric(used) == 0
        assert box.chat().status_code == 200


def test_a_picture_is_not_charged_as_text(tmp_path: Path) -> None:
    used = 'inferbase_gateway_budget_used_tokens{key="alpha"}'
    fake = Engine(behaviour=Behaviour(tokens=2, hold=True, usage=False))
    with fake as one, limited(tmp_path, one.port, budget={"tokens": 10**6}) as box:
        picture = {"type": "image_url", "image_url": {"url": "data:;base64," + "A" * 400_000}}
        body = {"model": "m", "messages": [{"role": "user", "content": [picture]}], "stream": True}
        headers = {"Authorization": f"Bearer {KEY}"}
        url = f"{box.url}/v1/chat/completions"
        with CLIENT.stream("POST", url, json=body, headers=headers) as answer:
            assert box.metric(used) == 32768
            one.behaviour.hold = False
            answer.read()
        eventually(lambda: box.metric("inferbase_gateway_tokens_total"))
        assert box.metric(used) <= 32768 + 3


def test_without_keys_and_routes_it_is_open(tmp_path: Path) -> None:
    with Engine() as one, gateway(tmp_path, {"e": engine(one.port, "m")}) as box:
        assert box.chat(key=None).status_code == 200
        names = [found["id"] for found in CLIENT.get(f"{box.url}/v1/models").json()["data"]]
        assert names == ["m"]


def test_a_service_that_is_not_there_yet(tmp_path: Path) -> None:
    port = free_port()
    with gateway(tmp_path, {"e": engine(port, "m")}) as box:
        answer = box.chat()
        assert (answer.status_code, wrong(answer)["code"]) == (429, "model_loading")
        with Engine(port=port):
            assert box.chat().status_code == 200


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


def test_names_are_resolved_and_resolved_again(tmp_path: Path) -> None:
    with Engine() as one, gateway(tmp_path, {"e": engine(one.port, "m")}) as box:
        config = box.root / "current/files/gateway/gateway.json"
        data = json.loads(config.read_text())
        data["upstreams"]["e"]["host"] = "localhost"
        data["upstreams"]["gone"] = {**data["upstreams"]["e"], "host": "no-such-host.invalid"}
        data["routes"]["m"]["to"] = ["gone", "e"]
        box.stop()
        config.write_text(json.dumps(data))
        with run_rendered(box.root / "current", box.root / "again.log") as process:
            box.process = process
            wait_up(box)
            eventually(lambda: box.chat().status_code == 200)
            assert {box.chat().json()["by"] for _ in range(3)} == {"fake"}


def test_nginx_accepts_the_configuration(tmp_path: Path) -> None:
    with gateway(tmp_path, {"e": engine(1, "m")}) as box:
        config = str(box.root / "current/files/gateway/nginx.conf")
        done = subprocess.run(
            [NGINX, "-t", "-e", "stderr", "-c", config], capture_output=True, text=True
        )
        assert done.returncode == 0
        # Only to others than root nginx says that it ignores `user`.
        assert done.stderr.count("[warn]") == int(os.geteuid() != 0)
