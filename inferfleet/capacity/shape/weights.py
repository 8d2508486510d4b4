"""Weights estimated from a config.json: parameters of each part, bytes after quantization.

Norms, biases and scales of whole tensors are left out where they are below a thousandth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inferfleet.capacity.shape.fields import Fields
from inferfleet.capacity.shape.shape import Layer, Weights

# Two matrices instead of three in an MLP: no gate.
PLAIN = (
    "gpt2", "gpt_neox", "gptj", "gpt_bigcode", "opt", "phi", "starcoder2", "nemotron", "nemotron_h",
    "falcon", "bloom", "mpt", "codegen", "persimmon", "apertus", "arcee", "bert", "roberta",
    "xlm-roberta", "mpnet", "electra", "camembert",
)  # fmt: skip
# Input and output share their matrix in these families even where the config does not say so.
TIED = ("gemma", "gemma2", "gemma3", "gemma3n", "gemma4", "gpt2", "cohere", "cohere2", "bloom")


@dataclass(frozen=True)
class Part:
    """Parameters of one layer: `plain` are not quantized (routers, states, norms)."""

    dense: int = 0
    experts: int = 0
    plain: int = 0

    @property
    def all(self) -> int:
        return self.dense + self.experts + self.plain


def quantization(quant: Mapping[str, Any]) -> str:
    """The method's name, or ""."""
    name = quant.get("quant_method") or quant.get("quant_algo") or ""
    return str(name).lower().replace("_", "-")


def parameters(fields: Fields, layers: Sequence[Layer]) -> int:
    """All parameters, input and output matrices included."""
    table, output = _tables(fields)
    return table + output + sum(part.all for part in _parts(fields, layers))


def config_weights(
    fields: Fields, layers: Sequence[Layer], quant: Mapping[str, Any], stored: int
) -> Weights:
    """Bytes of a model whose numbers are `stored` bytes long where they are not quantized."""
    table, output = _tables(fields)
    dense, expert = _bytes(quant, stored)
    parts = _parts(fields, layers)
    each = tuple(
        int(part.dense * dense + part.experts * expert + part.plain * stored) for part in parts
    )
    return Weights(
        total=table * stored + output * stored + sum(each),
        embedding=table * stored,
        output=output * stored,
        experts=int(sum(part.experts for part in parts) * expert),
        tied=not output,
        layers=each,
        how="estimated",
    )


def _tables(fields: Fields) -> tuple[int, int]:
    hidden = fields.number("hidden_size", "n_embd", "d_model")
    table = hidden * fields.first("vocab_size", "padded_vocab_size")
    if fields.family in PLAIN and fields.given("type_vocab_size"):
        return table, 0  # encoders have no output matrix
    tied = fields.yes("tie_word_embeddings", fields.family in TIED)
    return table, 0 if tied else table


def _bytes(quant: Mapping[str, Any], stored: int) -> tuple[float, float]:
    """Bytes of one parameter of a linear layer, and of one in an expert."""
    method = quantization(quant)
    group = _int(quant.get("group_size"), 128)
    if method in ("fp8", "fbgemm-fp8", "modelopt", "modelopt-fp8") and "FP4" not in _algo(quant):
        blocks = _area(quant.get("weight_block_size"))
        return (1 + (4 / blocks if blocks else 0),) * 2
    if method in ("awq", "gptq", "auto-round", "gptq-marlin", "awq-marlin"):
        # A 16 bit scale and a zero point for each group.
        bits = _int(quant.get("bits") or quant.get("w_bit"), 4)
        return ((bits + ((16 + bits) / group if group > 0 else 0)) / 8,) * 2
    if method == "compressed-tensors":
        return (_compressed(quant, stored),) * 2
    if method in ("modelopt", "modelopt-fp4", "nvfp4"):
        return ((4 + 8 / 16) / 8,) * 2
    if method == "mxfp4":
        # Experts only; 32 numbers of 4 bits share a scale of 8.
        return stored, (4 + 8 / 32) / 8
    if method == "bitsandbytes":
        return (1.0 if quant.get("load_in_8bit") else 0.5 + 4 / 64,) * 2
    return float(stored), float(stored)


