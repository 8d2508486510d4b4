"""Reading a config.json that somebody else wrote: every value may be missing or of a wrong type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inferfleet.errors import FleetError

MOST = 1 << 40  # no size in a model's config is larger
MOST_LAYERS = 4096


class Fields:
    """One level of a config.json."""

    def __init__(self, values: Mapping[str, Any], name: str) -> None:
        self.values = values
        self.name = name

    @property
    def family(self) -> str:
        """model_type without differences that do not matter here."""
        return self.text("model_type").removesuffix("_text")

    @property
    def layers(self) -> int:
        """How many layers; raises FleetError without a sensible number."""
        count = self.number("num_hidden_layers", "n_layer", "num_layers", "n_layers")
        if count > MOST_LAYERS:
            raise FleetError(f"{self.name}: num_hidden_layers is {count}")
        return count

    def has(self, *names: str) -> bool:
        """Whether any of them is a mapping with something in it."""
        return any(isinstance(self.values.get(name), Mapping) for name in names)

    def mapping(self, name: str) -> Mapping[str, Any]:
        value = self.values.get(name)
        return value if isinstance(value, Mapping) else {}

    def text(self, name: str) -> str:
        value = self.values.get(name)
        return value if isinstance(value, str) else ""

    def listed(self, name: str) -> list[Any]:
        value = self.values.get(name)
        return value if isinstance(value, list) else []

    def given(self, name: str) -> bool:
        return self.values.get(name) is not None

    def yes(self, name: str, default: bool = False) -> bool:
        value = self.values.get(name)
        return value if isinstance(value, bool) else default

    def first(self, *names: str, default: int = 0) -> int:
        """The first of these that is given, a number from 0 on; for lists their largest."""
        for name in names:
            value = self.values.get(name)
            if isinstance(value, list) and value and all(type(one) is int for one in value):
                value = max(value)
            if value is None or isinstance(value, bool):
                continue
            if type(value) is float and value.is_integer():
                value = int(value)
            if type(value) is not int or not 0 <= value <= MOST:
                raise FleetError(f"{self.name}: {name} is {value!r}, not a size")
            return value
        return default

    def number(self, *names: str) -> int:
        """As first, but one of them must be given and above 0."""
        found = self.first(*names)
        if not found:
            raise FleetError(f"{self.name} says no {names[0]}", "is it a model's config.json?")
        return found

    def ratio(self, name: str, default: float) -> float:
        value = self.values.get(name)
        return float(value) if isinstance(value, int | float) and value > 0 else default
