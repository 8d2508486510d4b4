"""The reference pages and the tables of the guides, and writing them into the repository."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from inferfleet.docs.text import NOTE, table, text
from inferfleet.docs.typenames import PLACEHOLDERS, TYPES, Names, model_of
from inferfleet.release.write import bring_up_to_date

if TYPE_CHECKING:
    from inferfleet.schema.fleet import Fleet

FOLDER = "docs/reference"
VALUES = {
    "host": "NAME", "group": "NAME", "service": "NAME", "format": "table|json", "out": "PATH",
    "to": "N", "seconds": "SPAN",
}  # fmt: skip


def reference() -> dict[str, str]:
    """File name in FOLDER -> its text."""
    from inferfleet.docs.kinds import kind_pages
    from inferfleet.docs.profiles import profile_tables
    from inferfleet.load.load import FILE_KINDS

    fleet = shipped_fleet()
    kinds = [
        [
            f"[{name}](kinds/{name}.md)",
            kind.api,
            kind.default_port,
            ", ".join(kind.runtimes),
            kind.summary,
        ]
        for name, kind in sorted(fleet.kinds.items())
    ]
    hardware = [[name, found.summary] for name, found in sorted(fleet.hardware.items())]
    holders = [[f"`{{{name}}}`", meaning] for name, meaning in PLACEHOLDERS.items()]
    return {
        "tasks.md": _tasks(),
        "machine.md": _model(
            FILE_KINDS["machine"],
            "machine file",
            ["`inventory/NAME.yaml`, one for each machine; NAME is the machine's name."],
        ),
        "hardware.md": _model(
            FILE_KINDS["hardware"],
            "hardware file",
            ["`inventory/hardware/NAME.yaml`, named by `hardware:` of a machine file."],
            ["## Hardware that is here", *table(["name", "what"], hardware)],
        ),
        "model.md": _model(
            FILE_KINDS["model"],
            "model file",
            ["`inventory/models/NAME.yaml`, named by `model:` of a service."],
        ),
        "kind.md": _model(
            FILE_KINDS["service"],
            "kind file",
            ["`services/NAME.yaml`, named by `kind:` of a service."],
            [
                "## Kinds that are here",
                *table(["name", "api", "port", "runtimes", "what"], kinds),
                "## Placeholders",
                "Filled in where the type is *template* or *arguments*; `{options}` alone stands",
                "for the flags of the service's options. A list inside `command:` is left out as",
                "a whole when one of its placeholders has no value.",
                *table(["placeholder", "stands for"], holders),
            ],
        ),
        "profile.md": _model(
            FILE_KINDS["profile"],
            "profile",
            ["`hostprep/NAME.yaml`, named by `hostprep:` of a machine file."],
            profile_tables(fleet),
        ),
        **kind_pages(fleet),
    }


def shipped_fleet() -> Fleet:
    """Our own files, without an overlay."""
    from inferfleet.load.load import load_fleet
    from inferfleet.paths import Roots, find_roots

    return load_fleet(Roots(find_roots().data))


def write_reference(root: Path) -> list[str]:
    """Bring the files in root/FOLDER up to date; the names of those that were not."""
    return bring_up_to_date(root / FOLDER, reference())


def _tasks() -> str:
    from inferfleet.tasks import ns

    lines = [
        "# Tasks", NOTE, "",
        "`invoke TASK [OPTIONS]`; `invoke --help TASK` prints the same as here. A consumer writes",
        "`invoke infra.TASK`. Repeatable options are written once for each value.", "",
    ]  # fmt: skip
    for name in ns.task_names:
        task: Any = ns[name]
        arguments = arguments_of(task)
        also = "".join(f" Also called `{alias}`." for alias in ns.task_names[name])
        lines += [f"## {name}", "", str(task.__doc__).strip() + also, ""]
        words = [f"invoke {name}", *(f"[{_usage(argument)}]" for argument in arguments)]
        lines += [*_wrap(words), ""]
        rows = [[_flags(argument), _shown(argument), argument.help or ""] for argument in arguments]
        lines += table(["option", "default", "meaning"], rows) if rows else []
    return text(lines)


def arguments_of(task: Any) -> list[Any]:
    """The task's options. Invoke takes each help text away when it is asked for them."""
    texts = dict(task.help)
    found: list[Any] = task.get_arguments()
    task.help.update(texts)
    return found


def _flags(argument: Any) -> str:
    return ", ".join(f"`{'-' if len(n) == 1 else '--'}{_dashed(n)}`" for n in argument.names)


def _dashed(name: str) -> str:
    return name.strip("_").replace("_", "-")


def _usage(argument: Any) -> str:
    flag = f"--{_dashed(argument.name)}"
    if argument.kind is bool:
        return flag
    value = VALUES.get(argument.name, "N" if argument.kind is int else "TEXT")
    return f"{flag} {value}{' ...' if argument.kind is list else ''}"


def _shown(argument: Any) -> str:
    if argument.kind is bool:
        return "on" if argument.default else "off"
    return str(argument.default) if argument.default not in ("", None, []) else "-"


def _wrap(words: list[str]) -> list[str]:
    """An indented synopsis of at most 100 columns."""
    lines = [f"    {words[0]}"]
    for word in words[1:]:
        if len(lines[-1]) + len(word) > 95:
            lines.append(" " * 8 + word)
        else:
            lines[-1] += f" {word}"
    return lines


def _model(model: Any, title: str, intro: list[str], tail: list[str] | None = None) -> str:
    names = Names()
    body: list[str] = []
    for path, part in sections(model):
        body += [f"## {path}" if path else "## Keys", "", *_doc(part), ""]
        rows = []
        for key, field, hint in fields_of(part):
            label = names.label(hint, f"{path}.{key}" if path else key)
            rows.append([f"`{key}`", label, _default(field), field.description or ""])
        body += table(["key", "type", "default", "meaning"], rows)
    types = [[label, TYPES[label]] for label in sorted(names.used)]
    lines = [f"# The {title}", NOTE, "", *intro, "", *body, *(tail or [])]
    return text([*lines, "## Types", "", *table(["type", "what is written"], types)])


def sections(model: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The model and every model below it, each with the keys that lead to it."""
    yield path, model
    for key, _, hint in fields_of(model):
        for below, suffix in model_of(hint):
            yield from sections(below, f"{path}.{key}{suffix}".lstrip("."))


def fields_of(model: Any) -> Iterator[tuple[str, Any, Any]]:
    """(key in the file, pydantic's field, annotation) in the order of the class."""
    from typing import get_type_hints

    hints = get_type_hints(model, include_extras=True)
    for name, field in model.model_fields.items():
        yield field.alias or name, field, hints[name]


def _doc(model: Any) -> list[str]:
    return [line.strip() for line in str(model.__doc__).strip().splitlines()]


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None or value == "" or isinstance(value, BaseModel):
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"`{value}`"


def main(root: Path) -> None:
    """Bring reference and guides up to date, and say which were not."""
    from inferfleet.docs.profiles import GUIDES, write_guides

    for name in write_reference(root):
        sys.stderr.write(f"written: {FOLDER}/{name}\n")
    for name in write_guides(root, shipped_fleet()):
        sys.stderr.write(f"written: {GUIDES}/{name}\n")
