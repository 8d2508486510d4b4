"""Markdown as the generated pages are made of it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

NOTE = "<!-- Made by `python -m inferfleet.docs`; edits here are lost. -->"


def table(head: list[str], rows: list[list[Any]]) -> list[str]:
    """A table between empty lines."""

    def line(cells: list[Any]) -> str:
        return "| " + " | ".join(_cell(cell) for cell in cells) + " |"

    return ["", line(head), "|" + "---|" * len(head), *map(line, rows), ""]


def text(lines: list[str]) -> str:
    """Joined, without empty lines that follow one another."""
    kept = [line for at, line in enumerate(lines) if line or (at and lines[at - 1])]
    return "\n".join(kept).rstrip("\n") + "\n"


def part(head: str, body: list[str]) -> list[str]:
    """A section, or nothing where it would have no content."""
    return ["", f"## {head}", "", *body, ""] if body else []


def block(language: str, content: str) -> list[str]:
    """A fenced block."""
    return ["", f"```{language}", *content.rstrip("\n").splitlines(), "```", ""]


def wrapped(words: str, width: int = 98) -> list[str]:
    """The lines of a paragraph."""
    return textwrap.wrap(words, width, break_long_words=False, break_on_hyphens=False)


def spans(names: Iterable[str]) -> str:
    """Names as code, with commas."""
    return ", ".join(f"`{name}`" for name in names)


def span(seconds: int) -> str:
    """A time as one writes it in a file."""
    return f"{seconds // 60}m" if seconds and seconds % 60 == 0 else f"{seconds}s"


def amount(size: int) -> str:
    """Bytes as one writes them in a file."""
    for bits, unit in ((30, "G"), (20, "M"), (10, "K")):
        if size % (1 << bits) == 0:
            return f"{size >> bits}{unit}"
    return str(size)


def _cell(value: Any) -> str:
    return "-" if value is None else str(value).replace("|", "\\|")
