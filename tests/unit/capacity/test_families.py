"""Families of models by their published config.json: figures counted by hand in family_configs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import family_configs
import model_configs as real
import pytest
from family_configs import FAMILIES

from inferfleet.capacity.engines.blocks import Cache, blocks
from inferfleet.capacity.engines.claim import claim
from inferfleet.capacity.engines.given import Given
from inferfleet.capacity.engines.kv import token_bytes
from inferfleet.capacity.engines.vllm_run import vllm_blocks
from inferfleet.capacity.shape import families
from inferfleet.capacity.shape.config import config_shape
from inferfleet.capacity.shape.shape import State
from inferfleet.capacity.term import Memory
from inferfleet.errors import FleetError

GIB = 1 << 30


@pytest.mark.parametrize("name", FAMILIES)
def test_bytes_of_a_token(name: str) -> None:
    config, token, kinds = FAMILIES[name]
    shape = config_shape(config)
    assert token_bytes(shape) == token
    assert Counter(layer.attention for layer in shape.layers) == kinds
    assert shape.kv == "exact"
    assert shape.notes in ((), ("weights of its vision or audio parts are not in the estimate",))


@pytest.mark.parametrize("name", family_configs.PARAMETERS)
def test_parameters(name: str) -> None:
    found = config_shape(FAMILIES[name][0]).parameters / 1e9
    assert found == pytest.approx(family_configs.PARAMETERS[name], rel=0.02)


# Numbers of a convolution's rows and of the matrix, counted by hand.
STATES: dict[str, tuple[State, int, int]] = {
    # 3 rows of 2 x 3584 + 2 x 2 x 64 channels; a matrix of 7168 x 64
    "zamba2-7b": (State(4, 7168, 2, 64, kept=3), 3 * 7424, 458_752),
    # 64 heads of 128 x 128, no convolution
    "minimax-text-01": (State(1, 8192, 0, 128), 0, 1_048_576),
    # 3 rows of 2560, one number a channel
    "recurrentgemma-2b": (State(4, 2560, 0, 1, 4), 3 * 2560, 2560),
    # 3 rows of 64 x 64 + 2 x 8 x 128; 4096 x 128 in 32 bits
    "nemotron-3-nano": (State(4, 4096, 8, 128, 4, kept=3), 3 * 6144, 524_288),
    # 32 heads of 128 x 128 in 32 bits; 3 rows of 3 x 4096
    "kimi-linear-48b": (State(4, 4096, 32, 128, 4), 3 * 12_288, 524_288),
    # mamba_d_head: auto is 2 x 4096 / 128
    "bamba-9b": (State(4, 8192, 1, 128, kept=3), 3 * 8448, 1_048_576),
    "falcon-h1-7b": (State(4, 3072, 1, 256, kept=3), 3 * 3584, 786_432),
    # 2 rows of 2048, no matrix
    "lfm2-1.2b": (State(3, 2048), 2 * 2048, 0),
    "qwen3.5-35b-a3b": (State(4, 4096, 16, 128, 4), 3 * 8192, 524_288),
}


@pytest.mark.parametrize("name", STATES)
def test_states(name: str) -> None:
    wanted, rows, matrix = STATES[name]
    found = next(layer.state for layer in config_shape(FAMILIES[name][0]).layers if layer.state)
    assert (found, found.convolution(), found.matrix()) == (wanted, rows, matrix)


CACHE_8_BITS = {"dynamic": False, "num_bits": 8, "type": "float"}
# (quantization_config, vLLM's cache type for auto, bytes per token of Llama 3 8B: 131,072 in 16
# bits)
QUANTIZED: dict[str, tuple[dict[str, Any], str, int]] = {
    "modelopt, a scheme": (
        {"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_scheme": CACHE_8_BITS},
        "fp8_e4m3", 65_536,
    ),
    "modelopt, an algorithm": (
        {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"},
        "fp8_e4m3", 65_536,
    ),
    "hf_quant_config.json": (
        {"producer": {"name": "modelopt"},
         "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}},
        "fp8_e4m3", 65_536,
    ),
    # 32 layers x 8 heads x 2 x (64 + 8)
    "modelopt, fp4": (
        {"quant_method": "modelopt_fp4", "quant_algo": "NVFP4", "kv_cache_quant_algo": "NVFP4"},
        "nvfp4", 36_864,
    ),
    "compressed-tensors": (
        {"quant_method": "compressed-tensors", "kv_cache_scheme": CACHE_8_BITS}, "fp8", 65_536,
    ),
    "compressed-tensors without": (
        {"quant_method": "compressed-tensors", "kv_cache_scheme": None}, "", 131_072,
    ),
    "fp8 weights alone": ({"quant_method": "fp8"}, "", 131_072),
    "unknown": (
        {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_scheme": {"num_bits": 3}},
        "", 131_072,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", QUANTIZED)
def test_a_quantization_says_the_cache_type(name: str) -> None:
    quant, kind, token = QUANTIZED[name]
    shape = config_shape(real.LLAMA_8B | {"quantization_config": quant})
    assert (shape.cache_type, token_bytes(shape)) == (kind, token)
    asked = vllm_blocks(shape, Given({"kv-cache-dtype": "auto"}, {}))
    assert asked.bytes == token * 16
    # What the service asks for stands.
    told = vllm_blocks(shape, Given({"kv-cache-dtype": "bfloat16"}, {}))
    assert told.bytes == 131_072 * 16


def test_a_sparse_latent_is_packed_in_fp8() -> None:
    """DeepSeek V3.2: 656 bytes of a latent with its scales, 132 of the indexer's key."""
    shape = config_shape(FAMILIES["deepseek-v3.2"][0])
    assert token_bytes(shape, "fp8") == 61 * (656 + 132)
    assert blocks(shape, Cache(block=64)).bytes == 61 * (1152 + 132) * 64


