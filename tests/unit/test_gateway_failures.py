"""The rendered gateway in the real nginx, before engines that fail as they are told to."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from fake_engine import Behaviour, Engine
from gateway_box import (
    CLIENT,
    SECRETS,
    USER,
    Bed,
    down,
    engine,
    eventually,
    gateway,
    run_rendered,
    wait_up,
    wrong,
)
from ports import free_port
from tools import needs

pytestmark = needs("nginx")


def test_a_service_gets_its_own_key(bed: Bed) -> None:
    assert bed.box.chat("keyed").status_code == 200
    assert bed.engines["keyed"].seen[0][1]["authorization"] == f"Bearer {SECRETS['LLAMA_API_KEY']}"


def test_a_service_that_refuses_the_gateway_is_no_fault_of_the_client(bed: Bed) -> None:
    bed.engines["keyed"].behaviour = Behaviour(status=401)
    answer = bed.box.chat("keyed")
    assert (answer.status_code, wrong(answer)["code"]) == (502, "upstream_refused")


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


def test_a_service_that_is_not_there_yet(tmp_path: Path) -> None:
    port = free_port()
    with gateway(tmp_path, {"e": engine(port, "m")}) as box:
        answer = box.chat()
        assert (answer.status_code, wrong(answer)["code"]) == (429, "model_loading")
        with Engine(port=port):
            assert box.chat().status_code == 200


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


def test_a_route_that_leads_back_ends_at_once(tmp_path: Path) -> None:
    """Through a service that no inventory knows to be a gateway."""
    port = free_port()
    with gateway(tmp_path, {"e": engine(port, "m")}, port=port) as box:
        answer = box.chat(key=None)
        assert (answer.status_code, wrong(answer)["code"]) == (508, "routing_loop")
        # The request of the client and the one that came back.
        eventually(lambda: box.metric("inferbase_gateway_requests_total") == 2)


def test_a_circle_of_two_gateways_ends_at_once(tmp_path: Path) -> None:
    first, second = free_port(), free_port()
    with (
        gateway(tmp_path / "a", {"e": engine(second, "m")}, port=first) as one,
        gateway(tmp_path / "b", {"e": engine(first, "m")}, port=second) as two,
    ):
        answer = one.chat(key=None, stream=True)
        assert (answer.status_code, wrong(answer)["code"]) == (508, "routing_loop")
        eventually(lambda: one.metric("inferbase_gateway_requests_total") == 2)
        assert two.metric("inferbase_gateway_requests_total") == 1


def test_gateways_in_a_row_are_no_circle(tmp_path: Path) -> None:
    with (
        Engine() as last,
        gateway(tmp_path / "a", {"e": engine(last.port, "m")}) as inner,
        gateway(tmp_path / "b", {"e": engine(int(inner.url.rpartition(":")[2]), "m")}) as outer,
    ):
        assert outer.chat(key=None).status_code == 200


def test_a_way_that_does_not_end_is_refused(tmp_path: Path) -> None:
    with Engine() as one, gateway(tmp_path, {"e": engine(one.port, "m")}) as box:
        for names, status in ((15, 200), (16, 200), (17, 508)):
            way = ",".join(f"{number:016x}" for number in range(names))
            body = {"model": "m", "messages": USER}
            found = CLIENT.post(
                f"{box.url}/v1/chat/completions", json=body, headers={"X-Gateway-Way": way}
            )
            assert found.status_code == status
        assert one.seen[0][1]["x-gateway-way"].startswith(f"{0:016x},")
