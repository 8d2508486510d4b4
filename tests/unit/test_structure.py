"""The map of the engine is its structure: all of it is named there, and imports point down."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ENGINE = Path(__file__).parents[2] / "inferfleet"
MAP = ENGINE / "README.md"
# The door for consumers' code; it imports what it hands out only when asked.
DOOR = "__init__"


def on_the_map() -> list[list[str]]:
    """The places of each line of the table, from the top down."""
    lines = [
        line.split("|")[1] for line in MAP.read_text("ascii").splitlines() if line[:3] == "| `"
    ]
    return [re.findall(r"`(\w+)(?:/|\.py)`", line) for line in lines]


def imported(tree: ast.AST, of: Path) -> Iterator[str]:
    """The modules of ours that code imports, anywhere but for types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        assert not isinstance(node, ast.ImportFrom) or not node.level, f"{of}: relative import"
        if isinstance(node, ast.ImportFrom) and node.module == "inferfleet":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("inferfleet."):
            yield (node.module or "").split(".")[1]
        else:
            yield from imported(node, of)


def test_every_place_is_on_the_map_once() -> None:
    there = [p.stem for p in ENGINE.glob("*.py")] + [p.parent.name for p in ENGINE.glob("*/*.py")]
    named = [place for line in on_the_map() for place in line]
    assert sorted(named) == sorted(set(there) - {DOOR})


def test_imports_point_down() -> None:
    height = {place: -i for i, line in enumerate(on_the_map()) for place in line}
    up = []
    for path in ENGINE.rglob("*.py"):
        own = path.relative_to(ENGINE).parts[0].removesuffix(".py")
        if own != DOOR:
            names = imported(ast.parse(path.read_text()), path)
            up += [f"{path.name}: {name}" for name in names if height[name] > height[own]]
    assert up == []