def test_indexers_may_be_shared() -> None:
    """Every fourth layer from the second on has an indexer, and so have those before."""
    config = FAMILIES["deepseek-v3.2"][0] | {"num_hidden_layers": 10}
    shape = config_shape(config | {"index_topk_freq": 4})
    assert [place for place, one in enumerate(shape.layers) if one.index] == [0, 1, 5, 9]
    shape = config_shape(config | {"index_topk_pattern": "FSSSF"})
    assert [place for place, one in enumerate(shape.layers) if one.index] == [0, 4, 5, 6, 7, 8, 9]


def test_a_null_stands_against_the_default() -> None:
    config = {"model_type": "mistral", "torch_dtype": "bfloat16"}
    assert {layer.window for layer in config_shape(config).layers} == {4096}
    assert not config_shape(config | {"sliding_window": None}).of("window")
    assert config_shape(config).layers[0].heads == 8
    assert config_shape(config | {"num_key_value_heads": None}).layers[0].heads == 32


def test_an_unknown_family_refuses_nothing() -> None:
    """The same figures, said to be a guess: neither its weights nor its cache are in the way."""
    known = real.LLAMA_8B
    memory = Memory(host=64 * GIB, device=24 * GIB, gpus=1)
    options = {"max-model-len": 131072}
    limits = claim("a", "vllm", options, config_shape(known), memory).limits
    assert "needs 16 GiB of KV cache" in limits[0]
    guess = config_shape(known | {"model_type": "wobbly"})
    assert guess.kv == "estimated"
    assert "the family wobbly is not known here" in guess.notes[0]
    made = claim("a", "vllm", options, guess, memory)
    assert made.limits == ()
    terms = {term.name: term for term in made.terms}
    assert terms["KV per token"].amount == 131_072
    assert {terms[name].how for name in ("KV per token", "KV tokens", "weights")} == {"estimated"}
    small = Memory(host=64 * GIB, device=8 * GIB, gpus=1)
    assert claim("a", "vllm", options, config_shape(known), small).limits
    assert claim("a", "vllm", options, guess, small).limits == ()


def test_a_cache_that_depends_on_the_gpu_refuses_nothing() -> None:
    shape = config_shape({"model_type": "glm_moe_dsa", "num_hidden_layers": 3})
    assert shape.kv == "estimated"
    assert "Blackwell" in shape.notes[0]
    assert token_bytes(shape) == 3 * (576 * 2 + 132)


def test_text_parts_have_the_defaults_of_their_kind() -> None:
    inside = {"model_type": "idefics3", "text_config": {"num_hidden_layers": 2}}
    assert config_shape(inside).layers[0].heads == 32
    assert config_shape(inside).kv == "exact"


def test_the_table() -> None:
    assert all(families.known(family) for family in families.INSIDE.values())
    assert families.defaults("gemma3")["head_dim"] == 256
    assert families.defaults("gemma3")["tie_word_embeddings"] is True
    assert families.defaults("qwen3")["use_sliding_window"] is False
    assert families.defaults("internlm2") == {}
    assert families.defaults("wobbly") == {}
    assert not families.known("wobbly")
    for line in families.TABLE.splitlines():
        if line and line[0] != "#":
            assert len(line.split()) in (1, 15)
            assert config_shape_or_words(line.split()[0])


def config_shape_or_words(family: str) -> bool:
    """Whether the defaults alone make a shape, or are told to be too little."""
    try:
        return bool(config_shape({"model_type": family}).layers)
    except FleetError as error:
        return "says no" in error.what or "does not say" in error.what
