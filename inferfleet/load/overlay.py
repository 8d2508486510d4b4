"""Laying a consumer's file over ours of the same name."""

from __future__ import annotations

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
