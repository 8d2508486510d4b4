"""What each layer of a config.json keeps: attention, windows, latents and states."""

from __future__ import annotations

from inferfleet.capacity.shape.fields import HEAD, HEADS, HIDDEN, KV_HEADS, Fields
from inferfleet.capacity.shape.kinds import Kind, kinds, window
from inferfleet.capacity.shape.puzzle import Puzzle
from inferfleet.capacity.shape.shape import Layer, State
from inferfleet.capacity.shape.states import state
from inferfleet.errors import FleetError

INDEX_BLOCK = 128  # numbers of an indexer's key that share one scale of 32 bits


def config_layers(fields: Fields) -> tuple[Layer, ...]:
    """The layers of a model.

    Raises FleetError for sizes that are none and for layers that are not known here.
    """
    puzzle = Puzzle(fields)
    if puzzle.there:
        return _searched(fields, puzzle)
    named = kinds(fields)
    kept = state(fields) if {"linear", "both"} & set(named) else None
    layers = [_layer(fields, kind, place, kept) for place, kind in enumerate(named)]
    if shared := fields.first("num_kv_shared_layers"):
        if shared >= len(layers):
            raise FleetError(
                f"{fields.name}: num_kv_shared_layers is {shared}, of {len(layers)} layers"
            )
        layers[-shared:] = [Layer("none")] * shared
    return tuple(layers)


def _searched(fields: Fields, puzzle: Puzzle) -> tuple[Layer, ...]:
    size, _ = _sizes(fields)
    heads = [puzzle.heads(place) for place in range(puzzle.count)]
    return tuple(Layer("full", one, size, size) if one else Layer("none") for one in heads)


def _layer(fields: Fields, kind: Kind, place: int, kept: State | None) -> Layer:
    if kind == "none":
        return Layer("none")
    if kind == "linear":
        return Layer("linear", state=kept)
    if kind == "mla":
        rope = fields.first("qk_rope_head_dim")
        index = _index(fields) if _indexed(fields, place) else 0
        return Layer("mla", 1, latent=fields.number("kv_lora_rank"), rope=rope, index=index)
    heads, (key, value) = _heads(fields), _sizes(fields)
    if kind == "window":
        heads = fields.above("swa_num_key_value_heads", default=heads)
        key = fields.above("swa_head_dim", default=key)
        value = fields.above("swa_v_head_dim", default=value)
        chunked = fields.family == "llama4"
        return Layer("window", heads, key, value, window=window(fields), chunked=chunked)
    if fields.given("global_head_dim"):
        key = value = fields.number("global_head_dim")
    if fields.yes("attention_k_eq_v", fields.family != "gemma4"):
        heads = fields.above("num_global_key_value_heads", default=heads)
    return Layer("full", heads, key, value, state=kept if kind == "both" else None)


def _heads(fields: Fields) -> int:
    """KV heads; as many as query heads where nobody says less."""
    queries = fields.number(*HEADS)
    if fields.family == "chatglm" and not fields.given(*KV_HEADS):
        many = fields.yes("multi_query_attention")
        return fields.above("multi_query_group_num", default=1) if many else queries
    if fields.yes("multi_query") and not fields.yes("new_decoder_architecture"):
        return 1
    return fields.above(*KV_HEADS, default=queries)


def _sizes(fields: Fields) -> tuple[int, int]:
    """Numbers of a head's key and of its value."""
    queries, hidden = fields.number(*HEADS), fields.number(*HIDDEN)
    if fields.given("kv_lora_rank") and fields.given("qk_nope_head_dim"):
        # Expanded: keys of both parts, values padded to them (vLLM pads v to the key's size).
        size = fields.first("qk_nope_head_dim") + fields.first("qk_rope_head_dim")
        value = size
    else:
        wide = 2 * hidden if fields.family == "zamba2" else hidden  # beside the input's embedding
        size = fields.first(*HEAD) or wide // queries
        value = fields.first("v_head_dim") or size
    if not size:
        raise FleetError(f"{fields.name}: {queries} heads of a hidden size of {hidden}")
    return size, value


def _index(fields: Fields) -> int:
    """Bytes per token of a sparse attention's indexer: 8 bits a number, and scales.

    head_dim + head_dim / 128 * 4, in vLLM's Indexer (deepseek_v2.py).
    """
    size = fields.first("index_head_dim")
    return size + size // INDEX_BLOCK * 4


def _indexed(fields: Fields, place: int) -> bool:
    """Whether a layer has an indexer of its own (DeepseekV32Attention in vLLM)."""
    if pattern := fields.text("index_topk_pattern"):
        return place >= len(pattern) or pattern[place] != "S"
    offset = fields.first("index_skip_topk_offset", default=2)
    return max(place - offset + 1, 0) % fields.above("index_topk_freq", default=1) == 0
