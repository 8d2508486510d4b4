"""Fixtures of the tests with real engines, and with what stands for one that cannot be had."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed import ollama_image, vllm
from testbed.machine import TestMachine
from testbed.session import Testbed, unavailable


def need(reason: str | None) -> None:
    """Skip for a reason why something cannot be had; in CI that is a failure."""
    if reason and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def ollama_tag() -> str:
    """The image that answers as Ollama does, in this machine's own Docker daemon."""
    need(unavailable())
    return ollama_image.image()


@pytest.fixture(scope="session")
def vllm_environment() -> Path:
    """vLLM's virtual environment; `nox -s vllm` builds it."""
    found = vllm.environment()
    if found is None:
        pytest.skip(f"needs vLLM: run `nox -s vllm`, or name its environment in {vllm.VARIABLE}")
    return found


@pytest.fixture(scope="module")
def vllm_machine(
    vllm_environment: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestMachine]:
    """A machine that sees the environment, its interpreter and the tiny models, read-only."""
    need(unavailable())
    bed = Testbed(tmp_path_factory.mktemp("vllm"), binds=vllm.binds(vllm_environment))
    try:
        machine = bed.machine()
        vllm.install_libraries(machine)
        yield machine
    finally:
        bed.close()
