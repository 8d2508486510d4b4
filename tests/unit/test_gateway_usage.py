"""The rendered gateway in the real nginx: what it counts of answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_engine import Behaviour, Engine
from gateway_box import (
    eventually,
    limited,
)
from tools import needs

pytestmark = needs("nginx")


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
