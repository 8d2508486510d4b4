"""Capacity's arithmetic against vLLM itself, on the CPU: tiny models with the ratios of real ones.

Heavy: `nox -s vllm` runs it, CI does not. The models have made-up weights; what is compared is
how vLLM divides its cache, which it decides before the first token.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny_configs
import vllm_caches
from testbed import vllm

from inferfleet.capacity.engines.claim import claim
from inferfleet.capacity.engines.given import Given
from inferfleet.capacity.engines.vllm_run import vllm_blocks
from inferfleet.capacity.shape.config import config_shape
from inferfleet.capacity.shape.shape import Shape
from inferfleet.capacity.term import Memory

pytestmark = pytest.mark.vllm

GIB = 1 << 30
LENGTH = 2048
BASE = {"max_model_len": LENGTH, "max_num_seqs": 8, "max_num_batched_tokens": 1024}
# (model, options beside BASE)
CASES: list[tuple[str, dict[str, Any]]] = [
    ("qwen3", {}),
    ("qwen3", {"dtype": "float32", "block_size": 64}),
    ("gemma3", {}),
    ("gemma2", {"max_num_batched_tokens": 2048}),
    ("mistral", {}),
    ("deepseek3", {}),
    ("qwen3-moe", {}),
    ("qwen3-next", {}),
    ("granite-hybrid", {}),
    ("granite-hybrid", {"enable_prefix_caching": False}),
    ("gemma3-defaults", {}),
    ("gemma4", {}),
    ("chatglm", {}),
    ("dbrx", {}),
    ("llama4", {}),
    ("zamba2", {}),
    ("nemotron-h", {}),
    ("mimo", {}),
]
# vLLM takes an FP8 cache only on processors that have this.
if "avx512f" in Path("/proc/cpuinfo").read_text().split():
    CASES.append(("qwen3", {"kv_cache_dtype": "fp8"}))


@pytest.fixture(scope="module")
def models(vllm_environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("configs")
    for name in tiny_configs.MODELS:
        tiny_configs.write_model(folder, name, vllm.models(vllm_environment) / "llama")
    return folder


@pytest.fixture(scope="module")
def answers(vllm_environment: Path, models: Path) -> list[Mapping[str, Any]]:
    """What vLLM makes of its cache of 1 GiB, for each case."""
    lines = [json.dumps({"model": str(models / name), **BASE, **more}) for name, more in CASES]
    env = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile() as told:
        done = subprocess.run(
            [vllm_environment / "bin" / "python", vllm_caches.__file__, str(told.fileno())],
            input="\n".join(lines),
            capture_output=True,
            text=True,
            env={**env, "VLLM_NO_USAGE_STATS": "1"},
            pass_fds=[told.fileno()],
            timeout=2400,
            check=False,
        )
        told.seek(0)
        found = [json.loads(line) for line in told]
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(found) == len(CASES)
    return found


def options(number: int) -> dict[str, Any]:
    return {key.replace("_", "-"): value for key, value in (BASE | CASES[number][1]).items()}


def shape(number: int, models: Path) -> Shape:
    name = CASES[number][0]
    return config_shape(json.loads((models / name / "config.json").read_text()), name)


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{n}-{o}" for n, o in CASES])
def test_vllm_divides_its_cache_so(
    number: int, models: Path, answers: list[Mapping[str, Any]]
) -> None:
    theirs, given = answers[number], options(number)
    assert "error" not in theirs
    if shape(number, models).of("mla"):
        # The block depends on the processor: 16 tokens, or 128 where it has AMX.
        given["block-size"] = theirs["block"]
    plan = vllm_blocks(shape(number, models), Given(given, {}), cpu=True)
    count = plan.count(GIB)
    assert plan.block == theirs["block"]
    if shape(number, models).of("window"):  # it matters to windows only
        assert plan.cache.running == theirs["in-flight"]
    assert not theirs["align"] or plan.cache.align
    # Exact: as many blocks, so as many bytes in each of them.
    assert count == theirs["blocks"]
    assert plan.tokens(count, LENGTH) == theirs["tokens"]
    assert plan.concurrency(count, LENGTH) == pytest.approx(theirs["concurrency"], rel=1e-6)


def test_a_claim_says_the_same(models: Path, answers: list[Mapping[str, Any]]) -> None:
    env = {"VLLM_CPU_KVCACHE_SPACE": "1"}
    made = claim("tiny", "vllm", options(0), shape(0, models), Memory(host=64 * GIB), env)
    terms = {term.name: term for term in made.terms}
    assert terms["KV tokens"].amount == answers[0]["tokens"]
    assert terms["KV per token"].amount == GIB / answers[0]["tokens"]
