"""The kinds that services/ ships."""

from __future__ import annotations

import re
from typing import get_args

import pytest
import render_cases
from pydantic import ValidationError

from inferfleet.capacity.engines.claim import ENGINES
from inferfleet.schema.kind import Engine, Kind

FLEET = render_cases.fleet("workstation")
CONTAINER = {"image": "x:1", "port": 80, "user": "1:1", "healthcheck": {"test": ["CMD", "true"]}}


NAMES = sorted(path.stem for path in (render_cases.REPOSITORY / "services").glob("*.yaml"))
CONTAINERS = [name for name in NAMES if FLEET.kinds[name].compose]


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers(name: str) -> None:
    compose = FLEET.kinds[name].compose
    assert compose is not None
    for image in filter(None, [compose.image, compose.image_cuda]):
        assert re.fullmatch(r"[a-z0-9./-]+:[A-Za-z0-9.-]*\d[A-Za-z0-9.-]*", image)
    assert compose.read_only or name == "tgi"  # see its file
    written = {"/tmp", *compose.tmpfs, *compose.volumes.values()}
    home = compose.environment.get("HOME", "/tmp")
    assert any(home == place or home.startswith(f"{place}/") for place in written)
    assert compose.healthcheck is not None


@pytest.mark.parametrize("name", NAMES)
def test_shipped(name: str) -> None:
    kind = FLEET.kinds[name]
    assert kind.default_port
    assert kind.health is not None
    assert kind.health.path.startswith("/")
    assert set(kind.options_managed) <= (kind.options_known or frozenset())
    assert set(kind.options.defaults) <= (kind.options_known or frozenset())
    assert not set(kind.options.removed) & (kind.options_known or frozenset())
    assert set(kind.options.short) <= (kind.options_known or frozenset())
    known = kind.options_known or frozenset()
    assert {*kind.options.paths, *kind.options.on_off, *kind.options.true_false} <= known
    assert {when.option for when in kind.probe_when} <= known
    assert kind.options.cpus is None or kind.options.cpus in known
    if known:
        assert kind.options.source
        assert len(known) == len(kind.options.known or [])
    if kind.metrics and kind.metrics.port:
        assert kind.compose is not None
        assert kind.metrics.port in kind.compose.ports
    assert set(kind.options.newer) <= (kind.options_known or frozenset())


def test_every_engine_has_rules_and_a_kind() -> None:
    assert set(get_args(Engine)) == set(ENGINES)
    assert {kind.engine for kind in FLEET.kinds.values()} - {None} == set(ENGINES)


def test_a_health_url_that_asks_the_engine_gets_its_own_time() -> None:
    """As much as the container's own check gives it."""
    units = render_cases.render_case("engines").units.values()
    seen = {unit.kind: unit.probe.health_timeout for unit in units if unit.probe}
    assert {kind: seen[kind] for kind in ("sglang", "tgi", "vllm", "llama-cpp")} == {
        "sglang": 10, "tgi": 10, "vllm": 5, "llama-cpp": 5,
    }  # fmt: skip


def test_runtimes() -> None:
    assert FLEET.kinds["llama-cpp"].runtimes == ("compose", "systemd", "process")
    assert FLEET.kinds["vllm"].runtimes == ("compose", "systemd")


@pytest.mark.parametrize("case", render_cases.NAMES)
def test_flags_are_flags_of_the_engine(case: str) -> None:
    """Every flag that a rendered command line holds stands in the engine's own list."""
    from inferfleet.services.resolve import resolve

    fleet = render_cases.fleet(case)
    machine = fleet.machines[f"case-{case}"]
    for name in machine.services:
        view = resolve(fleet, machine, name, "/opt/x", "/opt/x/models")
        known = view.kind.options_known
        for word in view.options:
            if known is not None and re.match(r"--?[a-z]", word):
                flag = word.lstrip("-").partition("=")[0]
                assert flag in known or flag.removeprefix("no-") in known, word


@pytest.mark.parametrize(
    "changes",
    [
        {"compose": None},
        {"compose": {**CONTAINER, "command": ["{modle}"]}},
        {"compose": {**CONTAINER, "environment": {"A": "{nothing}"}}},
        {"compose": {**CONTAINER, "user": "root"}},
        {"compose": {**CONTAINER, "privileged": True}},
    ],
)
def test_refused(changes: dict[str, object]) -> None:
    good = {"summary": "x", "api": "http", "compose": CONTAINER}
    Kind.model_validate(good)
    with pytest.raises(ValidationError):
        Kind.model_validate({**good, **changes})
