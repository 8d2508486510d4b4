"""Nodes as YAML text again: one value a line, so that each can say where it stands."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from inferfleet.escape import yaml_string, yaml_value
from inferfleet.load import yaml12
from inferfleet.schema.nodes import Node

# One word that no parser of YAML, 1.1 or 1.2, takes for anything but text.
_BARE = re.compile(r"(?=.*[A-Za-z/])[A-Za-z0-9/~][A-Za-z0-9_./@~+=:-]*|([0-9]+\.){3}[0-9]+")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "null", "true", "false"})
_NUMBER = re.compile(r"[0-9][0-9_]*(\.[0-9_]*)?([eE].*)?|0[xob].*")


def written(node: Node, told: Callable[[Node], str], depth: int = 0) -> Iterator[str]:
    """The lines of a mapping. told: the remark behind a value, "" for none."""
    pad = "  " * depth
    for key, inner in node.value.items():
        head = f"{pad}{_text(key)}:"
        if type(inner.value) is dict and inner.value:
            yield head
            yield from written(inner, told, depth + 1)
        elif type(inner.value) is list and any(type(i.value) in (dict, list) for i in inner.value):
            yield head
            for item in inner.value:
                yield _with(f"{pad}  - {_flow(item)}", told(item))
        else:
            yield _with(f"{head} {_flow(inner)}", told(inner))


def _with(line: str, remark: str) -> str:
    return f"{line}  # {remark}" if remark else line


def _flow(node: Node) -> str:
    return _value(node.plain())


def _value(value: object) -> str:
    if isinstance(value, dict):
        pairs = (f"{_text(key)}: {_value(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return _text(value) if isinstance(value, str) else yaml_value(value)


def _text(text: str) -> str:
    plain = _BARE.fullmatch(text) and text[-1] != ":" and text.lower() not in _WORDS
    if plain and not _NUMBER.fullmatch(text) and yaml12.scalar(text) == text:
        return text
    return yaml_string(text)
