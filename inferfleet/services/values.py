"""Values of an engine's options against what its kind says of them; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inferfleet.schema.options import OptionValue

# As vLLM reads it: fractions only of powers of 1000, which small letters stand for.
_SIZE = re.compile(r"([0-9]+)([kKmMgGtT]?)|([0-9]+\.[0-9]+)([kmgt])")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_TYPES = {
    "whole": "a whole number",
    "number": "a number",
    "size": "a size such as 4096, 4K or 1.5k",
}
# Values of switches that are off, and of a count that is one.
_NONE = ("None", "", "0", "1", "false")


def wrong_value(value: object, rule: OptionValue) -> str:
    """What a value should be, "" if it is. A list is several values of one option."""
    if isinstance(value, list | tuple):
        return next((told for one in value if (told := wrong_value(one, rule))), "")
    text = _text(value)
    words = [_text(word) for word in rule.words]
    # vLLM takes its words for lengths in letters of either size.
    if text in words or (rule.type == "size" and text.lower() in words):
        return ""
    if rule.one_of:
        return "" if text in rule.one_of else f"should be one of {', '.join(rule.one_of)}"
    if rule.type is None:
        return ""
    number = _number(value, rule.type)
    if number is not None and _inside(number, rule):
        return ""
    return " or ".join([f"should be {_TYPES[rule.type]}{_bounds(rule)}", *words])


def gpu_count(split: Mapping[str, Any], options: Mapping[str, Any]) -> int | None:
    """How many GPUs these options split a model over, None when that cannot be said here.

    split: the kind's options.gpus as plain data.
    """
    given = {name.replace("_", "-"): value for name, value in options.items()}
    if any(_given(given, name) for name in split.get("elsewhere", ())):
        return None
    idle = {
        option
        for switch, names in split.get("without", {}).items()
        if _given(given, switch)
        for option in names
    }
    count = 1
    for names in split["factors"]:
        value = next((given[name] for name in names if given.get(name) is not None), 1)
        if not idle & set(names):
            count *= max(int(_number(value, "whole") or 1), 1)
    return count


def split_words(split: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """The factors that are set, such as 'tensor-parallel-size 4 x data-parallel-size 2'."""
    given = {name.replace("_", "-"): value for name, value in options.items()}
    found = (next((n for n in names if given.get(n) is not None), "") for names in split["factors"])
    return " x ".join(f"{name} {given[name]}" for name in found if name)


def split_names(split: Mapping[str, Any], options: Sequence[str]) -> list[str]:
    """Of these options those that split a model, as they are written."""
    known = {name for names in split["factors"] for name in names}
    return [name for name in options if name.replace("_", "-") in known]


def _given(options: Mapping[str, Any], name: str) -> bool:
    """Whether NAME is set, or NAME=VALUE is so."""
    key, equals, wanted = name.partition("=")
    value = options.get(key)
    return _text(value) == wanted if equals else _text(value) not in _NONE


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(value: object, kind: str) -> float | None:
    if isinstance(value, bool):
        return None
    text = str(value).strip()
    if kind == "size":
        match = _SIZE.fullmatch(text)
        if match is None:
            return None
        unit = match[2] or match[4] or ""
        base = 1024 if unit.isupper() else 1000
        return float(match[1] or match[3]) * float(base ** _POWERS[unit.lower()])
    try:
        number = float(text)
    except ValueError:
        return None
    whole = kind == "number" or (number.is_integer() and not set(text) & set(".eE"))
    return number if isfinite(number) and whole else None


def _inside(number: float, rule: OptionValue) -> bool:
    return (
        (rule.above is None or number > rule.above)
        and (rule.least is None or number >= rule.least)
        and (rule.most is None or number <= rule.most)
    )


def _bounds(rule: OptionValue) -> str:
    found = []
    if rule.above is not None:
        found.append(f"above {rule.above:g}")
    if rule.least is not None:
        found.append(f"at least {rule.least:g}")
    if rule.most is not None:
        found.append(f"at most {rule.most:g}")
    return f", {' and '.join(found)}" if found else ""
