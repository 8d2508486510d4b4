"""Everything that is printed: tables and JSON on stdout, all else on stderr."""

from __future__ import annotations

import json
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, TextIO

from inferfleet.events import Event

FETCH_SECONDS = 2.0
# The steps worth a line; the others take milliseconds.
STEPS = {
    "upload": "uploading the release",
    "stop": "stopping services",
    "start": "starting services",
    "revert": "rolling back",
}


def say(text: str, redact: Callable[[str], str] = str, stream: TextIO | None = None) -> None:
    """One line or more for the reader, on stderr."""
    out = stream or sys.stderr
    out.write(redact(text).rstrip("\n") + "\n")
    out.flush()


def prepare_table() -> None:
    """Import what draws tables (40 ms) in the background, while machines are waited for."""
    if not sys.stdout.isatty():
        return
    threading.Thread(target=import_module, args=("rich.table",), daemon=True).start()


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Rows as a table on stdout; on a terminal that is too narrow as `narrow_table` says."""
    if not sys.stdout.isatty():
        sys.stdout.writelines(f"{line}\n" for line in plain_table(rows, columns))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    if max(map(len, plain_table(rows, columns))) > console.width:
        console.print("\n".join(narrow_table(rows, columns, console.width)), soft_wrap=True)
        return
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        drawn.add_column(_head(column), overflow="fold")
    for row in rows:
        drawn.add_row(*(_cell(row.get(column)) for column in columns))
    console.print(drawn)


def narrow_table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], width: int
) -> list[str]:
    """The lines of a table that is wider than a terminal of this many characters.

    Columns that are empty go, then, while it is still too wide, those that say the same in every
    row, which a line above says once; then the widest ones but the first stand below each row,
    with their names.
    """
    cells = [{c: " ".join(_cell(row.get(c)).splitlines()) for c in columns} for row in rows]
    kept = [c for c in columns if any(row[c] not in {"", "-"} for row in cells)]
    below: list[str] = []
    same = [c for c in kept if len(cells) > 1 and len({row[c] for row in cells}) == 1]
    once: list[str] = []
    while same and len(kept) > 1 and _wide(cells, kept) > width:
        once.append(same.pop(0))
        kept.remove(once[-1])
    while len(kept) > 1 and _wide(cells, kept) > width:
        widest = max(kept[1:], key=lambda c: max(len(row[c]) for row in cells))
        kept.remove(widest)
        below.append(widest)
    head, *lines = plain_table(rows, kept)
    found = _said("all: ", "  ", cells[0], once, width) if once else []
    found.append(head)
    for line, row in zip(lines, cells, strict=True):
        found.append(line)
        said = [c for c in columns if c in below and row[c] not in {"", "-"}]
        found += _said("    ", "      ", row, said, width)
    return found


def _said(
    first: str, indent: str, row: Mapping[str, str], columns: Sequence[str], width: int
) -> list[str]:
    """Some columns of a row as lines of text."""
    return textwrap.wrap(
        "; ".join(f"{_head(column).lower()}: {row[column]}" for column in columns), width,
        initial_indent=first, subsequent_indent=indent, break_on_hyphens=False,
    )  # fmt: skip


def _wide(cells: Sequence[Mapping[str, str]], columns: Sequence[str]) -> int:
    """Characters that a table of these columns takes."""
    return sum(max([len(c), *(len(row[c]) for row in cells)]) + 2 for c in columns) - 2


def plain_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """The lines of a table for a file or a pipe: a line for each row, whatever its length."""
    cells = [[_head(column) for column in columns]]
    cells += [[" ".join(_cell(row.get(c)).splitlines()) for c in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


def _head(column: str) -> str:
    return column.upper().replace("_", " ")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "-"
    return str(value)


def data(value: Any) -> None:
    """JSON on stdout, nothing else."""
    json.dump(value, sys.stdout, indent=2, default=str)
    sys.stdout.write("\n")


def hidden(value: Any, redact: Callable[[str], str]) -> Any:
    """The same data with every text in it redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: hidden(entry, redact) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [hidden(entry, redact) for entry in value]
    return value


def output(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], form: str, empty: str = ""
) -> None:
    """A table for people or JSON for programs, by --format. empty: said where there is no row."""
    if form == "json":
        data(list(rows))
    elif rows or not empty:
        table(rows, columns)
    else:
        say(empty)


class Reporter:
    """Shows events as they come: a line each, fetches at most every two seconds."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact
        self._lock = threading.Lock()
        self._began: dict[tuple[str, str], tuple[float, int]] = {}
        self._last: dict[tuple[str, str], float] = {}

    def __call__(self, event: Event) -> None:
        who = f"{event.machine} {event.service}".strip()
        with self._lock:
            if event.kind == "fetch":
                self._fetch(event)
            elif event.kind == "step":
                if event.text in STEPS:
                    say(f"{who}: {STEPS[event.text]}", self._redact)
            else:
                indent = "  " if event.kind == "log" else ""
                text = event.text.strip() if event.kind == "log" else event.text
                if text:
                    say(f"{who}: {indent}{text}", self._redact)

    def _fetch(self, event: Event) -> None:
        key, now = (event.machine, event.text), time.monotonic()
        began, first = self._began.setdefault(key, (now, event.done))
        finished = event.total is not None and event.done >= event.total
        if not finished and now - self._last.get(key, 0.0) < FETCH_SECONDS:
            return
        if finished and key in self._last and self._last[key] < 0:
            return
        self._last[key] = -1.0 if finished else now
        rate = (event.done - first) / max(now - began, 0.001)
        line = f"{event.machine}: {event.doing} {event.text}: {mib(event.done)}"
        if event.total:
            line += f" of {mib(event.total)} ({100 * event.done // event.total} %)"
            if rate > 0 and not finished:
                line += f", {int((event.total - event.done) / rate)} s left"
        say(line, self._redact)


def mib(count: int) -> str:
    """Bytes as MiB or GiB."""
    return f"{count / (1 << 30):.1f} GiB" if count >= 10 << 30 else f"{count / (1 << 20):.0f} MiB"
