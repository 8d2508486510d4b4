"""Markdown as the generated pages are made of it."""

from __future__ import annotations

from typing import Any


def table(head: list[str], rows: list[list[Any]]) -> list[str]:
    """A table between empty lines."""

    def line(cells: list[Any]) -> str:
        return "| " + " | ".join(_cell(cell) for cell in cells) + " |"

    return ["", line(head), "|" + "---|" * len(head), *map(line, rows), ""]


def text(lines: list[str]) -> str:
    """Joined, without empty lines that follow one another."""
    kept = [line for at, line in enumerate(lines) if line or (at and lines[at - 1])]
    return "\n".join(kept).rstrip("\n") + "\n"


def _cell(value: Any) -> str:
    return "-" if value is None else str(value).replace("|", "\\|")
