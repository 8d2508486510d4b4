"""Capacity's arithmetic for Ollama against what a real one was recorded to reserve.

tests/cases/ollama/capacity.json has what it started llama-server with, and what that logged, for
the tiny models of tiny_gguf in several settings, on a machine without a GPU.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny_gguf
from engines.test_llama_capacity import MIB, ROUNDED, shape_of

from inferfleet.capacity.engines.claim import claim
from inferfleet.capacity.engines.given import Given
from inferfleet.capacity.engines.llama import ollama_slots
from inferfleet.capacity.shape.shape import Shape
from inferfleet.capacity.term import Memory

RECORDED = Path(__file__).parent.parent / "cases" / "ollama" / "capacity.json"
LOADED: list[dict[str, Any]] = json.loads(RECORDED.read_text())["loaded"]
MACHINE = Memory(host=24 << 30)
_KEPT = re.compile(r"(?:llama_kv_cache|llama_memory_recurrent): size = +([\d.]+) MiB")
_WORK = re.compile(r"sched_reserve: +CPU compute buffer size = +([\d.]+) MiB")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Shape]:
    folder = tmp_path_factory.mktemp("gguf")
    for name, make in tiny_gguf.MODELS.items():
        make(folder / f"{name}.gguf")
    return {name: shape_of(folder / f"{name}.gguf") for name in tiny_gguf.MODELS}


@pytest.mark.parametrize("one", LOADED, ids=[f"{one['model']}-{one['env']}" for one in LOADED])
def test_as_a_real_one_reserved(one: dict[str, Any], shapes: Mapping[str, Shape]) -> None:
    shape, options, env = shapes[one["model"]], one["options"], one["env"]
    slots = ollama_slots(shape, Given(options, env), MACHINE)
    words = f"-c {slots.context} -np {slots.slots} -b {slots.batch} -ub {slots.ubatch}"
    assert words == one["command"]
    assert slots.context // slots.slots == one["context_length"]
    made = claim("chat", "ollama", options, shape, MACHINE, env)
    terms = {term.name: term.amount for term in made.terms}
    log = "\n".join(one["log"])
    kept = [float(size) * MIB for size in _KEPT.findall(log)]
    assert kept
    assert terms["KV cache"] == pytest.approx(sum(kept), rel=0.001, abs=len(kept) * ROUNDED)
    work = max(float(size) for size in _WORK.findall(log)) * MIB
    assert 0.85 * work <= terms["compute buffer"] <= 2 * work


def test_every_architecture_and_setting_is_there() -> None:
    assert {one["model"] for one in LOADED} == set(tiny_gguf.MODELS)
    assert len({json.dumps([one["env"], one["options"]]) for one in LOADED}) == 4
