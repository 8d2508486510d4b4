"""The YAML files of all data folders, ours and the overlay's, as one checked Fleet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from inferfleet.errors import USAGE, FleetError, FleetErrors, Where
from inferfleet.load import yaml12
from inferfleet.load.check import check
from inferfleet.load.overlay import alone, merge, with_sources
from inferfleet.load.partial import partial
from inferfleet.load.problems import problems
from inferfleet.names import EVERY_MACHINE
from inferfleet.paths import Roots, display
from inferfleet.schema.fields import NAME_PATTERN, Model
from inferfleet.schema.fleet import Fleet
from inferfleet.schema.hardware import Hardware
from inferfleet.schema.kind import Kind
from inferfleet.schema.machine import Machine
from inferfleet.schema.model import DeclaredModel
from inferfleet.schema.nodes import Document, Node
from inferfleet.schema.profile import Profile
from inferfleet.schema.unreadable import UNREADABLE

FILE_KINDS: dict[str, type[Model]] = {
    "machine": Machine,
    "hardware": Hardware,
    "service": Kind,
    "profile": Profile,
    "model": DeclaredModel,
}
FOLDERS = {
    "machine": "inventory",
    "hardware": "inventory/hardware",
    "service": "services",
    "profile": "hostprep",
    "model": "inventory/models",
}

M = TypeVar("M", bound=Model)
Nodes = dict[tuple[str, str], Node]


@dataclass
class Loaded:
    """A fleet with the places its values come from.

    nodes: (file kind, name) -> the merged content; sources: the files that it was merged from,
    the lowest first; errors: everything that is wrong.
    """

    fleet: Fleet
    nodes: dict[tuple[str, str], Node]
    sources: dict[tuple[str, str], tuple[str, ...]]
    errors: list[FleetError] = field(default_factory=list)

    def where(self, kind: str, name: str, *path: str | int, key: bool = False) -> Where:
        """The place of a value, of its key, or of the nearest parent that was written."""
        return self.nodes[kind, name].where(path, key=key)


def load_fleet(roots: Roots) -> Fleet:
    """Everything below roots, checked. Raises FleetErrors (code USAGE) with every mistake."""
    loaded = load(roots)
    if loaded.errors:
        raise FleetErrors(loaded.errors)
    return loaded.fleet


def load(roots: Roots) -> Loaded:
    """Everything below roots; what is wrong is left out of the fleet and listed in errors."""
    nodes: Nodes = {}
    sources: dict[tuple[str, str], tuple[str, ...]] = {}
    errors: list[FleetError] = []
    whole: dict[str, dict[str, Any]] = {}
    rest: dict[str, dict[str, Any]] = {}
    for kind, model in FILE_KINDS.items():
        _read_kind(roots, kind, nodes, sources, errors)
        whole[kind], rest[kind] = _validate_kind(kind, model, nodes, errors)
    machines = {name: files for (kind, name), files in sources.items() if kind == "machine"}
    loaded = Loaded(_fleet(roots, whole, machines), nodes, sources, errors)
    # What is left of files with mistakes is checked, too, so that all is told at once.
    errors.extend(check(_fleet(roots, rest, machines), loaded.where))
    loaded.errors = with_sources(errors, sources)
    return loaded


def _fleet(
    roots: Roots, found: Mapping[str, dict[str, Any]], sources: Mapping[str, tuple[str, ...]]
) -> Fleet:
    return Fleet(
        found["machine"],
        found["service"],
        found["hardware"],
        roots.template_dirs,
        found["profile"],
        found["model"],
        roots.folders("inventory")[::-1],
        sources,
    )


def _read_kind(
    roots: Roots,
    kind: str,
    nodes: Nodes,
    sources: dict[tuple[str, str], tuple[str, ...]],
    errors: list[FleetError],
) -> None:
    """All files of a kind, the overlay's laid over ours."""
    for root in (roots.data, roots.overlay):
        for path in _files(root / FOLDERS[kind], errors) if root else ():
            key = (kind, path.stem)
            document = _read(path)
            errors.extend(document.errors)
            if document.null:
                if nodes.pop(key, None) is None:
                    what = "removes nothing: no other file has this name"
                    errors.append(FleetError(what, "delete it", Where(display(path)), USAGE))
                sources.pop(key, None)
                continue
            node = document.root or Node(None, display(path), (1, 1))
            below = nodes.get(key)
            if below is None or node.value is None or alone(node):
                nodes[key], sources[key] = node, (display(path),)
            elif below.value is not None:
                nodes[key] = merge(below, node)
                sources[key] = (*sources[key], display(path))


def _validate_kind(
    kind: str, model: type[Model], nodes: Nodes, errors: list[FleetError]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """By name what is right, and all that exists with UNREADABLE where it is wrong."""
    whole: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for (of_kind, name), node in sorted(nodes.items(), key=lambda item: item[0]):
        if of_kind == kind:
            right, rest[name] = _validate(model, node, errors)
            if right is not None:
                whole[name] = right
    return whole, rest


def _validate(model: type[M], node: Node, errors: list[FleetError]) -> tuple[M | None, Any]:
    """The model of node, and what is left of it.

    The first without the services that are wrong in themselves, None if more is.
    """
    if node.value is None:
        return None, UNREADABLE
    data = node.plain()
    try:
        found = model.model_validate(data, by_alias=True, by_name=False)
        return found, found
    except ValidationError as error:
        wrong = problems(error, node, model)
        rest = partial(model, node, error)
    errors.extend(told for _, told in wrong)
    if any(len(path) < 2 or path[0] != "services" for path, _ in wrong):
        return None, rest
    for _, name, *_ in (path for path, _ in wrong):
        data["services"].pop(name, None)
    return model.model_validate(data, by_alias=True, by_name=False), rest


def _files(folder: Path, errors: list[FleetError]) -> Iterator[Path]:
    """The YAML files of folder, by name; a file that would be skipped in silence is an error."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_dir():
            continue
        if path.suffix == ".yml":
            hint = f"rename it to {path.stem}.yaml"
            errors.append(FleetError("is not read", hint, Where(display(path)), USAGE))
        elif path.suffix == ".yaml":
            if path.stem == EVERY_MACHINE and folder.name == FOLDERS["machine"]:
                what, hint = "no machine can be called all", "`--host all` means every machine"
                errors.append(FleetError(what, hint, Where(display(path)), USAGE))
            elif re.fullmatch(NAME_PATTERN, path.stem):
                yield path
            else:
                what = f"{path.stem!a} cannot be a name"
                hint = "use a-z, 0-9, - and _, beginning with a letter or digit"
                errors.append(FleetError(what, hint, Where(display(path)), USAGE))


def _read(path: Path) -> Document:
    try:
        if path.is_file():
            return yaml12.read(path.read_bytes(), display(path))
        reason = "not a regular file"
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
    failure = FleetError(f"cannot be read: {reason}", "", Where(display(path)), USAGE)
    return Document(None, [failure])
