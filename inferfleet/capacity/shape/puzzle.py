"""Models whose layers differ by a search: block_configs of Nemotron's NAS models (DeciLM)."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from inferfleet.capacity.shape.fields import HEADS, HIDDEN, Fields
from inferfleet.errors import FleetError

ROUNDED = 256  # inner sizes are multiples of this (_find_multiple in vLLM's nemotron_nas.py)


class Puzzle:
    """The block_configs of a config.json, checked; not `there` where it has none."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._blocks = fields.listed("block_configs")

    @property
    def there(self) -> bool:
        return bool(self._blocks)

    @property
    def count(self) -> int:
        return len(self._blocks)

    def heads(self, place: int) -> int:
        """KV heads of a layer, 0 for one without attention.

        Raises FleetError for a group of queries that is none.
        """
        attention = self._part(place, "attention")
        if attention.yes("no_op") or attention.yes("replace_with_linear"):
            return 0
        queries, group = self._fields.number(*HEADS), attention.number("n_heads_in_group")
        if group > queries:
            raise FleetError(f"{attention.name}: n_heads_in_group is {group} of {queries} heads")
        return queries // group

    def straight(self, place: int) -> bool:
        """Whether one matrix stands for a layer's attention."""
        return self._part(place, "attention").yes("replace_with_linear")

    def inner(self, place: int) -> int:
        """The inner size of a layer's MLP, 0 for one without."""
        mlp = self._part(place, "ffn")
        if mlp.yes("no_op"):
            return 0
        if told := mlp.first("intermediate_size"):
            return told
        hidden = self._fields.number(*HIDDEN)
        return ceil(int(2 * mlp.ratio("ffn_mult", 0) * hidden / 3) / ROUNDED) * ROUNDED

    def _part(self, place: int, name: str) -> Fields:
        block = self._blocks[place]
        part = block.get(name) if isinstance(block, Mapping) else None
        where = f"{self._fields.name}: block_configs {place} {name}"
        if not isinstance(part, Mapping):
            raise FleetError(f"{where} is not there")
        return Fields(part, where)
