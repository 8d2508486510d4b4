"""The rendered gateway in the real nginx: requests and tokens a minute, and budgets."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from fake_engine import Behaviour, Engine
from gateway_box import (
    CLIENT,
    KEY,
    OTHER_KEY,
    USER,
    Box,
    eventually,
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
