"""Weights that are not in memory as they are in files: quantized, spread, moved, or not known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import model_configs as real
import pytest

from inferfleet.capacity.engines.claim import claim
from inferfleet.capacity.shape.config import config_shape
from inferfleet.capacity.shape.safetensors import sized_shape
from inferfleet.capacity.shape.shape import Shape, Weights
from inferfleet.capacity.term import Claim, Memory

GIB = 1 << 30
QWEN = config_shape(real.QWEN3_32B)
LLAMA = config_shape(real.LLAMA_8B)
DEEPSEEK = config_shape(real.DEEPSEEK_V3)
A40 = Memory(256 * GIB, 48 * GIB, 1)
LARGE = Memory(2048 * GIB, 139 * GIB, 8)


def quantized(**config: Any) -> Shape:
    return config_shape(real.QWEN3_32B | {"quantization_config": config})


def weights(made: Claim) -> float:
    return next(term.amount for term in made.terms if term.name == "weights")


@pytest.mark.parametrize("value", ["auto", "AUTO", "Auto", -1, "-1"])
def test_the_longest_context_that_fits_is_held_to_nothing(value: object) -> None:
    memory = replace(A40, device=24 * GIB)
    assert claim("a", "vllm", {"max-model-len": 131_072}, LLAMA, memory).limits
    assert claim("a", "vllm", {"max-model-len": value}, LLAMA, memory).limits == ()


# (kind, options, env, GiB of weights)
ONLINE: list[tuple[str, dict[str, Any], dict[str, str], float]] = [
    ("vllm", {"quantization": "fp8"}, {}, 32.0),
    ("vllm", {"quantization": "BitsAndBytes"}, {}, 19.3),
    ("vllm", {"q": "bitsandbytes"}, {}, 19.3),
    ("sglang", {"quantization": "fp8"}, {}, 32.0),
    ("sglang", {"quantization": "bitsandbytes"}, {}, 19.3),
    ("tgi", {"quantize": "fp8"}, {}, 32.0),
    ("tgi", {"quantize": "eetq"}, {}, 32.0),
    ("tgi", {"quantize": "bitsandbytes"}, {}, 32.0),
    ("tgi", {"quantize": "bitsandbytes-nf4"}, {}, 19.3),
    ("tgi", {}, {"QUANTIZE": "bitsandbytes-fp4"}, 19.3),
]


@pytest.mark.parametrize(("kind", "options", "env", "expected"), ONLINE)
def test_quantized_at_the_start(
    kind: str, options: dict[str, Any], env: dict[str, str], expected: float
) -> None:
    """Qwen3-32B has 61 GiB in 16 bits, of which 2.9 are tables that stay so."""
    plain = {"max-model-len": 4096} if kind == "vllm" else {}
    assert claim("a", kind, plain, QWEN, A40).limits
    made = claim("a", kind, {**plain, **options}, QWEN, A40, env)
    assert made.limits == ()
    assert made.unknown == ""
    assert weights(made) / GIB == pytest.approx(expected, abs=0.3)
    assert made.least is not None
    assert made.least <= A40.device


@pytest.mark.parametrize(
    ("kind", "options", "method"),
    [
        ("vllm", {"quantization": "torchao"}, "torchao"),
        ("vllm", {"quantization-config": {"a": 1}}, "quantization-config"),
        ("sglang", {"torchao-config": "int4wo-128"}, "torchao-config"),
        ("sglang", {"quantization": "w8a8_int8"}, "w8a8_int8"),
        ("tgi", {"quantize": "exl2"}, "exl2"),
    ],
)
def test_quantized_in_a_way_that_is_not_known(
    kind: str, options: dict[str, Any], method: str
) -> None:
    made = claim("a", kind, {"max-model-len": 4096, **options}, QWEN, A40)
    assert made.limits == ()
    assert made.unknown == f"its weights after {method} are not known"
    own = claim("a", kind, {"max-model-len": 4096, **options}, quantized(**real.FP8), A40)
    assert own.unknown == ""


def test_quantization_that_is_none() -> None:
    for kind, options in (
        ("vllm", {"quantization": "none", "max-model-len": 4096}),
        ("sglang", {"torchao-config": ""}),
        ("tgi", {"quantize": None}),
    ):
        made = claim("a", kind, options, QWEN, A40)
        assert "weights take 61.02 GiB" in made.limits[0]
        assert made.unknown == ""


def test_experts_spread_over_replicas() -> None:
    """Data parallel replicas share one set of experts, whichever machine they are on."""
    options = {"data-parallel-size": 8, "max-model-len": 4096}
    made = claim("a", "vllm", options, DEEPSEEK, LARGE)
    files = DEEPSEEK.weights
    assert made.limits == ()
    assert weights(made) == pytest.approx(files.total - files.experts * 7 / 8, abs=8)
    assert "experts / 8" in made.terms[0].formula
    assert claim("a", "vllm", {**options, "data-parallel-size": 2}, DEEPSEEK, LARGE).limits
    two = {**options, "data-parallel-size": 4, "tensor-parallel-size": 2}
    half = claim("a", "vllm", two, DEEPSEEK, LARGE)
    assert weights(half) == pytest.approx((files.total - files.experts * 3 / 4) / 2, abs=8)
    far = {**options, "data-parallel-size": 16, "data-parallel-size-local": 8}
    spread = claim("a", "vllm", far, DEEPSEEK, LARGE)
    assert weights(spread) == pytest.approx(files.total - files.experts * 15 / 16, abs=8)
    # A model without experts is whole in each.
    dense = claim("a", "vllm", {"data-parallel-size": 8}, LLAMA, LARGE)
    assert weights(dense) == LLAMA.weights.total


# (kind, options that are refused, what moves weights elsewhere)
MOVED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("llama-cpp", {"ngl": 99, "c": 4096}, {"override-tensor": "exps=CPU"}),
    ("llama-cpp", {"ngl": 99, "c": 4096}, {"ot": ["exps=CPU"]}),
    ("llama-cpp", {"ngl": 99, "c": 4096}, {"rpc": "10.0.0.2:50052"}),
    ("llama-cpp", {"ngl": 99, "c": 4096}, {"n-cpu-ffn": 20}),
    ("llama-cpp", {"ngl": 99, "c": 4096}, {"ncffn": 20}),
    ("sglang", {}, {"cpu-offload-gb": 40}),
    ("sglang", {}, {"offload-group-size": 4}),
    ("sglang", {}, {"kt-num-gpu-experts": 8}),
    ("vllm", {"max-model-len": 4096}, {"offload-group-size": 4}),
    ("vllm", {"max-model-len": 4096}, {"offload_backend": "prefetch"}),
]


@pytest.mark.parametrize(("kind", "options", "more"), MOVED)
def test_moved_off_the_gpu(kind: str, options: dict[str, Any], more: dict[str, Any]) -> None:
    """Nothing of the weights is certain then, however they were read."""
    shape = replace(QWEN, weights=Weights(61 * GIB))
    off = claim("a", kind, {**options, **dict.fromkeys(more, 0)}, shape, A40)
    assert claim("a", kind, options, shape, A40).limits == off.limits != ()
    made = claim("a", kind, {**options, **more}, shape, A40)
    assert made.limits == ()
    assert made.amount is not None
    assert made.least is not None
    assert made.least <= A40.device
    assert next(term for term in made.terms if term.name == "weights").how == "estimated"


def test_llama_without_devices() -> None:
    made = claim("a", "llama-cpp", {"ngl": 99, "c": 4096, "device": "none"}, QWEN, A40)
    assert (made.pool, made.limits) == ("host", ())
    small = replace(A40, host=48 * GIB)
    assert claim("a", "llama-cpp", {"c": 4096, "dev": "none"}, QWEN, small).limits
    far = claim("a", "llama-cpp", {"c": 4096, "rpc": "h:1"}, QWEN, Memory(48 * GIB))
    assert (far.limits, far.least) == ((), 0)


@pytest.mark.parametrize(
    "config",
    [
        {"quant_method": "quark"},
        {"quant_method": "hqq", "nbits": 4},
        {"bits": 4},
        {"quant_method": "modelopt", "quant_algo": "W4A16_AWQ"},
        {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "MIXED_PRECISION"}},
    ],
)
def test_a_method_that_is_not_known(config: dict[str, Any]) -> None:
    """Its weights are counted in 16 bits, and refuse nothing until files say what they are."""
    shape = quantized(**config)
    assert shape.weights.total == QWEN.weights.total
    assert any("how its weights are quantized is not known" in note for note in shape.notes)
    for kind in ("vllm", "sglang", "tgi"):
        made = claim("a", kind, {"max-model-len": 4096}, shape, A40)
        assert made.limits == ()
        assert made.least is not None
        assert made.least <= A40.device
    read = sized_shape(shape, 60 * GIB)
    assert read.notes == ()
    assert claim("a", "vllm", {"max-model-len": 4096}, read, A40).limits


def test_methods_that_are_known_refuse() -> None:
    memory = replace(A40, device=16 * GIB)
    for config in (real.FP8, {"quant_method": "modelopt", "quant_algo": "NVFP4"}):
        shape = quantized(**config)
        assert shape.notes == ()
        assert claim("a", "vllm", {"max-model-len": 4096}, shape, memory).limits
