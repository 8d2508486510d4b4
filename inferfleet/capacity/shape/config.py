"""Hugging Face config.json -> Shape; weights are estimated from it until headers are at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inferfleet.capacity.shape.fields import Fields
from inferfleet.capacity.shape.layers import config_layers
from inferfleet.capacity.shape.shape import Layer, Shape
from inferfleet.capacity.shape.weights import config_weights, parameters, quantization

# Where models of several kinds of input keep what their language model is.
NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
TYPES = {
    "float64": 8,
    "float32": 4,
    "float": 4,
    "bfloat16": 2,
    "float16": 2,
    "half": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
}
# They read a text at once and keep nothing of it: embeddings, rerankers.
ENCODERS = (
    "bert", "roberta", "xlm-roberta", "distilbert", "modernbert", "nomic_bert", "new", "mpnet",
    "electra", "deberta-v2", "eurobert", "camembert",
)  # fmt: skip


def config_shape(config: Mapping[str, Any], name: str = "config.json") -> Shape:
    """The shape of the model that a config.json describes.

    Raises FleetError for one that lacks what every model has, or for layers whose memory is not
    known here.
    """
    outer = Fields(config, name)
    inner = outer
    while nested := next((one for one in NESTED if inner.has(one)), None):
        inner = Fields(inner.mapping(nested), name)
    quant = inner.mapping("quantization_config") or outer.mapping("quantization_config")
    layers = config_layers(inner)
    stored = TYPES.get(_type(inner) or _type(outer), 2)
    experts = inner.first("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    used = inner.first("num_experts_per_tok", "experts_per_token", "moe_k", "moe_topk")
    named = inner.first("num_experts_per_token", "top_k_experts")
    weights = config_weights(inner, layers, quant, stored)
    total = parameters(inner, layers)
    if inner.family in ENCODERS:
        layers = (Layer("none"),) * len(layers)
    notes = []
    if inner is not outer and outer.has("vision_config", "audio_config"):
        notes.append("weights of its vision or audio parts are not in the estimate")
    if inner.given("index_head_dim"):
        notes.append("the cache of its sparse attention's indexer is not counted")
    return Shape(
        architecture=inner.text("model_type") or outer.text("model_type"),
        layers=layers,
        hidden=inner.number("hidden_size", "n_embd", "d_model"),
        vocab=inner.first("vocab_size", "padded_vocab_size"),
        heads=inner.first("num_attention_heads", "n_head", "n_heads", "num_heads"),
        wide=_wide(inner, used or named),
        weights=weights,
        parameters=total,
        context=inner.first(
            "max_position_embeddings", "max_seq_len", "seq_length", "n_positions", "max_seq_length"
        ),
        dtype_bytes=2 if stored in (4, 8, 1) else stored,
        stored_bytes=stored,
        quantization=quantization(quant),
        experts=experts if used or named else 0,
        used=min(used or named, experts) if experts else 0,
        notes=tuple(notes),
    )


def _type(fields: Fields) -> str:
    return (fields.text("dtype") or fields.text("torch_dtype")).removeprefix("torch.")


def _wide(fields: Fields, used: int) -> int:
    """The widest inner activation of a token: a dense layer's, or of all experts that answer."""
    dense = fields.first("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
    expert = fields.first("moe_intermediate_size", "expert_ffn_hidden_size")
    wide = max(dense, expert * used) if expert else dense * max(used, 1)
    return wide or 4 * fields.number("hidden_size", "n_embd", "d_model")
