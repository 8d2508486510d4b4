"""config.json -> shape, by a table of real models."""

from __future__ import annotations

from collections import Counter
from typing import Any

import model_configs as real
import pytest

from inferfleet.capacity.engines.kv import token_bytes
from inferfleet.capacity.shape.config import config_shape
from inferfleet.capacity.shape.shape import State
from inferfleet.errors import FleetError

# (config, parameters in 1e9 as their authors count them, bytes of cache per token, kinds)
TABLE: dict[str, tuple[dict[str, Any], float, int, dict[str, int]]] = {
    "qwen3-32b": (real.QWEN3_32B, 32.8, 262_144, {"full": 64}),
    "llama-8b": (real.LLAMA_8B, 8.03, 131_072, {"full": 32}),
    "deepseek-v3": (real.DEEPSEEK_V3, 671.0, 70_272, {"mla": 61}),
    "gpt-oss-20b": (real.GPT_OSS_20B, 20.9, 49_152, {"full": 12, "window": 12}),
    "gemma3-27b": (real.GEMMA3_27B, 27.0, 507_904, {"full": 10, "window": 52}),
    "qwen3-next": (real.QWEN3_NEXT_80B, 79.7, 24_576, {"full": 12, "linear": 36}),
    "granite-h": (real.GRANITE_H_SMALL, 32.2, 16_384, {"full": 4, "linear": 36}),
    "mixtral": (real.MORE["mixtral-8x7b"], 46.7, 131_072, {"full": 32}),
    "qwen3-30b-a3b": (real.MORE["qwen3-30b-a3b"], 30.5, 98_304, {"full": 48}),
    "gemma2-9b": (real.MORE["gemma2-9b"], 9.24, 344_064, {"full": 21, "window": 21}),
    "phi3-mini": (real.MORE["phi3-mini"], 3.82, 393_216, {"window": 32}),
    "jamba-mini": (real.MORE["jamba-mini"], 51.6, 16_384, {"full": 4, "linear": 28}),
}


@pytest.mark.parametrize("name", TABLE)
def test_real_models(name: str) -> None:
    config, parameters, token, kinds = TABLE[name]
    shape = config_shape(config)
    assert shape.parameters / 1e9 == pytest.approx(parameters, rel=0.005)
    assert token_bytes(shape) == token
    assert Counter(layer.attention for layer in shape.layers) == kinds
    assert shape.weights.how == "estimated"
    assert sum(shape.weights.layers) + shape.weights.embedding + shape.weights.output == (
        shape.weights.total
    )


AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128}
# What the files of these models have, in GB.
FILES = {
    "fp8 in blocks": (real.QWEN3_32B | {"quantization_config": real.FP8}, 34.3),
    "mxfp4 experts": (real.GPT_OSS_20B, 13.76),
    "fp8 experts": (real.DEEPSEEK_V3, 673.0),
    "awq": (real.LLAMA_8B | {"quantization_config": AWQ}, 5.73),
    "compressed": (
        real.LLAMA_8B
        | {
            "quantization_config": {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}},
            }
        },
        9.08,
    ),
    "nothing": (real.LLAMA_8B, 16.06),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_bytes_of_quantized_weights(name: str) -> None:
    config, gigabytes = FILES[name]
    assert config_shape(config).weights.total / 1e9 == pytest.approx(gigabytes, rel=0.01)


def test_s4_reads_what_its_owner_says() -> None:
    """32.8 GB per token of Qwen3-32B in FP8: all but the table of input tokens."""
    shape = config_shape(real.QWEN3_32B | {"quantization_config": real.FP8})
    assert shape.weights.read_per_token(0, 0) / 1e9 == pytest.approx(32.8, abs=0.05)


def test_only_experts_that_answer_are_read() -> None:
    shape = config_shape(real.MORE["qwen3-30b-a3b"])
    assert (shape.used, shape.experts) == (8, 128)
    weights = shape.weights
    one, all_ = weights.read_per_token(8, 128), weights.read_per_batch(8, 128, 10_000)
    assert one / 1e9 == pytest.approx(6.08, abs=0.01)
    assert weights.read_per_batch(8, 128, 1) == pytest.approx(one, rel=1e-6)
    assert all_ == pytest.approx(weights.total - weights.embedding, rel=1e-6)


