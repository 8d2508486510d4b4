"""Laying a consumer's file over ours of the same name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from inferfleet.errors import FleetError
from inferfleet.schema.nodes import Node


def merge(base: Node, over: Node) -> Node:
    """Over laid on base, every value keeping its own place.

    Mappings merge key by key; anything else (lists too) replaces; null removes a key of base.
    """
    if type(base.value) is not dict or type(over.value) is not dict:
        return over
    merged: dict[str, Node] = dict(base.value)
    for name, node in over.value.items():
        if name not in merged:
            merged[name] = node
        elif node.value is None:
            del merged[name]
        else:
            merged[name] = merge(merged[name], node)
    return Node(merged, over.file, over.spot, over.key, base.size + over.size)


def alone(node: Node) -> bool:
    """Whether a file says that it starts anew: `merge: false`."""
    said = node.value.get("merge") if type(node.value) is dict else None
    return said is not None and said.value is False


def with_sources(
    errors: Iterable[FleetError], sources: Mapping[tuple[str, str], tuple[str, ...]]
) -> list[FleetError]:
    """The errors, those about something that several files make up saying which files."""
    merged = {name: files for (_, name), files in sources.items() if len(files) > 1}
    laid = {file: (name, files) for name, files in merged.items() for file in files}
    found = []
    for error in errors:
        name, files = laid.get(error.where.file if error.where else "", ("", ()))
        if files:
            where = f"{name} is {files[-1]} laid over {files[0]}; `merge: false` starts anew"
            hint = f"{error.hint}; {where}" if error.hint else where
            error = FleetError(error.what, hint, error.where, error.code)
        found.append(error)
    return found
