"""Machine file keys that only some kinds have a use for: mistakes are told with their place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import plan_cases
import pytest
import render_cases
import yaml

from inferfleet.errors import FleetErrors
from inferfleet.load.load import load, load_fleet
from inferfleet.observe.observed import parse_observed
from inferfleet.paths import Roots
from inferfleet.plan.plan import Goal, make_plan
from inferfleet.schema.machine import Machine

KEY = "api-key is set by inferbase"
TRITON = {"kind": "triton", "repository": {"m": {"versions": {"1": "/srv/m/1"}}}}


@pytest.mark.parametrize(
    ("services", "words"),
    [
        ({"t": {**TRITON, "ports": {"grcp": 9}}}, "ports.grcp: kind triton has no port grcp|grpc"),
        (
            {"t": TRITON, "u": {**TRITON, "port": 8001, "ports": {"grpc": 9}}},
            "u.port: 8001 is also the port of t",
        ),
        ({"t": {**TRITON, "ports": {"grpc": 8002}}}, "ports.metrics: 8002 is also a port of t"),
        ({"t": {**TRITON, "repository": {"m": {"versions": {}}}}}, "an empty one for an ensemble"),
        ({"t": {**TRITON, "repository": {"m": {"versions": {"01": "/x"}}}}}, "is not a version"),
        (
            {"t": {**TRITON, "repository": {"../m": {"versions": {"1": "/x"}}}}},
            "is not a model's name",
        ),
        ({"t": {**TRITON, "options": {"http-port": 9}}}, "is set by inferbase|use the key port"),
        (
            {"g": {"kind": "sglang", "model": "a/b", "options": {"api-keys": "x"}}},
            f"{KEY}: use a gate",
        ),
        (
            {"t": {**TRITON, "options": {"trace-file": "x"}}},
            "has no such option any more|trace-config",
        ),
        (
            {"m": {"kind": "mlflow", "repository": TRITON["repository"]}},
            "repository: kind mlflow has no use for it|it is for kind triton",
        ),
        ({"m": {"kind": "mlflow", "options": {"backend-store-uri": "x"}}}, "use the key secrets"),
        (
            {"m": {"kind": "mlflow", "options": {"worker": 1}}},
            "no such option|did you mean workers",
        ),
        (
            {"m": {"kind": "mlflow", "runtime": "systemd", "capabilities": ["SYS_ADMIN"]}},
            "no effect with systemd",
        ),
        ({"n": {"kind": "node-exporter", "ports": {"x": 1}}}, "has no port x"),
        ({"n": {"kind": "node-exporter", "capabilities": ["cap_x"]}}, "is not a capability"),
        (
            {"n": {"kind": "node-exporter", "options": {"collector.sytemd": True}}},
            "collector.systemd",
        ),
        ({"j": {"kind": "jupyter"}}, "needs the secret JUPYTER_TOKEN"),
        (
            {"g": {"kind": "sglang", "model": "a/b", "options": {"api-key": "x"}}},
            "a gateway in front of it",
        ),
        (
            {"g": {"kind": "sglang", "model": "a/b", "options": {"context-len": 1}}},
            "context-length",
        ),
        ({"g": {"kind": "tgi", "model": "a/b", "files": {"../x": ""}}}, "is not a file name"),
    ],
)
def test_mistakes(services: dict[str, object], words: str, tmp_path: Path) -> None:
    (tmp_path / "inventory").mkdir()
    machine = {"address": "192.0.2.1", "services": services}
    (tmp_path / "inventory" / "m.yaml").write_text(yaml.safe_dump(machine))
    roots = Roots(render_cases.REPOSITORY, tmp_path)
    with pytest.raises(FleetErrors) as caught:
        load_fleet(roots)
    text = "\n".join(f"{error}\n{error.hint}" for error in caught.value.errors)
    for word in words.split("|"):
        assert word in text


def test_notices_stand_in_plans_that_start_the_service() -> None:
    release = render_cases.render_case("engines")
    assert list(release.notices) == ["tgi"]
    assert "maintenance mode" in release.notices["tgi"]
    fresh = make_plan(release, parse_observed(plan_cases.text([["end"]]), "/x"), Goal())
    assert [note for note in fresh.notes if "maintenance mode" in note] == [
        f"tgi: {release.notices['tgi']}"
    ]
    there = make_plan(release, parse_observed(plan_cases.applied(release), release.root), Goal())
    assert there.notes == ()


GGUF, REPOSITORY = "/m/a.gguf", "hf:Qwen/Qwen3-32B"
TOKEN = "ServerApp.token is set by inferbase: use the key secrets instead"
LLAMA = "kind llama-cpp takes one GGUF file, and "


@pytest.mark.parametrize(
    ("service", "words"),
    [
        (
            {"kind": "vllm", "model": "ollama:qwen3:8b"},
            (
                "services.s.model: kind vllm takes a directory of model files or one GGUF file, "
                "and ollama:qwen3:8b is a model of Ollama's own store|it is for kind ollama"
            ),
        ),
        ({"kind": "tgi", "model": GGUF}, "takes a directory of model files|for kind llama-cpp"),
        (
            {"kind": "llama-cpp", "model": REPOSITORY},
            (
                f"{LLAMA}{REPOSITORY} is a directory of model files|"
                f"name one file of it, as {REPOSITORY}/NAME.gguf; it is for kind sglang or vllm"
            ),
        ),
        (
            {"kind": "llama-cpp", "model": {"source": "file:/x/model.safetensors"}},
            f"services.s.model.source: {LLAMA}file:/x/model.safetensors is a file of another kind",
        ),
        ({"kind": "ollama", "model": GGUF}, "takes a model of Ollama's own store"),
        ({"kind": "triton", "model": "/m/x"}, "use repository or options.model-repository"),
        ({"kind": "triton"}, "kind triton needs one of repository, options.model-repository"),
        (
            {"kind": "ollama", "served-name": "x"},
            "services.s.served-name: names a model, and the service has none|add model",
        ),
        ({"kind": "open-webui", "model": REPOSITORY}, "kind open-webui serves no model of its own"),
        ({"kind": "mlflow", "served-name": "x"}, "served-name: kind mlflow serves no model"),
        ({"kind": "gateway", "model": REPOSITORY}, "kinds with a model: llama-cpp, sglang, tgi"),
        (
            {"kind": "vllm", "model": REPOSITORY, "modelfile": {"system": "x"}},
            "services.s.modelfile: kind vllm has no use for it|it is for kind ollama",
        ),
        (
            {"kind": "ollama", "options": {"num_ctx": 1}},
            "services.s.options: kind ollama has no use for it|use env",
        ),
        (
            {"kind": "ollama", "model": "a:b", "modelfile": {"system": "x"}},
            "needs a name of its own|add served-name, a name other than a:b",
        ),
        (
            {
                "kind": "ollama",
                "model": "a",
                "served-name": "a:latest",
                "modelfile": {"system": "x"},
            },
            "needs a name of its own",
        ),
        (
            {"kind": "vllm", "model": REPOSITORY, "options": {"chat-template": "files/none.jinja"}},
            "services.s.options.chat-template: files/none.jinja is not one of its files",
        ),
        (
            {"kind": "vllm", "model": REPOSITORY, "runtime": "systemd", "program": "vllm"},
            "services.s.program: is not an absolute path",
        ),
        (
            {"kind": "vllm", "model": REPOSITORY, "runtime": "systemd", "env": {"A": "a\x07"}},
            "services.s.env.A: the value of A has a control character",
        ),
        ({"kind": "vllm", "model": REPOSITORY, "served-name": "--evil"}, "is not a model's name"),
        ({"kind": "vllm", "model": "s3://b/k"}, "has the unknown scheme s3:"),
        ({"kind": "vllm", "model": REPOSITORY, "memory": "96GB"}, "write 96G, which is 1024 here"),
        ({"kind": "jupyter", "options": {"ServerApp.tokn": "x"}}, "no such option|" + TOKEN),
        ({"kind": "sglang", "model": "a/b", "options": {"tp": 2}}, "did you mean tp-size?"),
        ({"kind": "sglang", "model": "a/b", "options": {"pp": 2}}, "did you mean pp-size?"),
    ],
)
def test_what_a_kind_can_use(service: dict[str, object], words: str, tmp_path: Path) -> None:
    (tmp_path / "inventory").mkdir()
    (tmp_path / "inventory" / "m.yaml").write_text(yaml.safe_dump({"services": {"s": service}}))
    errors = load(Roots(render_cases.REPOSITORY, tmp_path)).errors
    assert all(error.where and error.where.line for error in errors)
    text = "\n".join(str(error) for error in errors)
    for word in words.split("|"):
        assert word in text


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"model_repository": "/m"}, ["did you mean model-repository?"]),
        ({"log-verbos": 1}, ["did you mean log-verbose?", "add repository"]),
        ({"model-control-mode": "poll"}, ["add repository"]),
    ],
)
def test_a_mistyped_option_is_told_once(
    options: dict[str, object], told: list[str], tmp_path: Path
) -> None:
    (tmp_path / "inventory").mkdir()
    service = {"kind": "triton", "options": options}
    (tmp_path / "inventory" / "m.yaml").write_text(yaml.safe_dump({"services": {"s": service}}))
    errors = load(Roots(render_cases.REPOSITORY, tmp_path)).errors
    assert sorted(error.hint for error in errors) == sorted(told)


def test_a_service_that_anybody_reaches_is_noted() -> None:
    base = {"kind": "vllm", "model": REPOSITORY}
    services = {
        "open": {**base, "bind": "0.0.0.0"},
        "near": {**base, "port": 1},
        "keyed": {**base, "port": 2, "bind": "10.0.0.1", "secrets": ["VLLM_API_KEY"]},
        "tgi": {"kind": "tgi", "model": REPOSITORY, "port": 3, "bind": "10.0.0.1"},
        "gate": {
            "kind": "gateway",
            "bind": "::",
            "gateway": {"keys": {"a": {"secret": "VLLM_API_KEY"}}},
        },
        "bare": {"kind": "gateway", "port": 5, "bind": "fd00::1"},
        "page": {"kind": "open-webui", "bind": "10.0.0.1", "secrets": ["WEBUI_SECRET_KEY"]},
    }
    secrets = {name: {"env": "X"} for name in ("VLLM_API_KEY", "WEBUI_SECRET_KEY")}
    machine = Machine.model_validate({"address": "m", "services": services, "secrets": secrets})
    fleet = replace(render_cases.fleet("workstation"), machines={"m": machine})
    notices = render_cases.render_fleet(fleet, "m").notices
    asks = "and asks for no key"
    assert notices == {
        "open": f"reachable from every network (0.0.0.0, port 8000) {asks}",
        "tgi": f"{fleet.kinds['tgi'].notice}; reachable from the network (10.0.0.1, port 3) {asks}",
        "bare": f"reachable from the network (fd00::1, port 5) {asks}",
    }