def _compressed(quant: Mapping[str, Any], stored: int) -> float:
    groups = quant.get("config_groups")
    for one in groups.values() if isinstance(groups, Mapping) else ():
        weights = one.get("weights") if isinstance(one, Mapping) else None
        if isinstance(weights, Mapping):
            bits = _int(weights.get("num_bits"), 8)
            group = _int(weights.get("group_size"), 0)
            scale = 8 if weights.get("type") == "float" and bits == 4 else 16
            return (bits + (scale / group if group > 0 else 0)) / 8
    return float(stored)


def _parts(fields: Fields, layers: Sequence[Layer]) -> list[Part]:
    hidden = fields.number("hidden_size", "n_embd", "d_model")
    parts = []
    for place, layer in enumerate(layers):
        dense = experts = plain = 0
        if layer.attention != "linear":
            dense += _attention(fields, layer, hidden)
        if layer.state:
            dense += _state(layer, hidden)
        mlp = _mlp(fields, place, layer, hidden)
        parts.append(Part(dense + mlp.dense, experts + mlp.experts, plain + mlp.plain + 2 * hidden))
    return parts


def _attention(fields: Fields, layer: Layer, hidden: int) -> int:
    queries = fields.first("num_attention_heads", "n_head", "n_heads", "num_heads")
    latent = fields.first("kv_lora_rank")
    if latent and fields.given("qk_nope_head_dim"):
        nope, rope = fields.first("qk_nope_head_dim"), fields.first("qk_rope_head_dim")
        value = fields.first("v_head_dim", default=nope)
        low = fields.first("q_lora_rank")
        query = (
            (hidden + queries * (nope + rope)) * low if low else hidden * queries * (nope + rope)
        )
        kept = hidden * (latent + rope) + latent * queries * (nope + value)
        return query + kept + queries * value * hidden
    if layer.attention == "none":
        if fields.text("hybrid_override_pattern"):
            return 0
        size = fields.first("head_dim") or hidden // max(queries, 1)
        return 2 * hidden * queries * size  # keys and values come from an earlier layer
    gate = 2 if fields.yes("attn_output_gate", fields.family == "qwen3_next") else 1
    query = hidden * queries * layer.key * gate
    return query + hidden * layer.heads * (layer.key + layer.value) + queries * layer.value * hidden


def _state(layer: Layer, hidden: int) -> int:
    """Projections into a state and back: both halves of the inner width, keys, and out."""
    state = layer.state
    assert state is not None
    if not state.size:  # a short convolution: three in, one out
        return 4 * hidden * state.inner
    return hidden * (3 * state.inner + 2 * state.groups * state.size)


def _mlp(fields: Fields, place: int, layer: Layer, hidden: int) -> Part:
    family = fields.family
    matrices = 2 if family in PLAIN else 3
    inner = fields.first("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
    inner = inner or 4 * hidden
    if family in ("mamba", "mamba2", "falcon_mamba"):
        return Part()
    if pattern := fields.text("hybrid_override_pattern"):
        return Part(matrices * hidden * inner) if pattern[place] == "-" else Part()
    count = fields.first("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    if not count or not _sparse(fields, place):
        if family == "llama4_text" or family == "llama4":
            inner = fields.first("intermediate_size_mlp", default=inner)
        return Part(matrices * hidden * inner)
    each = fields.first("moe_intermediate_size", "expert_ffn_hidden_size", default=inner)
    shared = fields.first("shared_expert_intermediate_size", "shared_intermediate_size")
    shared += each * fields.first(
        "n_shared_experts", "num_shared_experts", "moe_num_shared_experts"
    )
    return Part(matrices * hidden * shared, matrices * hidden * each * count, hidden * count)


def _sparse(fields: Fields, place: int) -> bool:
    """Whether the layer at this place has experts."""
    if place < fields.first("first_k_dense_replace"):
        return False
    if place in fields.listed("mlp_only_layers"):
        return False
    if fields.given("expert_layer_period"):
        period = fields.first("expert_layer_period")
        return place % max(period, 1) == fields.first("expert_layer_offset")
    step = fields.first("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq")
    return (place + 1) % step == 0 if step > 1 else True


def _algo(quant: Mapping[str, Any]) -> str:
    return str(quant.get("quant_algo", "")).upper()


def _int(value: object, default: int) -> int:
    return value if type(value) is int else default


def _area(block: object) -> int:
    """Numbers of a block given as [rows, columns]; 0 if it is none."""
    if isinstance(block, list) and len(block) == 2 and all(_int(one, 0) > 0 for one in block):
        return int(block[0] * block[1])
    return 0
