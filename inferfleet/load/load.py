"""The YAML files of all data folders, ours and the overlay's, as one checked Fleet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from inferfleet.errors import USAGE, FleetError, FleetErrors, Where
from inferfleet.load import yaml12
from inferfleet.load.check import check
from inferfleet.load.overlay import merge
from inferfleet.load.problems import problems
from inferfleet.paths import Roots, display
from inferfleet.schema.fields import NAME_PATTERN, Model
from inferfleet.schema.fleet import Fleet
from inferfleet.schema.hardware import Hardware
from inferfleet.schema.kind import Kind
from inferfleet.schema.machine import Machine
from inferfleet.schema.model import DeclaredModel
from inferfleet.schema.nodes import Document, Node
from inferfleet.schema.profile import Profile

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


@dataclass
class Loaded:
    """A fleet with the places its values come from.

    nodes: (file kind, name) -> the merged content; errors: everything that is wrong.
    """

    fleet: Fleet
    nodes: dict[tuple[str, str], Node]
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
    nodes: dict[tuple[str, str], Node] = {}
    errors: list[FleetError] = []
    machines = _load_kind(roots, "machine", Machine, nodes, errors)
    hardware = _load_kind(roots, "hardware", Hardware, nodes, errors)
    kinds = _load_kind(roots, "service", Kind, nodes, errors)
    profiles = _load_kind(roots, "profile", Profile, nodes, errors)
    models = _load_kind(roots, "model", DeclaredModel, nodes, errors)
    inventories = roots.folders("inventory")[::-1]
    fleet = Fleet(machines, kinds, hardware, roots.template_dirs, profiles, models, inventories)
    loaded = Loaded(fleet, nodes, errors)
    errors.extend(check(fleet, loaded.where, frozenset(nodes)))
    return loaded


def _load_kind(
    roots: Roots,
    kind: str,
    model: type[M],
    nodes: dict[tuple[str, str], Node],
    errors: list[FleetError],
) -> dict[str, M]:
    for root in (roots.data, roots.overlay):
        for path in _files(root / FOLDERS[kind], errors) if root else ():
            document = _read(path)
            errors.extend(document.errors)
            node = document.root or Node(None, display(path), (1, 1))
            below = nodes.get((kind, path.stem), node)
            if below is node or node.value is None:
                nodes[kind, path.stem] = node
            elif below.value is not None:
                nodes[kind, path.stem] = merge(below, node)
    found: dict[str, M] = {}
    for (of_kind, name), node in sorted(nodes.items(), key=lambda item: item[0]):
        if of_kind == kind and node.value is not None:
            instance = _validate(model, node, errors)
            if instance is not None:
                found[name] = instance
    return found


def _validate(model: type[M], node: Node, errors: list[FleetError]) -> M | None:
    """The model of node, without the services that are wrong in themselves; None if more is."""
    data = node.plain()
    try:
        return model.model_validate(data, by_alias=True, by_name=False)
    except ValidationError as error:
        found = problems(error, node, model)
    errors.extend(told for _, told in found)
    if any(len(path) < 2 or path[0] != "services" for path, _ in found):
        return None
    for _, name, *_ in (path for path, _ in found):
        data["services"].pop(name, None)
    return model.model_validate(data, by_alias=True, by_name=False)


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
            if re.fullmatch(NAME_PATTERN, path.stem):
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
