"""Weights estimated from a config.json: parameters of each part, bytes after quantization.

Norms, biases and scales of whole tensors are left out where they are below a thousandth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inferfleet.capacity.shape.fields import EXPERT, EXPERTS, HEAD, HEADS, HIDDEN, VOCAB, Fields
from inferfleet.capacity.shape.fields import INNER as WIDTH
from inferfleet.capacity.shape.puzzle import Puzzle
from inferfleet.capacity.shape.quantized import known_bytes, parameter_bytes
from inferfleet.capacity.shape.shape import Layer, Weights

# Two matrices instead of three in an MLP: no gate.
PLAIN = (
    "gpt2", "gpt_neox", "gptj", "gpt_bigcode", "opt", "phi", "starcoder2", "nemotron", "nemotron_h",
    "falcon", "bloom", "mpt", "codegen", "persimmon", "apertus", "arcee", "bert", "roberta",
    "xlm-roberta", "mpnet", "electra", "camembert",
)  # fmt: skip
# Their layers are states alone.
MLPLESS = ("mamba", "mamba2", "falcon_mamba")
SHARED = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")


@dataclass(frozen=True)
class Part:
    """Parameters of one layer: `plain` are not quantized (routers, states, norms)."""

    dense: int = 0
    experts: int = 0
    plain: int = 0

    @property
    def all(self) -> int:
        return self.dense + self.experts + self.plain


def parameters(fields: Fields, layers: Sequence[Layer]) -> int:
    """All parameters, input and output matrices included."""
    table, output = _tables(fields)
    return table + output + sum(part.all for part in _parts(fields, layers))


def config_weights(
    fields: Fields, layers: Sequence[Layer], quant: Mapping[str, Any], stored: int
) -> Weights:
    """Bytes of a model whose numbers are `stored` bytes long where they are not quantized."""
    table, output = _tables(fields)
    dense, expert = parameter_bytes(quant, stored)
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
        guessed=not known_bytes(quant),
    )


def _tables(fields: Fields) -> tuple[int, int]:
    table = fields.number(*HIDDEN) * fields.first(*VOCAB)
    if fields.family in PLAIN and fields.given("type_vocab_size"):
        return table, 0  # encoders have no output matrix
    return table, 0 if fields.yes("tie_word_embeddings") else table


def _parts(fields: Fields, layers: Sequence[Layer]) -> list[Part]:
    hidden = fields.number(*HIDDEN)
    # Zamba2 has a few blocks of attention that its hybrid layers share in turns.
    blocks = fields.above("num_mem_blocks", default=1) if fields.family == "zamba2" else len(layers)
    parts = []
    for place, layer in enumerate(layers):
        if layer.attention == "full":
            blocks -= 1
        if blocks < 0 and layer.state and layer.attention == "full":
            parts.append(Part(_state(layer, hidden) + hidden * hidden, 0, 2 * hidden))
            continue
        dense = _attention(fields, place, layer, hidden) if layer.attention != "linear" else 0
        if layer.state:
            dense += _state(layer, hidden)
        mlp = _mlp(fields, place, layer, hidden)
        parts.append(Part(dense + mlp.dense, mlp.experts, mlp.plain + 2 * hidden))
    return parts


def _attention(fields: Fields, place: int, layer: Layer, hidden: int) -> int:
    queries = fields.number(*HEADS)
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
        puzzle = Puzzle(fields)
        if puzzle.there:
            return hidden * hidden if puzzle.straight(place) else 0
        if fields.family == "nemotron_h":
            return 0
        size = fields.first(*HEAD) or hidden // queries
        return 2 * hidden * queries * size  # keys and values come from an earlier layer
    gate = 2 if fields.yes("attn_output_gate", fields.family == "qwen3_next") else 1
    query = hidden * queries * layer.key * gate
    if fields.family == "zamba2":
        query, hidden = 2 * query, 2 * hidden  # of the input's embedding, too
        return query + hidden * layer.heads * 2 * layer.key + queries * layer.key * hidden // 2
    return query + hidden * layer.heads * (layer.key + layer.value) + queries * layer.value * hidden


def _state(layer: Layer, hidden: int) -> int:
    """Projections into a state and back: both halves of the inner width, keys, and out."""
    state = layer.state
    assert state is not None
    if not state.size:  # a short convolution: three in, one out
        return 4 * hidden * state.inner
    if state.kernel == 1:  # lightning attention: queries, keys, values, a gate, and out
        return 5 * hidden * state.inner
    return hidden * (3 * state.inner + 2 * state.groups * state.size)


def _mlp(fields: Fields, place: int, layer: Layer, hidden: int) -> Part:
    matrices = 2 if fields.family in PLAIN else 3
    if fields.family in MLPLESS or (fields.family == "zamba2" and layer.attention == "linear"):
        return Part()
    inner = fields.widest(*WIDTH) or 4 * hidden
    if fields.family == "recurrent_gemma":
        inner //= 2  # its config counts the gate
    puzzle = Puzzle(fields)
    if puzzle.there:
        return Part(matrices * hidden * puzzle.inner(place))
    sparse = _sparse(fields, place)
    if fields.family == "nemotron_h":
        kind = _listed(fields, place)
        if kind not in ("-", "mlp", "E", "moe"):
            return Part()
        sparse = kind in ("E", "moe")
    count = fields.widest(*EXPERTS)
    if not count or not sparse:
        if fields.family == "llama4":
            inner = fields.first("intermediate_size_mlp", default=inner)
        return Part(matrices * hidden * inner)
    each = fields.widest(*EXPERT) or inner
    # Nemotron 3's experts work on a narrower vector where it says so.
    narrow = fields.first("moe_latent_size")
    experts = matrices * (narrow or hidden) * each * count
    dense = matrices * hidden * _shared(fields, each) + 2 * hidden * narrow
    if fields.family == "longcat_flash":
        # Each attention has a dense MLP; the experts stand beside two of them.
        dense += matrices * hidden * inner
        return Part(dense) if place % 2 else Part(dense, experts, hidden * count)
    return Part(dense, experts, hidden * count)


def _shared(fields: Fields, each: int) -> int:
    """The width of what answers every token beside the routed experts."""
    width = fields.first("shared_expert_intermediate_size", "shared_intermediate_size")
    if fields.family == "llama4":
        return width or each  # Llama4TextMoe has one, which no key names
    count = fields.first(*SHARED)
    return width + count * fields.first("moe_shared_expert_intermediate_size", default=each)


def _listed(fields: Fields, place: int) -> object:
    """What a hybrid's config calls the layer at this place."""
    pattern = fields.text("hybrid_override_pattern")
    named = fields.listed("layers_block_type") or fields.listed("layer_types")
    said: Sequence[object] = pattern or named
    return said[place] if place < len(said) else None


def _sparse(fields: Fields, place: int) -> bool:
    """Whether the layer at this place has experts."""
    if place < fields.first("first_k_dense_replace", "moe_layer_start_index"):
        return False
    if place in fields.listed("mlp_only_layers"):
        return False
    if fields.given("expert_layer_period"):
        period = fields.above("expert_layer_period", default=1)
        return place % period == fields.first("expert_layer_offset")
    if chosen := fields.listed("moe_layer_freq"):
        return place < len(chosen) and bool(chosen[place])
    step = fields.first("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq")
    return (place + 1) % step == 0 if step > 1 else True
