"""Reading a config.json that somebody else wrote: every value may be missing or of a wrong type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inferfleet.capacity.shape import families
from inferfleet.errors import FleetError

MOST = 1 << 31  # no size in a model's config is larger
MOST_LAYERS = 4096
# Keys that say the same in different families; the first is the key of a family's default.
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
HIDDEN = ("hidden_size", "n_embd", "d_model")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "num_attention_groups")
HEAD = ("head_dim", "attention_head_dim", "kv_channels", "hidden_size_per_head")
INNER = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
VOCAB = ("vocab_size", "padded_vocab_size")
CONTEXT = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length",
    "max_sequence_length", "max_seq_length", "seq_len",
)  # fmt: skip
WINDOW = ("sliding_window", "attention_chunk_size", "sliding_window_size", "attention_window_size")
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
USED = (
    "num_experts_per_tok", "experts_per_token", "num_experts_per_token", "top_k_experts", "moe_k",
    "moe_topk", "moe_top_k",
)  # fmt: skip
EXPERT = ("moe_intermediate_size", "expert_ffn_hidden_size")


class Fields:
    """One level of a config.json, with the defaults of its family.

    family: what it is if it does not say so itself.
    """

    def __init__(self, values: Mapping[str, Any], name: str, family: str = "") -> None:
        self.values = values
        self.name = name
        self.family = families.family(self.text("model_type")) or family
        self._defaults = families.defaults(self.family)

    def value(self, *names: str) -> Any:
        """What the first of these keys says that is not null; without any the family's default."""
        for name in names:
            if self.values.get(name) is not None:
                return self.values[name]
        # A null that is there stands against the default.
        if any(name in self.values for name in names):
            return None
        return self._defaults.get(names[0])

    def has(self, *names: str) -> bool:
        """Whether any of them is a mapping."""
        return any(isinstance(self.values.get(name), Mapping) for name in names)

    def mapping(self, name: str) -> Mapping[str, Any]:
        value = self.values.get(name)
        return value if isinstance(value, Mapping) else {}

    def part(self, name: str) -> Fields:
        """What stands below a key, without defaults of its own."""
        return Fields(self.mapping(name), f"{self.name}: {name}")

    def text(self, name: str) -> str:
        value = self.values.get(name)
        return value if isinstance(value, str) else ""

    def listed(self, name: str) -> list[Any]:
        value = self.values.get(name)
        return value if isinstance(value, list) else []

    def places(self, name: str) -> set[int]:
        """A list of places of layers; raises FleetError for other things in it."""
        found = self.listed(name)
        if not all(type(one) is int for one in found):
            raise FleetError(f"{self.name}: {name} lists more than numbers of layers")
        return set(found)

    def given(self, *names: str) -> bool:
        return self.value(*names) is not None

    def yes(self, name: str, default: bool = False) -> bool:
        value = self.value(name)
        return value if isinstance(value, bool) else default

    def first(self, *names: str, default: int = 0) -> int:
        """A size from 0 on; raises FleetError for anything else that is no null, false or auto."""
        value = self.value(*names)
        if value is None or value is False or value == "auto":
            return default
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or not 0 <= value <= MOST:
            raise self._wrong(names, value)
        return value

    def widest(self, *names: str, default: int = 0) -> int:
        """As first; for a list, one for each layer, its largest."""
        value = self.value(*names)
        if not isinstance(value, list):
            return self.first(*names, default=default)
        sizes = all(type(one) is int and 0 <= one <= MOST for one in value)
        if not sizes or not any(value):
            raise self._wrong(names, value)
        return int(max(value))

    def number(self, *names: str) -> int:
        """As first, but one of them must be given and above 0."""
        if not self.given(*names):
            raise FleetError(f"{self.name} says no {names[0]}", "is it a model's config.json?")
        return self.above(*names, default=0)

    def above(self, *names: str, default: int) -> int:
        """As first; raises FleetError for 0."""
        found = self.first(*names, default=default)
        if found < 1:
            raise self._wrong(names, self.value(*names))
        return found

    def ratio(self, name: str, default: float) -> float:
        """A factor; raises FleetError for what is none."""
        value = self.value(name)
        if value is None:
            return default
        if type(value) not in (int, float) or not 0 < value < MOST:
            raise self._wrong((name,), value)
        return float(value)

    def _wrong(self, names: tuple[str, ...], value: object) -> FleetError:
        name = next((name for name in names if self.values.get(name) is not None), names[0])
        return FleetError(f"{self.name}: {name} is {repr(value)[:40]}, not a size")
