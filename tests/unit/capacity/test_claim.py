"""What services take of machines, by tables: amounts, limits and yields of each engine's rule."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from math import ceil
from typing import Any

import model_configs as real
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferfleet.capacity.engines import rules
from inferfleet.capacity.engines.bound import bound
from inferfleet.capacity.engines.claim import claim
from inferfleet.capacity.engines.given import Given
from inferfleet.capacity.shape.config import config_shape
from inferfleet.capacity.shape.shape import Shape, Weights
from inferfleet.capacity.term import Claim, Memory, Term

GIB = 1 << 30
QWEN = config_shape(real.QWEN3_32B)
QWEN_FP8 = config_shape(real.QWEN3_32B | {"quantization_config": real.FP8})
LLAMA = config_shape(real.LLAMA_8B)
HYBRID = config_shape(real.QWEN3_NEXT_80B)
WINDOWS = config_shape(real.GPT_OSS_20B)
SPARK = Memory(
    int(119.7 * GIB), int(119.7 * GIB), 1, unified=True, reserve=8 * GIB, bandwidth=273e9
)
H100 = Memory(256 * GIB, 94 * GIB, 1, bandwidth=3.9e12)
SMALL = Memory(64 * GIB, 16 * GIB, 1)
CPU = Memory(64 * GIB, bandwidth=90e9)


def terms(made: Claim) -> dict[str, Term]:
    return {term.name: term for term in made.terms}


def summed(made: Claim) -> float:
    """Terms in bytes but those of the host beside a GPU."""
    return sum(t.amount for t in made.terms if t.unit == "bytes" and t.name != "of the host")


def test_s4_on_a_spark() -> None:
    options = {"max-model-len": 32_000, "max-num-seqs": 64, "gpu-memory-utilization": 0.85}
    made = claim("vllm-qwen3-32b-fp8", "vllm", options, QWEN_FP8, SPARK)
    assert made.amount == ceil(SPARK.device * 0.85)
    assert summed(made) == pytest.approx(made.amount, abs=1)
    found = terms(made)
    assert found["weights"].amount / 1e9 == pytest.approx(34.3, abs=0.1)
    assert found["KV per token"].amount == 262_144
    # Its owner saw 66.25 GiB and 271,360 tokens; activations and graphs are estimates here.
    assert found["KV cache"].amount / GIB == pytest.approx(66.25, rel=0.03)
    assert found["KV tokens"].amount == pytest.approx(271_360, rel=0.03)
    assert found["bandwidth bound, one request"].amount == pytest.approx(8.3, abs=0.05)
    assert 300 < found["bandwidth bound, 64 requests"].amount < 400
    exact = claim(
        "x", "vllm", {**options, "kv-cache-memory-bytes": int(66.25 * GIB)}, QWEN_FP8, SPARK
    )
    assert terms(exact)["KV tokens"] == replace(
        terms(exact)["KV tokens"], amount=271_360, how="exact"
    )
    assert terms(exact)["KV cache"].amount == 66.25 * GIB


def test_both_services_of_s4_are_too_much_together() -> None:
    vllm = claim("a", "vllm", {"max-model-len": 32_000}, QWEN_FP8, SPARK)
    env = {"OLLAMA_NUM_PARALLEL": "8", "OLLAMA_KV_CACHE_TYPE": "q8_0"}
    ollama = claim("b", "ollama", {"num_ctx": 32_768}, QWEN_FP8, SPARK, env)
    assert not vllm.limits
    assert not ollama.limits
    assert vllm.amount is not None
    assert ollama.amount is not None
    assert vllm.amount + ollama.amount > SPARK.device
    assert terms(ollama)["KV cache"].amount == 8 * 32_768 * 262_144 * 34 // 64


# (kind, options, env, shape, memory, amount in GiB or None, words of a limit)
CLAIMS: list[tuple[str, dict[str, Any], dict[str, str], Shape | None, Memory, float | None, str]]
CLAIMS = [
    ("vllm", {}, {}, None, H100, 0.92 * 94, ""),
    ("vllm", {"gpu-memory-utilization": "0.5"}, {}, None, H100, 47, ""),
    ("vllm", {"kv-cache-memory-bytes": "8G"}, {}, None, H100, 8, ""),
    ("vllm", {"gpu-memory-utilization": -0.5}, {}, LLAMA, H100, None, "is -0.5, and has to be"),
    ("vllm", {"gpu-memory-utilization": 0}, {}, None, H100, None, "has to be above 0"),
    ("vllm", {"max-model-len": "abc"}, {}, LLAMA, H100, None, "max-model-len: 'abc' is no number"),
    ("sglang", {"mem-fraction-static": 1.5}, {}, LLAMA, H100, None, "at most 1"),
    ("sglang", {"mem-fraction-static": float("nan")}, {}, LLAMA, H100, None, "is no number"),
    ("tgi", {"cuda-memory-fraction": 2}, {}, LLAMA, H100, None, "at most 1"),
    ("vllm", {}, {}, None, Memory(0), None, ""),
    ("vllm", {}, {}, QWEN, SMALL, 0.92 * 16, "weights take 61.02 GiB of the 14.72 GiB"),
    ("vllm", {"max-model-len": 9000}, {}, LLAMA, SMALL, 0.92 * 16, "a request of max-model-len"),
    (
        "vllm", {"max-model-len": 131_072}, {}, LLAMA, replace(SMALL, device=24 * GIB), 22.08,
        "a request of max-model-len 131,072 needs 16 GiB of KV cache",
    ),
    ("vllm", {"max-model-len": "auto"}, {}, LLAMA, replace(SMALL, device=24 * GIB), 22.08, ""),
    ("vllm", {"max-model-len": "8K"}, {}, LLAMA, replace(SMALL, device=24 * GIB), 22.08, ""),
    ("vllm", {"tensor-parallel-size": 2}, {}, QWEN, replace(H100, gpus=2), 0.92 * 94, ""),
    ("llama-cpp", {}, {}, None, CPU, None, ""),
    ("llama-cpp", {"ctx-size": 4096, "ngl": "all"}, {}, LLAMA, SMALL, 15.1, ""),
    (
        "llama-cpp", {"ctx-size": 131_072, "n-gpu-layers": 99}, {}, LLAMA, SMALL, 30.6,
        "and a GPU has 16 GiB",
    ),
    ("llama-cpp", {"ctx-size": 131_072, "ngl": 0}, {}, LLAMA, SMALL, 31.5, ""),
    (
        "llama-cpp", {"c": 4096, "ctk": "q3"}, {}, LLAMA, CPU, None, "no cache type q3",
    ),
    ("sglang", {"mem-fraction-static": 0.8}, {}, None, H100, 0.8 * 94 + 12.1, ""),
    ("sglang", {"mem-fraction-static": 0.8}, {}, None, CPU, None, ""),
    ("tgi", {}, {}, LLAMA, H100, 94, ""),
    ("tgi", {}, {"CUDA_MEMORY_FRACTION": "0.5"}, LLAMA, H100, 47, ""),
    ("triton", {}, {}, LLAMA, H100, None, ""),
    ("open-webui", {}, {}, None, CPU, None, ""),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(CLAIMS)))
def test_claims(number: int) -> None:
    kind, options, env, shape, memory, gib, words = CLAIMS[number]
    made = claim("one", kind, options, shape, memory, env)
    assert made.service == "one"
    if gib is None:
        assert made.amount is None
    else:
        assert made.amount is not None
        assert made.amount / GIB == pytest.approx(gib, rel=0.02)
        if shape is not None and not words:
            assert summed(made) == pytest.approx(made.amount, abs=2)
    assert (words in " ".join(made.limits)) if words else not made.limits


def test_estimates_refuse_nothing() -> None:
    """Weights that just fit are not refused for the work space that is only estimated."""
    exact = replace(LLAMA, weights=Weights(21 * GIB))
    made = claim("a", "vllm", {"max-model-len": 1024}, exact, replace(SMALL, device=24 * GIB))
    assert not made.limits
    assert terms(made)["KV cache"].amount == 0
    made = claim("a", "vllm", {}, replace(LLAMA, weights=Weights(23 * GIB)), SMALL)
    assert made.limits


def test_vllm_on_a_cpu() -> None:
    made = claim("a", "vllm", {"max-model-len": 2048}, LLAMA, CPU, {"VLLM_CPU_KVCACHE_SPACE": "4"})
    assert made.pool == "host"
    assert terms(made)["KV tokens"].amount == 32_768
    assert terms(made)["KV tokens"].how == "exact"
    assert summed(made) == made.amount
    # The variable wins over the option, as in vLLM.
    option = {"kv-cache-memory-bytes": "1G"}
    both = claim("a", "vllm", option, LLAMA, CPU, {"VLLM_CPU_KVCACHE_SPACE": "4"})
    assert terms(both)["KV cache"].amount == 4 * GIB
    assert terms(claim("a", "vllm", option, LLAMA, CPU))["KV cache"].amount == GIB


def test_an_encoder_keeps_nothing() -> None:
    """BERT large: 335 million parameters and no cache, in vLLM no share of the GPU either."""
    bert = {
        "model_type": "bert", "hidden_size": 1024, "num_hidden_layers": 24, "vocab_size": 30522,
        "num_attention_heads": 16, "intermediate_size": 4096, "torch_dtype": "float32",
        "max_position_embeddings": 512, "type_vocab_size": 2,
    }  # fmt: skip
    shape = config_shape(bert)
    assert shape.parameters / 1e6 == pytest.approx(335, rel=0.01)
    made = claim("a", "vllm", {}, shape, H100)
    assert made.amount is not None
    assert made.amount < 3 * GIB
    assert summed(made) == made.amount
    assert "KV cache" not in terms(made)
    assert terms(claim("a", "llama-cpp", {}, shape, CPU))["KV cache"].amount == 0


# (options, weights in memory per byte of the files)
TYPES = [
    ({}, 1.0),
    ({"dtype": "float32"}, 2.0),
    ({"dtype": "float16"}, 1.0),
    ({"quantization": "fp8"}, (16.06 - 14.0 / 2 + 0) / 16.06),
]


@pytest.mark.parametrize(("options", "ratio"), TYPES)
def test_types_of_weights(options: dict[str, Any], ratio: float) -> None:
    made = claim("a", "vllm", options, LLAMA, H100)
    assert terms(made)["weights"].amount / LLAMA.weights.total == pytest.approx(ratio, abs=0.01)


def test_layers_that_do_not_fit_stay_on_the_host() -> None:
    """Without -ngl llama.cpp puts on the GPU what leaves a GiB of it free."""
    made = claim("a", "llama-cpp", {"ctx-size": 8192}, QWEN, SMALL)
    assert made.pool == "device"
    assert made.amount is not None
    assert 13 * GIB < made.amount <= 15 * GIB
    assert made.host > QWEN.weights.total - made.amount
    assert "of 64 layers" in terms(made)["weights"].formula
    whole = claim("a", "llama-cpp", {"ctx-size": 8192}, QWEN, H100)
    assert whole.host < 4 * GIB


def test_a_context_nobody_asked_for_shrinks() -> None:
    free = replace(SMALL, device=24 * GIB, free=20 * GIB)
    made = claim("a", "llama-cpp", {}, LLAMA, free)
    context = terms(made)["largest context"].amount
    assert 4096 <= context < 131_072
    assert made.amount is not None
    assert made.amount <= 19 * GIB
    assert terms(claim("a", "llama-cpp", {"fit": "off"}, LLAMA, free))[
        "largest context"
    ].amount == (131_072)


def test_experts_on_the_host() -> None:
    shape = config_shape(real.MORE["qwen3-30b-a3b"])
    everything = {"ctx-size": 4096, "ngl": "all"}
    whole = claim("a", "llama-cpp", everything, shape, H100)
    kept = claim("a", "llama-cpp", {**everything, "cpu-moe": True}, shape, H100)
    some = claim("a", "llama-cpp", {**everything, "n-cpu-moe": 12}, shape, H100)
    assert whole.amount is not None
    assert kept.amount is not None
    assert some.amount is not None
    assert whole.amount - kept.amount == pytest.approx(shape.weights.experts, rel=0.01)
    assert whole.amount - some.amount == pytest.approx(shape.weights.experts / 4, rel=0.01)
    assert kept.host - whole.host == pytest.approx(shape.weights.experts, rel=0.01)


def test_ollamas_context() -> None:
    def context(memory: Memory, **env: str) -> float:
        made = claim("a", "ollama", {}, replace(LLAMA, context=300_000), memory, env)
        return terms(made)["largest context"].amount

    assert context(CPU) == 4096
    assert context(replace(SMALL, device=24 * GIB, gpus=4)) == 262_144
    assert context(CPU, OLLAMA_CONTEXT_LENGTH="8192") == 8192
    assert rules.ollama_context(24 * GIB) == 32_768
    assert (rules.ollama_batch(4096), rules.ollama_batch(40_000)) == (512, 2048)


def test_sglangs_own_fraction() -> None:
    """An H100 of 80 GB: 10 GB at least are kept free of weights and cache."""
    chunk, graphs = rules.sglang_sizes(80 * GIB, 1)
    assert (chunk, graphs) == (8192, 256)
    assert rules.sglang_fraction(80 * GIB, 1, chunk, graphs) == 0.836
    assert rules.sglang_fraction(24 * GIB, 1, 2048, 24) == 0.847


def test_activations_as_a_log_says() -> None:
    """Llama-3-8B on an H100: 'PyTorch activation peak memory 1.26GiB'."""
    assert rules.activations(LLAMA, 8192, 256) / GIB == pytest.approx(1.26, rel=0.05)


def test_the_bound() -> None:
    assert bound(273e9, 32.8e9) == pytest.approx(8.32, abs=0.01)
    assert bound(100.0, 10.0, 10.0, 4) == 8.0
    assert bound(100.0, 0.0) == 0.0


def test_options_as_engines_read_them() -> None:
    values = Given(
        {"a_b": 1, "--c": "4K", "d": "1.5g", "e": ["x", "y"], "f": False, "no-g": True, "h": "off"},
        {"N": "3", "M": "x"},
    )
    assert values.whole("a-b") == 1
    assert values.whole("c") == 4096
    assert values.whole("d") == 1_500_000_000
    assert values.text("e") == "y"
    assert [values.flag(one, default=True) for one in "fghz"] == [False, False, False, True]
    assert (values.count("N", 0), values.count("M", 7), values.count("O", 8)) == (3, 7, 8)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["vllm", "llama-cpp", "ollama", "sglang", "tgi", "triton"]),
    st.dictionaries(
        st.sampled_from([
            "max-model-len", "max-num-seqs", "ctx-size", "parallel", "n-gpu-layers", "block-size",
            "kv-cache-dtype", "gpu-memory-utilization", "tensor-parallel-size", "cache-type-k",
            "num_ctx", "ubatch-size", "pipeline-parallel-size", "kv-cache-memory-bytes",
        ]),
        st.one_of(st.integers(-5, 10**7), st.text(max_size=6), st.booleans(), st.none()),
        max_size=5,
    ),
    st.sampled_from([QWEN, LLAMA, HYBRID, WINDOWS]),
    st.sampled_from([H100, SPARK, CPU, SMALL, Memory(0)]),
)  # fmt: skip
def test_whatever_the_options_there_is_an_answer(
    kind: str, options: dict[str, Any], shape: Shape, memory: Memory
) -> None:
    made = claim("a", kind, options, shape, memory)
    assert made.amount is None or made.amount >= 0
    assert all(term.amount >= 0 for term in made.terms)


def test_a_plan_imports_nothing_of_it() -> None:
    code = "import sys, inferfleet.tasks, inferfleet.plan.plan, inferfleet.run.run\n"
    code += "print([n for n in sys.modules if n.startswith('inferfleet.capacity.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