def test_states() -> None:
    net = config_shape(real.QWEN3_NEXT_80B | {"mamba_ssm_dtype": "float32"}).layers[0].state
    assert net == State(kernel=4, inner=4096, groups=16, size=128, matrix_bytes=4)
    assert net is not None
    assert net.convolution() == 3 * (4096 + 2 * 16 * 128)
    assert net.matrix() == 32 * 128 * 128
    mamba2 = config_shape(real.GRANITE_H_SMALL).layers[0].state
    assert mamba2 == State(kernel=4, inner=8192, groups=1, size=128, kept=3)
    assert mamba2.convolution(2) == 3 * (8192 + 2 * 2 * 128) // 2  # groups repeated for two ranks
    assert config_shape(real.MORE["jamba-mini"]).layers[0].state == State(4, 8192, 0, 16)


FAMILIES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unused window": ({"sliding_window": 4096, "use_sliding_window": False}, ["full"] * 4),
    "mistral": ({"model_type": "mistral", "sliding_window": 4096}, ["window"] * 4),
    "pattern": (
        {"sliding_window": 8, "sliding_window_pattern": 2}, ["window", "full", "window", "full"],
    ),
    "late windows": (
        {"model_type": "qwen2", "sliding_window": 8, "use_sliding_window": True,
         "max_window_layers": 3},
        ["full", "full", "full", "window"],
    ),
    "shared": ({"num_kv_shared_layers": 2}, ["full", "full", "none", "none"]),
    "nemotron": (
        {"model_type": "nemotron_h", "hybrid_override_pattern": "M-*M", "mamba_num_heads": 2,
         "mamba_head_dim": 16, "n_groups": 1, "ssm_state_size": 16},
        ["linear", "none", "full", "linear"],
    ),
    "falcon-h1": (
        {"model_type": "falcon_h1", "mamba_d_ssm": 64, "mamba_n_groups": 1, "mamba_d_state": 16},
        ["full"] * 4,
    ),
    "lfm2": (
        {"model_type": "lfm2", "layer_types": ["conv", "conv", "full_attention", "conv"]},
        ["linear", "linear", "full", "linear"],
    ),
    "kimi": (
        {"model_type": "kimi_linear", "kv_lora_rank": 64, "qk_rope_head_dim": 16,
         "linear_attn_config": {"kda_layers": [1, 2, 3], "num_heads": 2, "head_dim": 16}},
        ["linear", "linear", "linear", "mla"],
    ),
    "mamba": ({"model_type": "mamba", "state_size": 16}, ["linear"] * 4),
    "expanded": (
        {"model_type": "minicpm3", "kv_lora_rank": 64, "qk_nope_head_dim": 32,
         "qk_rope_head_dim": 16, "v_head_dim": 32},
        ["full"] * 4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name: str) -> None:
    changes, kinds = FAMILIES[name]
    base = {
        "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 4, "vocab_size": 100, "intermediate_size": 128,
    }  # fmt: skip
    shape = config_shape(base | changes)
    assert [layer.attention for layer in shape.layers] == kinds
    assert all(layer.state for layer in shape.layers if layer.attention == "linear")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "empty": ({}, "num_hidden_layers"),
    "no heads": ({"num_hidden_layers": 2, "hidden_size": 8}, "num_attention_heads"),
    "too many layers": ({"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000"),
    "a word": ({"num_hidden_layers": "many"}, "not a size"),
    "negative": ({"num_hidden_layers": -1}, "not a size"),
    "unknown layers": (
        {"num_hidden_layers": 1, "hidden_size": 8, "layer_types": ["wobble"]}, "wobble",
    ),
    "other count": (
        {"num_hidden_layers": 2, "hidden_size": 8, "layer_types": ["full_attention"]}, "types of 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_config(name: str) -> None:
    config, words = BAD[name]
    with pytest.raises(FleetError, match=words):
        config_shape(config)
