"""What can still be read of a file with mistakes: the rest of it is UNREADABLE."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from inferfleet.load.problems import problem_paths
from inferfleet.names import nearest
from inferfleet.schema.fields import Model
from inferfleet.schema.nodes import Node, Path
from inferfleet.schema.unreadable import UNREADABLE

# Each round takes a value away; a file whose every value is wrong is not worth more of them.
_ROUNDS = 40

M = TypeVar("M", bound=Model)


def partial(model: type[M], node: Node, error: ValidationError) -> M:
    """The model of node with everything that is wrong taken out, UNREADABLE in its place.

    error: what is wrong with it. UNREADABLE itself when nothing is left.
    """
    data = node.plain()
    cut: set[Path] = set()
    wrong = problem_paths(error, node)
    # Under a name that cannot be one there is nothing that others could mean.
    nameless = {path for path, is_key in wrong.items() if is_key}
    left = {_whole_list(path) for path in wrong}
    for _ in range(_ROUNDS):
        cut |= {_take(data, path) for path in left}
        if () in cut:
            return UNREADABLE  # type: ignore[no-any-return]
        try:
            found = model.model_validate(data, by_alias=True, by_name=False)
        except ValidationError as more:
            # Follows from what was taken away, or shows only now; either way it is no more known.
            left = {_whole_list(path) for path in problem_paths(more, node)}
            left = {path[:-1] if path in cut else path for path in left}
            continue
        for path in cut - nameless:
            _mark(found, path)
        return found
    return UNREADABLE  # type: ignore[no-any-return]


def _whole_list(path: Path) -> Path:
    """A list is read as a whole: without one of its values the others have other places."""
    for index, part in enumerate(path):
        if isinstance(part, int):
            return path[:index]
    return path


def _take(data: Any, path: Path) -> Path:
    """Take the value out; returns its path, or that of what should have held it."""
    inner = data
    for depth, part in enumerate(path):
        if not isinstance(inner, dict) or part not in inner:
            # A key that is missing makes unusable what it is missing in.
            return _take(data, path[:depth])
        if depth == len(path) - 1:
            del inner[part]
            return path
        inner = inner[part]
    return path


def _mark(found: Any, path: Path) -> None:
    """Put UNREADABLE where the value would be, or where it was probably meant to be."""
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(found, BaseModel):
            fields = {info.alias or name: name for name, info in type(found).model_fields.items()}
            name = fields.get(str(part)) or _meant(found, str(part), fields)
            if name is None:
                return
            if last:
                found.__dict__[name] = UNREADABLE
                return
            holder: dict[Any, Any] = found.__dict__
            part = name
        elif isinstance(found, dict):
            holder = found
        else:
            return
        if last or holder.get(part) is None or holder[part] is UNREADABLE:
            holder[part] = UNREADABLE
            return
        found = holder[part]


def _meant(found: BaseModel, key: str, fields: dict[str, str]) -> str | None:
    """The field that an unknown key may be a slip of, if nothing else says it."""
    near = nearest(key, _unsaid(fields, found.model_fields_set))
    return fields[near] if near else None


def _unsaid(fields: dict[str, str], said: Collection[str]) -> list[str]:
    return [alias for alias, name in fields.items() if name not in said]
