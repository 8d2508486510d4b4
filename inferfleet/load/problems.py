"""pydantic's complaints in the words of the file: place, path, what is wrong, what to write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from inferfleet.errors import USAGE, FleetError
from inferfleet.names import name_hint, nearest
from inferfleet.schema.nodes import Node, Path, describe, dotted

# pydantic error type -> what was expected. Several of them at one place come from a union.
_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "model_attributes_type": "keys with values",
    "none_required": "nothing",
}
_BOUNDS = {
    "less_than_equal": ("is above", "le"),
    "greater_than_equal": ("is below", "ge"),
    "less_than": ("is not below", "lt"),
    "greater_than": ("is not above", "gt"),
}
_SWITCHES = frozenset({"yes", "no", "on", "off", "y", "n"})
# Words of other tools for what one of ours means.
_SYNONYMS = {
    "docker": "compose",
    "docker-compose": "compose",
    "container": "compose",
    "podman": "compose",
    "native": "systemd",
}
# Values under these keys may be secrets that were written down by mistake: never repeated.
_PRIVATE = frozenset({"secrets", "env"})


def problems(
    error: ValidationError, root: Node, model: type[BaseModel]
) -> list[tuple[Path, FleetError]]:
    """(path, FleetError) for each place of root that error complains about."""
    by_path: dict[Path, list[Any]] = {}
    for detail in error.errors(include_url=False, include_input=False):
        by_path.setdefault(_path(detail["loc"], detail["type"], root), []).append(detail)
    for path in list(by_path):
        # A branch of a union that got further says more than those that refused the shape.
        if any(other[: len(path)] == path for other in by_path if len(other) > len(path)):
            by_path[path] = [detail for detail in by_path[path] if not _is_shape(detail)]
    return [
        (path, told)
        for path, details in by_path.items()
        for told in _explain(path, details, root, model)
    ]


def problem_paths(error: ValidationError, root: Node) -> dict[Path, bool]:
    """Each place of root that error complains about, and whether only of the key's own form."""
    found: dict[Path, bool] = {}
    for detail in error.errors(include_url=False, include_input=False, include_context=False):
        path = _path(detail["loc"], detail["type"], root)
        found[path] = detail["loc"][-1:] == ("[key]",) and found.get(path, True)
    return found


def problem(root: Node, path: Path, what: str, hint: str = "", *, key: bool = False) -> FleetError:
    """A FleetError about the value (or the key) under path."""
    text = f"{dotted(path)}: {what}" if path else what
    return FleetError(text, hint, root.where(path, key=key), USAGE)


def _is_shape(detail: Any) -> bool:
    return detail["type"] in _EXPECTED or detail["type"] == "literal_error"


def _path(loc: tuple[str | int, ...], kind: str, root: Node) -> Path:
    """loc without the names of union branches and validators that pydantic puts in it."""
    path: Path = ()
    for part in loc[:-1] if kind == "missing" else loc:
        if root.at((*path, part)) is not None:
            path = (*path, part)
    return (*path, loc[-1]) if kind == "missing" else path


def _explain(
    path: Path, details: list[Any], root: Node, model: type[BaseModel]
) -> Iterator[FleetError]:
    expected = [_EXPECTED[detail["type"]] for detail in details if detail["type"] in _EXPECTED]
    others = [detail for detail in details if detail["type"] not in _EXPECTED]
    if expected and all(detail["type"] == "literal_error" for detail in others):
        words = [word for detail in others for word in _allowed(detail)]
        yield _type_problem(path, list(dict.fromkeys(words + expected)), root)
        return
    seen: set[str] = set()
    for detail in others:
        told = _other_problem(path, detail, root, model)
        if told.what not in seen:
            seen.add(told.what)
            yield told


