"""A kind's argument list and a service's options as the words of a command line; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from inferfleet.errors import USAGE, FleetError
from inferfleet.schema.fields import Option, Scalar
from inferfleet.schema.options import Options
from inferfleet.schema.placeholders import OPTIONS, Argv, fill, placeholders


def merge_options(defaults: Mapping[str, Option], own: Mapping[str, Option]) -> dict[str, Option]:
    """Defaults overlaid by the service's own; a null removes a default. Sorted by name."""
    merged = {**defaults, **own}
    return {name: merged[name] for name in sorted(merged) if merged[name] is not None}


def flags(options: Mapping[str, Option], how: Options) -> list[str]:
    """The words that say these options. Raises FleetError for what the engine cannot be told."""
    if how.style == "none":
        if options:
            raise FleetError(
                f"this kind takes no options, but {', '.join(options)} is set",
                "its settings are environment variables: use env",
                code=USAGE,
            )
        return []
    style = {"llama-cpp": _llama, "equals": _equals}.get(how.style, _vllm)
    return [word for name, value in options.items() for word in style(name, value, how)]


def build(template: Argv, values: Mapping[str, str | None], options: Sequence[str]) -> list[str]:
    """The words of an argument list; groups with an unset placeholder are left out."""
    known = {name: value for name, value in values.items() if value is not None}
    words: list[str] = []
    for part in template:
        if part == OPTIONS:
            words += options
            continue
        group = [part] if isinstance(part, str) else part
        if all(name in known for word in group for name in placeholders(word)):
            words += [fill(word, known) for word in group]
    return words


def text(value: Scalar) -> str:
    """A scalar as a command line or an environment variable says it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _vllm(name: str, value: Option, how: Options) -> list[str]:
    name = name.replace("_", "-")
    flag = f"--{name}"
    if isinstance(value, bool):
        if name in how.true_false:
            return [flag, text(value)]
        # vLLM 0.32 knows only the no- form of a negation, 0.33 still accepts it.
        return [flag] if value else [f"--no-{name}"] if how.style == "vllm" else []
    if isinstance(value, list):
        words = [text(item) for item in value]
        if any(word.startswith("-") for word in words):
            raise FleetError(
                f"a value in the list {name} begins with a dash, as only an option may",
                code=USAGE,
            )
        return [flag, *words] if words else []
    word = _word(value)
    return [f"{flag}={word}"] if word.startswith("-") else [flag, word]


def _llama(name: str, value: Option, how: Options) -> list[str]:
    flag = f"-{name}" if name in how.short else f"--{name}"
    if isinstance(value, bool):
        if name in how.on_off:
            return [flag, "on" if value else "off"]
        if name in how.true_false:
            return [flag, text(value)]
        if value:
            return [flag]
        return [f"--no-{name}"] if f"no-{name}" in (how.known or ()) else []
    if isinstance(value, list):
        return [word for item in value for word in (flag, text(item))]
    return [flag, _word(value)]


def _equals(name: str, value: Option, how: Options) -> list[str]:
    values: list[Option] = list(value) if isinstance(value, list) else [value]
    return [f"--{name}={_word(item)}" for item in values]


def _word(value: Option) -> str:
    if isinstance(value, dict):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    assert isinstance(value, bool | int | float | str)
    return text(value)
