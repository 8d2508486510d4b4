"""Routes to another model of a service than the one it is named after, such as LoRA adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_engine import Engine
from gateway_box import engine, gateway
from gateway_files import LLAMA, VLLM, G, data, folders, machine, release
from tools import needs

from inferfleet.load.load import load

TUNED = {**VLLM, "options": {"lora-modules": ["sql=/srv/sql", "law=/srv/law"]}}
SERVICES = {"lora": TUNED, "little": LLAMA}


def told(root: Path, gateway: Any, services: Any = None) -> list[str]:
    found = machine(gateway, services=services or SERVICES)
    errors = load(folders(json.dumps(found), root)).errors
    assert all(error.where and error.where.line for error in errors)
    return [f"{error.what}\nhint: {error.hint}".removesuffix("\nhint: ") for error in errors]


def test_a_route_to_an_adapter(tmp_path: Path) -> None:
    to = [{"service": "lora", "model": "sql"}, "little", {"service": "far/lan", "model": "any"}]
    routes = {"x": {"to": to}, "y": {"to": [{"service": "lora"}]}}
    found = data(release(tmp_path, machine({"routes": routes}, services=SERVICES)))
    assert found["routes"]["x"]["to"] == ["lora", "little", "far/lan"]
    assert found["routes"]["x"]["models"] == {"lora": "sql", "far/lan": "any"}
    assert "models" not in found["routes"]["y"]
    assert found["upstreams"]["lora"]["model"] == "Qwen/Qwen3-8B"


@pytest.mark.parametrize(
    "given",
    [
        ["sql=/srv/sql", "law=/srv/law"],
        ['{"name": "sql", "path": "/srv/sql"}', "law=/srv/law"],
        "sql=/srv/sql",
        {"name": "sql", "path": "/srv/sql"},
    ],
)
def test_adapters_are_offered_without_routes(tmp_path: Path, given: Any) -> None:
    services = {"lora": {**VLLM, "options": {"lora-modules": given}}}
    found = data(release(tmp_path, machine(services=services)))["routes"]
    assert found["Qwen/Qwen3-8B"]["to"] == ["lora"]
    assert (found["sql"]["to"], found["sql"]["models"]) == (["lora"], {"lora": "sql"})
    assert ("law" in found) == isinstance(given, list)


def test_replicas_share_an_adapter(tmp_path: Path) -> None:
    services = {"one": TUNED, "two": {**TUNED, "port": 8009}}
    found = data(release(tmp_path, machine(services=services)))["routes"]["law"]
    assert (found["to"], found["models"]) == (["one", "two"], {"one": "law", "two": "law"})


@pytest.mark.parametrize(
    ("to", "wanted"),
    [
        (
            {"service": "lora", "model": "sqll"},
            (
                f"{G}.routes.x.to[0].model: lora serves nothing by the name sqll\n"
                "hint: did you mean sql?"
            ),
        ),
        (
            {"service": "lora", "model": "poem"},
            (
                f"{G}.routes.x.to[0].model: lora serves nothing by the name poem\n"
                "hint: adapters: law, sql"
            ),
        ),
        (
            {"service": "lorra", "model": "sql"},
            f"{G}.routes.x.to[0]: m has no service lorra\nhint: did you mean lora?",
        ),
        (
            {"service": "lora", "modell": "sql"},
            f"{G}.routes.x.to[0].modell: unknown key\nhint: did you mean model?",
        ),
        ({"model": "sql"}, f"{G}.routes.x.to[0].service: is missing"),
        (
            "Node 1",
            (
                f'{G}.routes.x.to[0]: "Node 1" is not a service\n'
                "hint: write SERVICE, or MACHINE/SERVICE for one on another machine"
            ),
        ),
        (
            3,
            (
                f"{G}.routes.x.to[0]: 3 is not a service\n"
                "hint: write SERVICE, or {service: SERVICE, model: NAME}"
            ),
        ),
        (
            {"service": "gate", "model": "x"},
            (
                f"{G}.routes.x.to[0]: leads back to this gateway: m/gate -> m/gate\n"
                "hint: route to an engine, or to a gateway further on"
            ),
        ),
    ],
)
def test_mistakes(tmp_path: Path, to: Any, wanted: str) -> None:
    assert told(tmp_path, {"routes": {"x": {"to": [to]}}}) == [wanted]


def test_names_that_are_known_and_those_nobody_knows(tmp_path: Path) -> None:
    for to in ({"service": "lora", "model": "Qwen/Qwen3-8B"}, {"service": "little", "model": "z"}):
        assert told(tmp_path, {"routes": {"x": {"to": [to]}}}) == []


def test_a_service_stands_in_a_route_once(tmp_path: Path) -> None:
    to = [{"service": "lora", "model": name} for name in ("sql", "law")]
    [one] = told(tmp_path, {"routes": {"x": {"to": to}}})
    assert one.startswith(f"{G}.routes.x.to[1]: lora stands here twice")


def test_adapters_that_share_a_name(tmp_path: Path) -> None:
    other = {**TUNED, "model": "hf:Qwen/Qwen3-4B", "port": 8009}
    ends = "\nhint: give one of them another name, or write routes:"
    assert told(tmp_path, None, {"lora": TUNED, "four": other}) == [
        f"{G}: {name} is an adapter of lora and of four, whose models differ{ends}"
        for name in ("sql", "law")
    ]
    named = {**LLAMA, "served-name": "sql"}
    assert told(tmp_path, None, {"lora": TUNED, "little": named}) == [
        f"{G}: sql is an adapter of lora, and a model of little{ends}"
    ]


@needs("nginx")
def test_an_adapter_is_asked_for(tmp_path: Path) -> None:
    with Engine() as one:
        routes = {"sql": {"to": [{"service": "e", "model": "q"}]}, "base": {"to": ["e"]}}
        services = {"e": engine(one.port, "m")}
        with gateway(tmp_path, services, {"routes": routes}) as box:
            assert [box.chat(name, None).status_code for name in ("sql", "base")] == [200, 200]
        assert [body["model"] for _, _, body in one.seen] == ["q", "m"]
