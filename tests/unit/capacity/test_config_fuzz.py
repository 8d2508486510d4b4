"""Whatever stands in a config.json, the answer is a shape that can be reckoned with or an error."""

from __future__ import annotations

import copy
from typing import Any

import model_configs as real
import pytest
from family_configs import FAMILIES
from hypothesis import given, settings
from hypothesis import strategies as st

from inferfleet.capacity.engines.claim import claim
from inferfleet.capacity.engines.kv import token_bytes
from inferfleet.capacity.shape.config import config_shape
from inferfleet.capacity.term import Memory
from inferfleet.errors import FleetError

CONFIGS: dict[str, dict[str, Any]] = {
    **{name: config for name, (config, _, _) in FAMILIES.items()},
    **real.MORE,
    "qwen3-32b-fp8": real.QWEN3_32B | {"quantization_config": real.FP8},
    "gpt-oss-20b": real.GPT_OSS_20B,
    "granite-h": real.GRANITE_H_SMALL,
}
NOT_SIZES: list[Any] = [
    -1, -1.5, 1.5, 1 << 63, 10**400, float("nan"), float("inf"), "many", "12", [], [0], [1, -1],
    ["a"], [[1]], {}, {"a": 1}, True,
]  # fmt: skip
ANY = [*NOT_SIZES, 0, 1, 2, 7, 4095, 4097, 1 << 31, None, False, "auto", "", [1, 2], [None]]
Path = tuple[str | int, ...]


def leaves(value: Any, path: Path = ()) -> list[Path]:
    """Ways to everything in a config; of a list to its first and last."""
    found: list[Path] = [path] if path else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += leaves(inner, (*path, key))
    elif isinstance(value, list) and value:
        for place in {0, len(value) - 1}:
            found += leaves(value[place], (*path, place))
    return found


def put(config: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    changed: Any = copy.deepcopy(config)
    at = changed
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return dict(changed)


WAYS = [(name, path) for name, config in CONFIGS.items() for path in leaves(config)]
KEYS = sorted({path[-1] for _, path in WAYS if isinstance(path[-1], str)})
MEMORY = Memory(host=64 << 30, device=24 << 30, gpus=1)


def reckoned(config: dict[str, Any]) -> bool:
    """Whether it makes a shape; then everything that is made of a shape works too."""
    try:
        shape = config_shape(config)
    except FleetError:
        return False
    assert 0 < len(shape.layers) <= 4096
    assert token_bytes(shape) >= 0
    assert all(layer.heads > 0 and layer.key > 0 for layer in shape.of("full", "window"))
    assert all(layer.state for layer in shape.of("linear"))
    assert shape.weights.total >= 0
    for kind in ("vllm", "sglang"):
        assert all(term.amount >= 0 for term in claim("a", kind, {}, shape, MEMORY).terms)
    return True


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(WAYS), st.sampled_from(ANY))
def test_one_value_changed(way: tuple[str, Path], value: Any) -> None:
    name, path = way
    reckoned(put(CONFIGS[name], path, value))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(CONFIGS)),
    st.dictionaries(st.sampled_from(KEYS), st.sampled_from(ANY), min_size=1, max_size=4),
    st.sampled_from(sorted({str(config["model_type"]) for config in CONFIGS.values()})),
    st.booleans(),
)
def test_values_of_others_added(name: str, more: dict[str, Any], family: str, other: bool) -> None:
    config = CONFIGS[name] | more
    if isinstance(config.get("text_config"), dict):
        config["text_config"] = config["text_config"] | more
    reckoned(config | ({"model_type": family} if other else {}))


SIZES = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size",
    "intermediate_size", "head_dim", "kv_lora_rank", "sliding_window", "num_local_experts",
    "num_experts_per_tok", "max_position_embeddings",
)  # fmt: skip


@pytest.mark.parametrize("key", SIZES)
@pytest.mark.parametrize("value", NOT_SIZES, ids=lambda value: repr(value)[:12])
def test_a_size_that_is_none(key: str, value: Any) -> None:
    config = CONFIGS["deepseek-v2-lite"] if key == "kv_lora_rank" else CONFIGS["mixtral-8x7b"]
    with pytest.raises(FleetError, match=f"{key} is .*, not a size"):
        config_shape(config | {key: value})


ZEROS: dict[str, tuple[str, dict[str, Any]]] = {
    "layers": ("mixtral-8x7b", {"num_hidden_layers": 0}),
    "hidden": ("mixtral-8x7b", {"hidden_size": 0}),
    "heads": ("mixtral-8x7b", {"num_attention_heads": 0}),
    "kv heads": ("mixtral-8x7b", {"num_key_value_heads": 0}),
    "more heads than numbers": ("mixtral-8x7b", {"num_attention_heads": 5000}),
    "a latent": ("deepseek-v2-lite", {"kv_lora_rank": 0}),
    "jamba's period": ("jamba-mini", {"attn_layer_period": 0}),
    "experts' period": ("jamba-mini", {"expert_layer_period": 0}),
    "an interval": ("qwen3.5-35b-a3b", {"text_config": {"full_attention_interval": 0}}),
    "an indexer's": ("deepseek-v3.2", {"index_topk_freq": 0}),
    "windows' pattern": ("gemma2-9b", {"sliding_window_pattern": 0}),
    "groups": ("glm-4-9b-chat", {"multi_query_group_num": 0}),
    "a kernel": ("jamba-mini", {"mamba_d_conv": 0}),
    "an expansion": ("jamba-mini", {"mamba_expand": 0}),
    "a state": ("bamba-9b", {"mamba_d_state": 0}),
    "all layers shared": ("mixtral-8x7b", {"num_kv_shared_layers": 32}),
    "a short pattern": ("nemotron-3-nano", {"hybrid_override_pattern": "M*"}),
    "a strange pattern": ("nemotron-3-nano", {"hybrid_override_pattern": "X" * 52}),
    "no pattern": ("nemotron-3-nano", {"hybrid_override_pattern": ""}),
    "blocks": ("nemotron-super-49b", {"block_configs": [7]}),
    "fewer blocks": ("nemotron-super-49b", {"block_configs": [{"attention": {"no_op": True}}]}),
    "places": ("bamba-9b", {"attn_layer_indices": ["9"]}),
}  # fmt: skip


@pytest.mark.parametrize("name", ZEROS)
def test_what_is_not_there_is_told(name: str) -> None:
    model, changes = ZEROS[name]
    with pytest.raises(FleetError):
        config_shape(CONFIGS[model] | changes)
