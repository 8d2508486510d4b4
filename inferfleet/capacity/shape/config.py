"""Hugging Face config.json -> Shape; weights are estimated from it until headers are at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inferfleet.capacity.shape import families
from inferfleet.capacity.shape.fields import (
    CONTEXT,
    EXPERT,
    EXPERTS,
    HEADS,
    HIDDEN,
    INNER,
    USED,
    VOCAB,
    Fields,
)
from inferfleet.capacity.shape.layers import config_layers
from inferfleet.capacity.shape.quantized import cache_type, quantization
from inferfleet.capacity.shape.shape import GUESSED, Layer, Shape
from inferfleet.capacity.shape.weights import config_weights, parameters

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
# The type that `auto` takes depends on the GPU (GlmMoeDsaForCausalLM in vllm's models/config.py).
BY_GPU = ("glm_moe_dsa",)


def config_shape(config: Mapping[str, Any], name: str = "config.json") -> Shape:
    """The shape of the model that a config.json describes.

    What it leaves out is its family's default; of a family that is not known here the layers are
    assumed to be plain, and the shape says so in kv. Raises FleetError for one that lacks what
    every model has, for sizes that are none, and for layers whose memory is not known here.
    """
    outer = Fields(_flat(config), name)
    inner = outer
    while nested := next((one for one in NESTED if inner.has(one)), None):
        values = _flat(inner.mapping(nested))
        tied = inner.values.get("tie_word_embeddings")
        values = values if tied is None else {"tie_word_embeddings": tied, **values}
        inner = Fields(values, name, families.INSIDE.get(inner.family, inner.family))
    quant = inner.mapping("quantization_config") or outer.mapping("quantization_config")
    layers = config_layers(inner)
    stored = TYPES.get(_type(inner) or _type(outer), 2)
    experts, used = inner.widest(*EXPERTS), inner.widest(*USED)
    weights = config_weights(inner, layers, quant, stored)
    total = parameters(inner, layers)
    if inner.family in ENCODERS:
        layers = (Layer("none"),) * len(layers)
    notes = []
    if inner is not outer and outer.has("vision_config", "audio_config"):
        notes.append("weights of its vision or audio parts are not in the estimate")
    known = families.known(inner.family) or inner.family in ENCODERS
    if weights.guessed:
        notes.append(GUESSED)
    if inner.family in BY_GPU:
        notes.append("its KV cache has 8 bits a number on Blackwell GPUs, which is not counted")
    if not known:
        notes.append(
            f"the family {inner.family or 'of this model'} is not known here: "
            "its KV cache is a guess and refuses nothing"
        )
    return Shape(
        architecture=inner.text("model_type") or inner.family,
        layers=layers,
        hidden=inner.number(*HIDDEN),
        vocab=inner.first(*VOCAB),
        heads=inner.first(*HEADS),
        wide=_wide(inner, used),
        weights=weights,
        parameters=total,
        context=inner.first(*CONTEXT),
        dtype_bytes=2 if stored in (4, 8, 1) else stored,
        stored_bytes=stored,
        quantization=quantization(quant),
        experts=experts if used else 0,
        used=min(used, experts),
        notes=tuple(notes),
        kv="exact" if known and inner.family not in BY_GPU else "estimated",
        cache_type=cache_type(quant),
    )


def _flat(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A config whose sizes lie in parts of it (DBRX, MPT), with the keys that others have."""
    attention, mlp = config.get("attn_config"), config.get("ffn_config")
    found = dict(config)
    if isinstance(attention, Mapping):
        many = attention.get("attn_type") == "multiquery_attention"
        # DbrxAttentionConfig's default is one KV head.
        said = attention.get("kv_n_heads", 1 if config.get("model_type") == "dbrx" else None)
        found.setdefault("num_key_value_heads", 1 if many else said)
    if isinstance(mlp, Mapping):
        for key, value in mlp.items():
            if key in ("ffn_hidden_size", "moe_num_experts", "moe_top_k"):
                found.setdefault(key, value)
    return found


def _type(fields: Fields) -> str:
    return (fields.text("dtype") or fields.text("torch_dtype")).removeprefix("torch.")


def _wide(fields: Fields, used: int) -> int:
    """The widest inner activation of a token: a dense layer's, or of all experts that answer."""
    dense, expert = fields.widest(*INNER), fields.widest(*EXPERT)
    wide = max(dense, expert * used) if expert else dense * max(used, 1)
    return wide or 4 * fields.number(*HIDDEN)
