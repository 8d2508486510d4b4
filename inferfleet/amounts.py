"""Sizes, times and CPU lists as people write them; without the libraries that check files."""

from __future__ import annotations

import re

# The kernel's own upper bound (NR_CPUS on x86_64 and arm64 is at most 8192).
MAX_CPUS = 8192
_SIZE = re.compile(r"([0-9]{1,15})([kmgt]?)(?:ib)?", re.IGNORECASE)
_AMBIGUOUS = re.compile(r"[0-9]{1,15}[kmgt]b", re.IGNORECASE)
_SPAN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(s|m|h|)")
_SPAN_FACTOR = {"": 1, "s": 1, "m": 60, "h": 3600}
_SIZE_FACTOR = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_size(value: object) -> int:
    """'96G' or a number of bytes to bytes; K, M, G, T are powers of 1024."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        return int(match[1]) * _SIZE_FACTOR[match[2].lower()]
    if isinstance(value, str) and _AMBIGUOUS.fullmatch(value):
        raise ValueError(f"is 1000 or 1024 for each step; write {value[:-1]}, which is 1024 here")
    raise ValueError("is not a size; write a number with K, M, G or T, such as 96G")


def parse_span(text: str) -> float:
    """'10s', '5m', '2h' or a bare number of seconds to seconds. Raises ValueError."""
    match = _SPAN.fullmatch(text)
    if match is None:
        raise ValueError("is not a span of time; write a number with s, m or h, such as 5m")
    return float(match[1]) * _SPAN_FACTOR[match[2]]


def cpuset_cpus(text: str) -> frozenset[int]:
    """The CPU numbers of a valid CPU list."""
    cpus: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        start, stop = int(first), int(last or first)
        if stop < start:
            raise ValueError(f"is not a CPU list; {part} counts down")
        if stop >= MAX_CPUS:
            raise ValueError(f"is not a CPU list; CPUs are numbered below {MAX_CPUS}")
        cpus.update(range(start, stop + 1))
    return frozenset(cpus)
