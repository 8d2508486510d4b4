"""Data with places: what a YAML file holds, each value with its file, line and column."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from inferfleet.errors import FleetError, Where

Spot = tuple[int, int]
Path = tuple[str | int, ...]


@dataclass(slots=True)
class Node:
    """A value with its place. value: dict of nodes, list of nodes, or a scalar.

    spot: (line, column) of the value; key: of the mapping key it stands under, if any.
    size: how many nodes it is, aliases counted as often as they are used.
    """

    value: Any
    file: str
    spot: Spot
    key: Spot | None = None
    size: int = 1

    def plain(self) -> Any:
        """The value without places."""
        value = self.value
        if type(value) is dict:
            return {key: node.plain() for key, node in value.items()}
        if type(value) is list:
            return [node.plain() for node in value]
        return value

    def at(self, path: Path) -> Node | None:
        """The node under path, None when there is none."""
        node = self
        for part in path:
            inner = node.value
            if type(inner) is list:
                found = isinstance(part, int) and part < len(inner)
            else:
                found = type(inner) is dict and part in inner
            if not found:
                return None
            node = inner[part]
        return node

    def where(self, path: Path = (), *, key: bool = False) -> Where:
        """Place of the value under path, or of its key; of the nearest parent if it is missing."""
        node = self.at(path)
        while node is None:
            path, key = path[:-1], True
            node = self.at(path)
        line, column = (key and node.key) or node.spot
        return Where(node.file, line, column)


@dataclass(slots=True)
class Document:
    """What a file holds: its root mapping (None when there is none) and its mistakes.

    null: it says `null` and nothing else.
    """

    root: Node | None
    errors: list[FleetError] = field(default_factory=list)
    null: bool = False


def describe(value: object) -> str:
    """What a value is, in words, without its content."""
    words: dict[type, str] = {
        dict: "keys with values",
        list: "a list",
        str: "text",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
    }
    return words.get(type(value), "nothing")


def dotted(path: Iterable[str | int]) -> str:
    """services.x.volumes[0].source"""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
