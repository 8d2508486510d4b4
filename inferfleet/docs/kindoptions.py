"""What the page of a kind says of the options of its engine."""

from __future__ import annotations

import json
from collections.abc import Iterator

from inferfleet.docs.text import block, spans, table, wrapped
from inferfleet.schema.kind import Kind
from inferfleet.schema.options import GpuSplit, Options
from inferfleet.services.values import wrong_value

_STYLES = {
    "vllm": "`--name value`; booleans are `--name` and `--no-name`, a list is one flag with "
    "several values",
    "argparse": "`--name value`; a false boolean leaves the flag out, a list is one flag with "
    "several values",
    "llama-cpp": "`--name value`; a false boolean is `--no-name` where the engine has it, a list "
    "repeats the flag",
    "equals": "`--name=value`; a list repeats the flag",
}
_PATHS = (
    "Values that are paths (of the machine, `./FILE` beside the model, `files/FILE` of the service)"
)


def options(kind: Kind) -> list[str]:
    """How they are written, which are not free, and what their values have to be."""
    how = kind.options
    if how.style == "none":
        return [f"None: its settings are {spans([*sorted(kind.sections), 'env'])}."]
    lines = wrapped(f"Written as {_STYLES[how.style]}.")
    lines += _tables(how)
    return lines + [line for told in _lists(how) for line in ["", *wrapped(told)]]


def known(kind: Kind) -> list[str]:
    """Every name that may be set; none where any goes."""
    how = kind.options
    free = [name for name in how.known or () if name not in how.managed]
    if not free:
        return []
    told = f"{len(free)}, read from {how.source}; any other name is refused."
    return [*wrapped(told), *block("text", "\n".join(wrapped(", ".join(free), 96)))]


def _tables(how: Options) -> Iterator[str]:
    rules = {name: wrong_value("?", rule) for name, rule in how.values.items()}
    for head, rows in (
        (["default", "value"], {n: f"`{json.dumps(v)}`" for n, v in how.defaults.items()}),
        (["set by inferbase", "instead use"], how.managed),
        (["option", "its value"], {n: t.removeprefix("should be ") for n, t in rules.items()}),
        (["no longer known", "why, and what to do instead"], how.removed),
        (["newer than the image", "came with"], how.newer),
    ):
        if rows:
            yield from table(head, [[f"`{name}`", told] for name, told in rows.items()])


def _lists(how: Options) -> Iterator[str]:
    for names, told in (
        (how.paths, _PATHS),
        ([how.cpus] if how.cpus else [], "By default the number of the service's CPUs"),
        (how.short, "With a single dash"),
        (how.on_off, "Booleans written as on and off"),
        (how.true_false, "Booleans written as true and false"),
    ):  # fmt: skip
        if names:
            yield f"{told}: {spans(names)}."
    if how.gpus:
        yield from _split(how.gpus)


def _split(split: GpuSplit) -> Iterator[str]:
    factors = " x ".join(" or ".join(f"`{name}`" for name in names) for names in split.factors)
    yield f"Number of GPUs that a model is split over: {factors}."
    for switch, names in split.without.items():
        yield f"With `{switch}` these do not count: {spans(names)}."
    if split.elsewhere:
        yield f"Spread over several machines, so that nothing is counted: {spans(split.elsewhere)}."
