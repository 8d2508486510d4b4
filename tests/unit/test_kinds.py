"""The kinds that services/ ships."""

from __future__ import annotations

import re

import pytest
import render_cases
from pydantic import ValidationError

from inferfleet.schema.kind import Kind

FLEET = render_cases.fleet("workstation")
CONTAINER = {"image": "x:1", "port": 80, "user": "1:1", "healthcheck": {"test": ["CMD", "true"]}}


@pytest.mark.parametrize("name", ["llama-cpp", "vllm", "ollama", "open-webui"])
def test_shipped(name: str) -> None:
    kind = FLEET.kinds[name]
    assert kind.compose is not None
    assert re.fullmatch(r"[a-z0-9./-]+:[A-Za-z0-9.-]*\d[A-Za-z0-9.-]*", kind.compose.image)
    assert kind.compose.read_only
    assert kind.default_port
    assert kind.health is not None
    assert kind.health.path.startswith("/")
    assert set(kind.options_managed) <= (kind.options_known or frozenset())
    assert set(kind.options.defaults) <= (kind.options_known or frozenset())
    assert not set(kind.options.removed) & (kind.options_known or frozenset())
    assert set(kind.options.short) <= (kind.options_known or frozenset())


def test_runtimes() -> None:
    assert FLEET.kinds["llama-cpp"].runtimes == ("compose", "systemd", "process")
    assert FLEET.kinds["vllm"].runtimes == ("compose", "systemd")


@pytest.mark.parametrize("case", render_cases.NAMES)
def test_flags_are_flags_of_the_engine(case: str) -> None:
    """Every flag that a rendered command line holds stands in the engine's own list."""
    from inferfleet.resolve import resolve

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
