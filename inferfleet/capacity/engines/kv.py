"""Bytes that one layer of a model keeps per token, in each engine's own types."""

from __future__ import annotations

from inferfleet.capacity.shape.gguf_types import CACHE_TYPES
from inferfleet.capacity.shape.shape import Layer, Shape, State
from inferfleet.errors import FleetError

# Bytes of one number in vLLM's cache (STR_DTYPE_TO_TORCH_DTYPE in vllm/utils/torch_utils.py).
VLLM_TYPES = {
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "half": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
    "fp8_inc": 1,
}
# Data and one fp32 scale per head and token (TritonAttentionBackend.customize_spec).
VLLM_SCALED = {"int8_per_token_head": 2, "fp8_per_token_head": 2, "int4_per_token_head": 1}
# One token's latent, positions and scales together (MLAAttention.get_kv_cache_spec).
VLLM_LATENT = {"fp8_ds_mla": 656, "nvfp4_ds_mla": 352}
STATE_BYTES = 4  # llama.cpp keeps states in f32, whatever the cache's type


def vllm_token(layer: Layer, cache: str, own: int, shards: int = 1) -> int:
    """Bytes per token of one layer on one of `shards` tensor parallel ranks in vLLM.

    heads * (key + value) * bytes (v1/kv_cache_interface.py AttentionSpec), heads being KV heads
    / shards and at least one: ranks beyond the KV heads repeat them. MLA keeps one vector of
    latent + rope numbers for keys and values together, whole on every rank (MLAAttentionSpec), and
    beside it the keys of a sparse attention's indexer in a type of their own; with an FP8 cache
    such a latent is packed (_canonicalize_sparse_mla_kv_cache_dtype).
    own: bytes of a number of the model itself, which `auto` takes.

    Raises FleetError for a cache type whose layout is not known here.
    """
    if layer.attention in ("none", "linear"):
        return 0
    if layer.attention == "mla":
        if layer.index and cache in ("fp8", "fp8_e4m3"):
            cache = "fp8_ds_mla"
        if cache in VLLM_LATENT:
            return VLLM_LATENT[cache] + layer.index
        return (layer.latent + layer.rope) * _vllm_bytes(cache, own) + layer.index
    heads = max(layer.heads // shards, 1)
    if cache in VLLM_SCALED:
        return heads * ((layer.key + layer.value) * VLLM_SCALED[cache] // 2 + 2 * 4)
    if cache.startswith("nvfp4") and cache not in VLLM_LATENT:
        # fp4 numbers and one fp8 scale for 16 of them (nvfp4_kv_cache_full_dim).
        return heads * sum(size // 2 + size // 16 for size in (layer.key, layer.value))
    return heads * (layer.key + layer.value) * _vllm_bytes(cache, own)


def _vllm_bytes(cache: str, own: int) -> int:
    if cache == "auto":
        return own
    if cache not in VLLM_TYPES:
        raise FleetError(f"the size of vLLM's cache type {cache} is not known")
    return VLLM_TYPES[cache]


def vllm_state(state: State, own: int, shards: int = 1, convolution: int = 0) -> int:
    """Bytes per request of a state in vLLM (MambaStateShapeCalculator, MambaSpec).

    convolution: bytes of a number of its rows, 0: the model's own.
    """
    return state.convolution(shards) * (convolution or own) + state.matrix(shards) * (
        state.matrix_bytes or own
    )


def llama_row(numbers: int, kind: str) -> int:
    """Bytes of a row of numbers in a type of llama.cpp's cache, such as q8_0: 34 for each 32.

    Raises FleetError for other types and for rows that are no whole blocks.
    """
    if kind not in CACHE_TYPES:
        raise FleetError(
            f"llama.cpp has no cache type {kind}", f"it has {', '.join(sorted(CACHE_TYPES))}"
        )
    block, size = CACHE_TYPES[kind]
    if numbers % block:
        raise FleetError(
            f"a cache of type {kind} needs heads whose sizes are multiples of {block}; "
            f"this model has rows of {numbers}",
            "use f16",
        )
    return numbers // block * size


def llama_token(layer: Layer, keys: str = "f16", values: str = "f16") -> int:
    """Bytes per cell of one layer in llama.cpp (llama_kv_cache's tensors K and V).

    MLA keeps latent + rope numbers as the key and no value: values are a view of the keys.
    """
    if layer.attention in ("none", "linear"):
        return 0
    if layer.attention == "mla":
        return llama_row(layer.latent + layer.rope, keys)
    return llama_row(layer.heads * layer.key, keys) + llama_row(layer.heads * layer.value, values)


def llama_state(state: State) -> int:
    """Bytes per slot of a state in llama.cpp (llama_memory_recurrent's tensors R and S)."""
    return (state.convolution() + state.matrix()) * STATE_BYTES


def token_bytes(shape: Shape, cache: str = "auto", shards: int = 1) -> int:
    """Bytes that one more token costs a request in vLLM while every layer still looks back to it.

    The sum over layers; a sliding window's layers stop growing at their window.
    """
    if cache == "auto" and shape.cache_type:
        cache = shape.cache_type
    return sum(vllm_token(layer, cache, shape.dtype_bytes, shards) for layer in shape.layers)
