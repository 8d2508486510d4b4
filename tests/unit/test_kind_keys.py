"""Machine file keys that only some kinds have a use for: mistakes are told with their place."""

from __future__ import annotations

from pathlib import Path

import plan_cases
import pytest
import render_cases
import yaml

from inferfleet.errors import FleetErrors
from inferfleet.load.load import load_fleet
from inferfleet.observe.observed import parse_observed
from inferfleet.paths import Roots
from inferfleet.plan.plan import Goal, make_plan

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
            {"t": {**TRITON, "options": {"trace-file": "x"}}},
            "has no such option any more|trace-config",
        ),
        (
            {"m": {"kind": "mlflow", "repository": TRITON["repository"]}},
            "kind mlflow has no model repository",
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
