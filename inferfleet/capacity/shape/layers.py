"""What each layer of a config.json keeps: attention, windows, latents and states."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inferfleet.capacity.shape.fields import Fields
from inferfleet.capacity.shape.shape import Attention, Layer, State
from inferfleet.errors import FleetError

# Names in layer_types of Transformers' configs.
FULL = ("full_attention", "attention", "global", "global_attention")
WINDOW = ("sliding_attention", "chunked_attention", "local", "local_attention")
LINEAR = ("linear_attention", "mamba", "conv", "recurrent", "linear")
# vLLM keeps these families' latents (ModelConfig.is_deepseek_mla); others with a kv_lora_rank
# are expanded to whole heads.
LATENT = (
    "deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_mtp", "kimi_k2", "kimi_linear",
    "kimi_vl", "longcat_flash", "pangu_ultra_moe", "glm4_moe_lite", "glm_moe_dsa", "bailing_hybrid",
)  # fmt: skip
# Families whose layers take turns without a layer_types: every how many one is full, counted
# from the end of a group; 2 from the start: the even layers have the window.
PERIODS = {"gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt_oss": 2, "cohere2": 4, "llama4": 4}


def config_layers(fields: Fields) -> tuple[Layer, ...]:
    """The layers of a model.

    Raises FleetError for states whose size is not known here.
    """
    kinds = _kinds(fields)
    shared = fields.first("num_kv_shared_layers")
    state = _state(fields) if "linear" in kinds or fields.family == "falcon_h1" else None
    layers = [_layer(fields, kind, state) for kind in kinds]
    if shared:
        layers[-shared:] = [Layer("none")] * shared
    return tuple(layers)


def _layer(fields: Fields, kind: Attention, state: State | None) -> Layer:
    if kind == "linear":
        return Layer("linear", state=state)
    if kind in ("none", "mla"):
        latent, rope = fields.first("kv_lora_rank"), fields.first("qk_rope_head_dim")
        return Layer(kind, 1, latent=latent, rope=rope) if kind == "mla" else Layer("none")
    queries = fields.number("num_attention_heads", "n_head", "n_heads", "num_heads")
    heads = fields.first("num_key_value_heads", "num_kv_heads", "n_head_kv", default=queries)
    if fields.yes("multi_query") and not fields.yes("new_decoder_architecture"):
        heads = 1
    size = fields.first("head_dim", "attention_head_dim", "kv_channels") or (
        fields.number("hidden_size", "n_embd", "d_model") // queries
    )
    value = fields.first("v_head_dim", default=size)
    if fields.given("kv_lora_rank") and fields.given("qk_nope_head_dim"):
        # Expanded: keys of both parts, values padded to them (vLLM pads v to the key's size).
        size = fields.first("qk_nope_head_dim") + fields.first("qk_rope_head_dim")
        value = size
    if kind == "full":
        size = fields.first("global_head_dim", default=size)
        value = size if fields.given("global_head_dim") else value
        heads = fields.first("num_global_key_value_heads", default=heads)
        both = state if fields.family == "falcon_h1" else None
        return Layer("full", heads, size, value, state=both)
    return Layer("window", heads, size, value, window=_window(fields))


def _window(fields: Fields) -> int:
    if fields.values.get("use_sliding_window") is False:
        return 0
    return fields.first("sliding_window", "attention_chunk_size", "sliding_window_size")


def _kinds(fields: Fields) -> list[Attention]:
    count = fields.layers
    if pattern := fields.text("hybrid_override_pattern"):
        return [{"M": "linear", "*": "full"}.get(one, "none") for one in pattern]  # type: ignore[misc]
    named = fields.listed("layer_types") or fields.listed("layers_block_type")
    if named:
        return _named(fields, named[:count], count)
    if special := _BY_FAMILY.get(fields.family):
        return special(fields, count)
    if fields.family in LATENT and fields.given("kv_lora_rank"):
        return ["mla"] * count
    window = _window(fields)
    if not window:
        return ["full"] * count
    period = fields.first("sliding_window_pattern", "_sliding_window_pattern") or PERIODS.get(
        fields.family, 0
    )
    if period > 1:
        return ["full" if (place + 1) % period == 0 else "window" for place in range(count)]
    after = fields.first("max_window_layers") if fields.family.startswith("qwen2") else 0
    return ["window" if place >= after else "full" for place in range(count)]


def _named(fields: Fields, named: Sequence[object], count: int) -> list[Attention]:
    window, latent = _window(fields), fields.family in LATENT and fields.given("kv_lora_rank")
    kinds: list[Attention] = []
    for one in named:
        if one in LINEAR:
            kinds.append("linear")
        elif one in WINDOW and window:
            kinds.append("window")
        elif one in FULL or one in WINDOW:
            kinds.append("mla" if latent else "full")
        elif one in ("mlp", "moe", "hybrid"):
            kinds.append("full" if one == "hybrid" else "none")
        else:
            raise FleetError(f"{fields.name}: layers of the type {one!r} are not known here")
    if len(kinds) != count:
        raise FleetError(f"{fields.name}: {count} layers, but types of {len(kinds)}")
    return kinds


def _interval(fields: Fields, count: int) -> list[Attention]:
    period = fields.first("full_attention_interval", default=4)
    return ["full" if (place + 1) % period == 0 else "linear" for place in range(count)]


def _jamba(fields: Fields, count: int) -> list[Attention]:
    period = fields.first("attn_layer_period", default=8)
    offset = fields.first("attn_layer_offset", default=4)
    return ["full" if place % period == offset else "linear" for place in range(count)]


def _bamba(fields: Fields, count: int) -> list[Attention]:
    full = set(fields.listed("attn_layer_indices"))
    return ["full" if place in full else "linear" for place in range(count)]


def _kimi(fields: Fields, count: int) -> list[Attention]:
    told = Fields(fields.mapping("linear_attn_config"), fields.name)
    linear = set(told.listed("kda_layers"))  # counted from 1
    return ["linear" if place + 1 in linear else "mla" for place in range(count)]


def _lfm2(fields: Fields, count: int) -> list[Attention]:
    full = set(fields.listed("full_attn_idxs"))
    return ["full" if place in full else "linear" for place in range(count)]


def _all_linear(fields: Fields, count: int) -> list[Attention]:
    return ["linear"] * count


_BY_FAMILY: dict[str, Callable[[Fields, int], list[Attention]]] = {
    "qwen3_next": _interval,
    "qwen3_5": _interval,
    "qwen3_5_moe": _interval,
    "jamba": _jamba,
    "bamba": _bamba,
    "kimi_linear": _kimi,
    "lfm2": _lfm2,
    "lfm2_moe": _lfm2,
    "mamba": _all_linear,
    "mamba2": _all_linear,
    "falcon_mamba": _all_linear,
}
_MATRIX = {"float32": 4, "bfloat16": 2, "float16": 2}


def _state(fields: Fields) -> State:
    family, hidden = fields.family, fields.number("hidden_size", "d_model")
    if fields.given("linear_num_value_heads"):
        # Gated delta net: vLLM's MambaStateShapeCalculator.gated_delta_net_state_shape.
        inner = fields.number("linear_num_value_heads") * fields.number("linear_value_head_dim")
        kernel = fields.first("linear_conv_kernel_dim", default=4)
        matrix = _MATRIX.get(fields.text("mamba_ssm_dtype"), 0)
        groups = fields.number("linear_num_key_heads")
        return State(kernel, inner, groups, fields.number("linear_key_head_dim"), matrix)
    if family == "kimi_linear":
        told = Fields(fields.mapping("linear_attn_config"), fields.name)
        heads, size = told.number("num_heads"), told.number("head_dim")
        kernel = told.first("short_conv_kernel_size", default=4)
        return State(kernel, heads * size, heads, size, 4)
    if family.startswith("lfm2"):
        return State(fields.first("conv_L_cache", default=3), fields.first("conv_dim") or hidden)
    if family in ("jamba", "mamba", "falcon_mamba"):
        inner = fields.first("intermediate_size") if family != "jamba" else 0
        inner = inner or int(fields.ratio("mamba_expand", fields.ratio("expand", 2)) * hidden)
        kernel = fields.first("mamba_d_conv", "conv_kernel", default=4)
        return State(kernel, inner, 0, fields.first("mamba_d_state", "state_size", default=16))
    heads = fields.first("mamba_n_heads", "mamba_num_heads", "num_heads")
    size = fields.first("mamba_d_head", "mamba_head_dim", "head_dim")
    inner = fields.first("mamba_d_ssm") or heads * size
    if not inner:
        raise FleetError(
            f"{fields.name}: the states of {family or 'its'} layers are not known here"
        )
    return State(
        fields.first("mamba_d_conv", "conv_kernel", default=4),
        inner,
        fields.first("mamba_n_groups", "n_groups", default=1),
        fields.first("mamba_d_state", "ssm_state_size", "state_size", default=128),
        4 if family == "nemotron_h" else 0,
        kept=3,
    )
