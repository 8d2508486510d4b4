"""The rendered gateway in the real nginx: what a request becomes on its way to an engine."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import pytest
from fake_engine import Behaviour
from gateway_box import (
    CLIENT,
    KEY,
    SYSTEM,
    USER,
    Bed,
    eventually,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import needs

pytestmark = needs("nginx")


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
    shared_gateway: Bed, more: Any, system: str | None, place: int, indent: int | None, ascii: bool
) -> None:
    shared_gateway.engines["solo"].seen.clear()
    own = [] if system is None else [{"content": system, "role": "system"}]
    items = list(more.items())
    items[place:place] = [("messages", [*own, *USER]), ("model", "prompted")]
    text = json.dumps(dict(items), indent=indent, ensure_ascii=ascii)
    answer = CLIENT.post(
        f"{shared_gateway.box.url}/v1/chat/completions",
        content=text.encode("utf-8", "surrogatepass"),
        headers={"Authorization": f"Bearer {KEY}"},
    )
    assert answer.status_code == 200
    first = SYSTEM if system is None else f"{SYSTEM}\n\n{system}"
    messages = [{"content": first, "role": "system"}, *USER]
    wanted = {**more, "messages": messages, "model": "solo"}
    assert shared_gateway.engines["solo"].seen[0][2] == json.loads(json.dumps(wanted))


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
