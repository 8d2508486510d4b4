"""Which kind of attention each layer of a config.json has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from inferfleet.capacity.shape import families
from inferfleet.capacity.shape.fields import LAYERS, MOST_LAYERS, WINDOW, Fields
from inferfleet.capacity.shape.states import LIGHTNING
from inferfleet.errors import FleetError

# both: attention and a state beside it.
Kind = Literal["full", "window", "mla", "linear", "none", "both"]

# Names in layer_types of Transformers' configs.
FULL = ("full_attention", "attention", "global", "global_attention")
WINDOWS = ("sliding_attention", "chunked_attention", "local", "local_attention")
LINEAR = ("linear_attention", "mamba", "conv", "recurrent", "linear")
# vLLM keeps these families' latents (ModelConfig.is_deepseek_mla); others with a kv_lora_rank
# are expanded to whole heads.
LATENT = (
    "deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_mtp", "kimi_k2", "kimi_linear",
    "kimi_vl", "longcat_flash", "pangu_ultra_moe", "glm4_moe_lite", "glm_moe_dsa", "bailing_hybrid",
)  # fmt: skip
_PATTERN: dict[str, Kind] = {"M": "linear", "*": "full", "-": "none", "E": "none"}


def kinds(fields: Fields) -> list[Kind]:
    """One kind for each layer. Raises FleetError for layers that are not known here."""
    count = _count(fields)
    found = _told(fields, count) or _of_family(fields, count)
    if len(found) != count:
        raise FleetError(f"{fields.name}: {count} layers, but types of {len(found)}")
    if fields.family == "gemma4" and found[-1] == "window":
        found[-1] = "full"  # Gemma4TextConfig makes the last one so
    return found


def window(fields: Fields) -> int:
    """How many tokens a layer with a window looks back; 0: there is none."""
    return fields.first(*WINDOW) if fields.yes("use_sliding_window", True) else 0


def latent(fields: Fields) -> bool:
    """Whether vLLM and llama.cpp keep latents of this model."""
    return fields.family in LATENT and fields.given("kv_lora_rank")


def _count(fields: Fields) -> int:
    told = any(fields.values.get(name) is not None for name in LAYERS)
    if fields.family == "nemotron_h" and not told:
        # Its Config class counts what is listed.
        pattern = fields.text("hybrid_override_pattern")
        count = len(pattern or fields.listed("layers_block_type") or fields.listed("layer_types"))
    else:
        count = fields.number(*LAYERS)
    if fields.family == "longcat_flash" and fields.values.get("num_hidden_layers") is None:
        count *= 2  # num_layers counts blocks of two attentions each
    if count > MOST_LAYERS:
        raise FleetError(f"{fields.name}: num_hidden_layers is {count}")
    return count


def _told(fields: Fields, count: int) -> list[Kind]:
    """What the config says of each layer, [] if it says nothing."""
    if pattern := fields.text("hybrid_override_pattern"):
        if unknown := set(pattern) - set(_PATTERN):
            raise FleetError(
                f"{fields.name}: layers of the type {min(unknown)!r} are not known here"
            )
        return [_PATTERN[one] for one in pattern]
    if named := fields.listed("layer_types") or fields.listed("layers_block_type"):
        return _named(fields, named[:count])
    if flags := fields.listed("attn_type_list"):
        return ["full" if one == 1 else "linear" for one in flags]
    if flags := fields.listed("hybrid_layer_pattern"):
        return ["window" if one == 1 and window(fields) else "full" for one in flags]
    if cycle := fields.listed("block_types"):
        return _named(fields, [cycle[place % len(cycle)] for place in range(count)], "window")
    return []


def _named(fields: Fields, named: Sequence[object], plain: Kind = "full") -> list[Kind]:
    """plain: what `attention` means where there is a window."""
    slides, state = window(fields), latent(fields)
    found: list[Kind] = []
    for one in named:
        if one in LINEAR:
            found.append("linear")
        elif one in WINDOWS and slides:
            found.append("window")
        elif one in FULL or one in WINDOWS:
            found.append("mla" if state else plain if slides else "full")
        elif one == "indexed_attention" and state:
            found.append("mla")
        elif one in ("mlp", "moe", "hybrid"):
            found.append("both" if one == "hybrid" else "none")
        else:
            said = repr(one)[:40]
            raise FleetError(f"{fields.name}: layers of the type {said} are not known here")
    return found


def _of_family(fields: Fields, count: int) -> list[Kind]:
    if special := _BY_FAMILY.get(fields.family):
        return special(fields, count)
    if latent(fields):
        return ["mla"] * count
    pattern = families.pattern(fields.family)
    if "l" in pattern:
        return _interval(fields, pattern, count)
    if not window(fields):
        return ["full"] * count
    if pattern == "m":
        after = fields.first("max_window_layers")
        return ["window" if place >= after else "full" for place in range(count)]
    return _windows(fields, pattern, count)


def _windows(fields: Fields, pattern: str, count: int) -> list[Kind]:
    for name in ("sliding_window_pattern", "_sliding_window_pattern"):
        letters = fields.text(name)
        if letters and not set(letters) - set("LG"):  # EXAONE 4 writes LLLG
            pattern = letters.replace("L", "s").replace("G", "f")
        elif fields.given(name):
            pattern = "s" * (min(fields.above(name, default=1), MOST_LAYERS + 1) - 1) + "f"
    pattern = pattern or "s"
    return ["window" if pattern[place % len(pattern)] == "s" else "full" for place in range(count)]


def _interval(fields: Fields, pattern: str, count: int) -> list[Kind]:
    period = fields.above("full_attention_interval", default=len(pattern))
    return ["full" if (place + 1) % period == 0 else "linear" for place in range(count)]


def _jamba(fields: Fields, count: int) -> list[Kind]:
    period = fields.above("attn_layer_period", default=8)
    offset = fields.first("attn_layer_offset", default=4)
    return ["full" if place % period == offset else "linear" for place in range(count)]


def _bamba(fields: Fields, count: int) -> list[Kind]:
    full = fields.places("attn_layer_indices")
    return ["full" if place in full else "linear" for place in range(count)]


def _kimi(fields: Fields, count: int) -> list[Kind]:
    linear = fields.part("linear_attn_config").places("kda_layers")  # counted from 1
    return ["linear" if place + 1 in linear else "mla" for place in range(count)]


def _lfm2(fields: Fields, count: int) -> list[Kind]:
    if not fields.given("full_attn_idxs"):
        return ["full"] * count
    full = fields.places("full_attn_idxs")
    return ["full" if place in full else "linear" for place in range(count)]


def _all_linear(fields: Fields, count: int) -> list[Kind]:
    return ["linear"] * count


def _both(fields: Fields, count: int) -> list[Kind]:
    return ["both"] * count


def _unsaid(fields: Fields, count: int) -> list[Kind]:
    raise FleetError(f"{fields.name} does not say which layers have attention")


_BY_FAMILY: dict[str, Callable[[Fields, int], list[Kind]]] = {
    "bamba": _bamba,
    "falcon_h1": _both,
    "falcon_mamba": _all_linear,
    "jamba": _jamba,
    "kimi_linear": _kimi,
    "lfm2": _lfm2,
    "lfm2_moe": _lfm2,
    "mamba": _all_linear,
    "mamba2": _all_linear,
    "nemotron_h": _unsaid,
    "zamba2": _unsaid,
    **dict.fromkeys(LIGHTNING, _unsaid),
}
