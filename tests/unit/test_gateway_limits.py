"""The rendered gateway in the real nginx: requests and tokens a minute, and budgets."""

from __future__ import annotations

import json
import os
import signal
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_engine import Behaviour, Engine
from gateway_box import (
    CLIENT,
    KEY,
    OTHER_KEY,
    USER,
    Box,
    engine,
    eventually,
    gateway,
    limited,
    run_rendered,
    wait_up,
    wrong,
)
from tools import needs

pytestmark = needs("nginx")


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


USED = 'inferbase_gateway_budget_used_tokens{key="alpha"}'
LONG = {"model": "m", "messages": USER, "pad": "x" * 4000}


def ended(box: Box, code: int, count: int = 1) -> None:
    figure = f'inferbase_gateway_requests_total{{model="m",key="alpha",code="{code}"}}'
    eventually(lambda: box.metric(figure) == count)


def give_up(box: Box, **more: Any) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    url = f"{box.url}/v1/chat/completions"
    with pytest.raises(httpx.ReadTimeout):
        CLIENT.post(url, json={**LONG, **more}, headers=headers, timeout=0.5)


@pytest.mark.parametrize(
    ("behaviour", "stream", "code"),
    [
        (Behaviour(tokens=1, pause=30), False, 499),
        (Behaviour(hold=True), True, 200),
    ],
)
def test_a_client_that_leaves_before_the_first_byte_pays_the_guess(
    tmp_path: Path, behaviour: Behaviour, stream: bool, code: int
) -> None:
    limits = {"tpm": 1500, "budget": {"tokens": 10**6}}
    with Engine(behaviour=behaviour) as one, limited(tmp_path, one.port, **limits) as box:
        for count in (1, 2):
            give_up(box, stream=stream)
            ended(box, code, count)
            assert 1000 * count < box.metric(USED) < 1100 * count
        one.behaviour = Behaviour()
        assert box.chat().status_code == 429


def test_an_answer_that_takes_too_long_costs_the_guess(tmp_path: Path) -> None:
    settings = {
        "routes": {"m": {"to": ["e"], "timeout": 1}},
        "keys": {"alpha": {"secret": "ALPHA", "budget": {"tokens": 10**6}}},
    }
    slow = Engine(behaviour=Behaviour(tokens=1, pause=30))
    with slow as one, gateway(tmp_path, {"e": engine(one.port, "m")}, settings) as box:
        assert box.post(LONG).status_code == 504
        ended(box, 504)
        assert 1000 < box.metric(USED) < 1100


def test_what_no_service_worked_on_costs_nothing(tmp_path: Path) -> None:
    # One connection fills the queue of this one, and the next is not answered.
    with socket.socket() as full, socket.socket() as first:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        first.connect(full.getsockname())
        with limited(tmp_path, full.getsockname()[1], budget={"tokens": 10**6}) as box:
            give_up(box)
            ended(box, 499)
            assert box.metric(USED) == 0


def test_an_engine_that_breaks_before_its_answer_costs_nothing(tmp_path: Path) -> None:
    fake = Engine(behaviour=Behaviour(dies=0))
    with fake as one, limited(tmp_path, one.port, budget={"tokens": 10**6}) as box:
        assert box.post(LONG).status_code == 503
        ended(box, 503)
        assert box.metric(USED) == 0


@pytest.mark.parametrize(
    "limits", [{"rpm": 1}, {"tpm": 1}, {"budget": {"tokens": 1, "per": "total"}}]
)
def test_refused_requests_are_counted_under_their_key(
    tmp_path: Path, limits: dict[str, Any]
) -> None:
    with Engine() as one, limited(tmp_path, one.port, **limits) as box:
        assert box.chat().status_code == 200
        ended(box, 200)
        before = box.metric(USED)
        assert [box.chat().status_code for _ in range(2)] == [429, 429]
        ended(box, 429, 2)
        assert box.metric('inferbase_gateway_requests_total{model="",key=""') == 0
        assert box.metric('inferbase_gateway_tokens_total{model="m",key="alpha"') == 12
        assert box.metric(USED) == before


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
