"""What is known of a model, found once and kept: its shape, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path

from inferfleet.cache import cache_folder, read_kept, write_kept
from inferfleet.capacity.shape.config import config_shape
from inferfleet.capacity.shape.parts import Parts, source_parts
from inferfleet.capacity.shape.reading import shape_of
from inferfleet.capacity.shape.safetensors import sized_shape
from inferfleet.capacity.shape.shape import Shape
from inferfleet.errors import FleetError
from inferfleet.models.need import ModelNeed
from inferfleet.models.progress import Revealing
from inferfleet.models.sources.source import source_text


@dataclass(frozen=True)
class Known:
    """A model's shape, None when it cannot be had. where: it was read; why: it is not known."""

    shape: Shape | None
    where: str = ""
    why: str = ""


def from_parts(parts: Parts) -> Known:
    """The shape of files that can be read; what was read once is not read again."""
    return _kept(parts)


def from_source(need: ModelNeed, secrets: Mapping[str, Revealing]) -> Known:
    """The shape of a model at its source, without its weights.

    A source that cannot be asked now is answered from what was read of it last, and says so.
    """
    try:
        parts = source_parts(need, secrets)
        found = _kept(parts)
    except FleetError as error:
        return as_before(need, "; ".join(filter(None, [error.what, error.hint])))
    if found.shape is not None:
        _write(_last(need), found)
    return found


def as_before(need: ModelNeed, why: str) -> Known:
    """What was read of a source last, where it cannot be asked now; why: it cannot."""
    old = _read(_last(need))
    if isinstance(old, Known) and old.shape is not None:
        return Known(old.shape, f"as read before: {why}")
    return Known(None, why=why)


def else_declared(need: ModelNeed, known: Known) -> Known:
    """What is known of a model, else what its model file says of it."""
    if known.shape is not None or not need.shape:
        return known
    where = f"in inventory/models/{need.declared}.yaml"
    try:
        shape = config_shape(need.shape["config"], where)
    except FleetError as error:
        return Known(None, known.where, f"{known.why}; {where}: {error.what}")
    if weights := need.shape["weights"]:
        shape = sized_shape(shape, weights)
        shape = replace(shape, weights=replace(shape.weights, how="declared"))
    return Known(replace(shape, source="declared"), f"{where} ({known.why})")


def _last(need: ModelNeed) -> str:
    name = sha256(f"{source_text(need.source)}\0{need.files}".encode()).hexdigest()
    return f"{name}.last"


def _kept(parts: Parts) -> Known:
    name = sha256(parts.identity.encode()).hexdigest()
    old = _read(name)
    if isinstance(old, Known):
        return old
    try:
        found = Known(shape_of(parts.files), parts.where)
    except FleetError as error:
        return Known(None, parts.where, error.what)
    _write(name, found)
    return found


def _folder() -> Path | None:
    base = cache_folder()
    return base / "models" if base else None


@cache
def _identity() -> bytes:
    """Of the program that makes shapes: another version of it makes them anew."""
    total = sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        total.update(path.read_bytes())
    return total.digest()


def _read(name: str) -> object:
    folder = _folder()
    return read_kept(folder / name, _identity()) if folder else None


def _write(name: str, value: Known) -> None:
    folder = _folder()
    if folder:
        write_kept(folder / name, _identity(), value)