def _type_problem(path: Path, expected: list[str], root: Node) -> FleetError:
    node = root.at(path)
    value = node.value if node else None
    words = expected[0] if len(expected) == 1 else f"{', '.join(expected[:-1])} or {expected[-1]}"
    hint = ""
    if "text" in expected and isinstance(value, bool | int | float):
        hint = "put it in quotes"
    elif "true or false" in expected and isinstance(value, str) and value.lower() in _SWITCHES:
        hint = "write true or false"
    elif "a list" in expected and isinstance(value, str | int | float):
        shown = value if str(value).isalnum() else _shown(path, value)
        hint = f"write [{shown}]" if _shown(path, value) else "write it in [ ]"
    return problem(root, path, f"should be {words}, found {_found(path, value)}", hint)


def _other_problem(path: Path, detail: Any, root: Node, model: type[BaseModel]) -> FleetError:
    kind = detail["type"]
    node = root.at(path)
    value = node.value if node else None
    shown = _shown(path, value)
    context = detail.get("ctx", {})
    if kind == "extra_forbidden":
        hint = name_hint(str(path[-1]), _keys(model, path[:-1]), "valid keys")
        if inner := _deeper(model, path):
            hint = f"it is a key of each of {inner}: {inner}.NAME.{path[-1]}"
        return problem(root, path, "unknown key", hint, key=True)
    if kind == "missing":
        return problem(root, path, "is missing", key=True)
    if kind in _BOUNDS:
        words, limit = _BOUNDS[kind]
        return problem(root, path, f"{shown} {words} {context[limit]:g}".lstrip())
    if kind == "literal_error":
        allowed = _allowed(detail)
        near = nearest(str(value), allowed)
        if near is None and _SYNONYMS.get(str(value)) in allowed:
            near = _SYNONYMS[str(value)]
        hint = f"did you mean {near}?" if near and shown else ""
        return problem(root, path, f"{shown or 'it'} is none of {', '.join(allowed)}", hint)
    if kind == "value_error":
        what, _, hint = str(context["error"]).partition("; ")
        on_key = detail["loc"][-1] == "[key]"
        subject = "the key" if on_key else shown
        return problem(root, path, f"{subject} {what}".strip(), hint, key=on_key)
    return problem(root, path, detail["msg"][:1].lower() + detail["msg"][1:])


def _allowed(detail: Any) -> list[str]:
    """The words of a Literal, which pydantic lists as 'a', 'b' or 'c'."""
    return [word.strip("'") for word in detail["ctx"]["expected"].replace(" or ", ", ").split(", ")]


def _shown(path: Path, value: object) -> str:
    """A scalar as it stands in the file; nothing for what may be a secret or is long."""
    if value is None or isinstance(value, dict | list) or _PRIVATE.intersection(path):
        return ""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f'{text[:56]}..."'


def _found(path: Path, value: object) -> str:
    shown = _shown(path, value)
    return (
        f"{describe(value)} {shown}" if shown and not isinstance(value, bool) else describe(value)
    )


def _keys(model: type[BaseModel], path: Path) -> list[str]:
    """The keys that the schema allows in the mapping under path."""
    models: list[type[BaseModel]] = [model]
    inside = False
    for part in path:
        if inside:  # part is a name that the user chose in a dict or list of models
            inside = False
            continue
        annotation = next(
            (
                info.annotation
                for owner in models
                for name, info in owner.model_fields.items()
                if part in (name, info.alias)
            ),
            None,
        )
        models = list(_models(annotation))
        inside = _holds_many(annotation)
    return [info.alias or name for owner in models for name, info in owner.model_fields.items()]


def _deeper(model: type[BaseModel], path: Path) -> str:
    """The key beside an unknown one under which each entry has a key of this name, or ""."""
    if len(path) != 1:
        return ""
    for name, info in model.model_fields.items():
        inner = list(_models(info.annotation)) if _holds_many(info.annotation) else []
        if inner and path[0] in _keys(inner[0], ()):
            return info.alias or name
    return ""


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _holds_many(annotation: Any) -> bool:
    origin = getattr(annotation, "__origin__", None)
    if origin in (dict, list, tuple):
        return True
    return any(_holds_many(inner) for inner in get_args(annotation))
