"""Amounts in words."""

from __future__ import annotations

from collections.abc import Iterable

GIB = 1 << 30
MIB = 1 << 20


def size(amount: float) -> str:
    """Bytes as GiB, MiB or KiB, whichever leaves digits to read: 66.25 GiB, 135 MiB."""
    if amount >= GIB:
        return f"{_short(amount / GIB)} GiB"
    if amount >= MIB:
        return f"{amount / MIB:.0f} MiB"
    return f"{amount / 1024:.0f} KiB" if amount >= 1024 else f"{amount:.0f} bytes"


def exact(amount: float, unit: str) -> str:
    """Amount and unit as they were computed: 262,144 bytes/token; 8.32 tokens/s."""
    number = f"{amount:,.0f}" if float(amount).is_integer() else f"{amount:,.2f}"
    return f"{number} {unit}"


def human(amount: float, unit: str) -> str:
    """Short for reading: 66.25 GiB, 262,144 B/token, 271,360 tokens."""
    if unit == "bytes":
        return size(amount)
    if unit == "bytes/token":
        return f"{amount:,.0f} B/token"
    if unit == "tokens/s":
        return f"{amount:,.1f} tokens/s" if amount < 100 else f"{amount:,.0f} tokens/s"
    return f"{amount:,.0f} {unit}" if amount != 1 else f"1 {unit.removesuffix('s')}"


def series(words: Iterable[str]) -> str:
    """a; a and b; a, b and c."""
    found = list(words)
    if len(found) < 2:
        return "".join(found)
    return f"{', '.join(found[:-1])} and {found[-1]}"


def _short(number: float) -> str:
    text = f"{number:,.2f}"
    return text.rstrip("0").rstrip(".")
