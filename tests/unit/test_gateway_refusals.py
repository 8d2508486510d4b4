"""The rendered gateway in the real nginx: requests that it refuses, in the form of the API."""

from __future__ import annotations

import hashlib
import socket

import pytest
from gateway_box import (
    CLIENT,
    KEY,
    OTHER_KEY,
    Bed,
    Box,
    eventually,
    wrong,
)
from tools import needs

pytestmark = needs("nginx")


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
