"""Files of a model, readable in pieces wherever they lie -> Shape."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from inferfleet.capacity.shape.config import config_shape
from inferfleet.capacity.shape.gguf import Reader, read_gguf
from inferfleet.capacity.shape.gguf_shape import gguf_shape
from inferfleet.capacity.shape.safetensors import (
    INDEX,
    index_files,
    read_safetensors,
    sized_shape,
    stored_shape,
)
from inferfleet.capacity.shape.shape import Shape
from inferfleet.errors import FleetError

QUANTIZED = "hf_quant_config.json"  # where ModelOpt before 0.31 says what it did
LONGEST_TEXT = 64 << 20  # an index of a very large model has some 20 MB
# Headers of more shards than this are not fetched one by one if the index knows their total.
MOST_SHARDS = 16

_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


class File(Protocol):
    """A file: its name below the model's directory, bytes (None unknown), and how to read it."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int | None: ...
    @property
    def read(self) -> Reader: ...


def shape_of(files: Sequence[File]) -> Shape:
    """The shape of the model in these files.

    From GGUF headers, unless config.json and safetensors are there, too; or from config.json with
    the headers of safetensors, the index's total or the sizes of other weight files; with a
    config.json alone the weights are estimated.
    Raises FleetError if nothing of this is there, or what is there is damaged.
    """
    gguf = [one for one in files if one.name.lower().endswith(".gguf") and not _extra(one.name)]
    named = {one.name: one for one in files}
    # Some repositories have a GGUF file beside what engines load from a directory.
    whole = "config.json" in named and any(one.endswith(".safetensors") for one in named)
    if gguf and not whole:
        return _gguf(gguf)
    config = named.get("config.json")
    if config is None:
        raise FleetError("there is neither a GGUF file nor a config.json to learn its shape from")
    told = _json(config)
    beside = named.get(QUANTIZED)
    if beside is not None and told.get("quantization_config") is None:
        told = {**told, "quantization_config": _json(beside)}
    shape = config_shape(told, "config.json")
    wanted, total = _indexed(named)
    stored = [named[one] for one in wanted if one in named]
    if total and (len(stored) > MOST_SHARDS or len(stored) < len(wanted)):
        return sized_shape(shape, total)
    if stored:
        read = [read_safetensors(one.read, one.size, one.name) for one in stored]
        return stored_shape(shape, read)
    loose = [one.size for one in files if one.name.endswith((".bin", ".pt", ".pth"))]
    if loose and all(loose):
        return sized_shape(shape, sum(size or 0 for size in loose))
    return shape


def _extra(name: str) -> bool:
    """Whether a GGUF file is no language model: what turns images into tokens."""
    return "mmproj" in name.lower()


def _gguf(files: Sequence[File]) -> Shape:
    first = sorted(files, key=lambda one: one.name)[0]
    split = _SPLIT.search(first.name)
    parts = [first]
    if split:
        stem = first.name[: split.start()]
        parts = [
            one
            for one in sorted(files, key=lambda one: one.name)
            if one.name.startswith(stem) and _SPLIT.search(one.name)
        ]
        if len(parts) != int(split[2]):
            raise FleetError(
                f"{stem}: {len(parts)} of {int(split[2])} parts are there", "fetch it again"
            )
    if len(parts) < len(files):
        raise FleetError(
            f"there are several GGUF files: {', '.join(sorted(one.name for one in files)[:4])}",
            "name the one to use under files:",
        )
    return gguf_shape([read_gguf(one.read, one.size, one.name) for one in parts], first.name)


def _indexed(named: Mapping[str, File]) -> tuple[tuple[str, ...], int]:
    """The safetensors files that count, and their total where an index says it."""
    if index := named.get(INDEX):
        return index_files(_text(index), INDEX)
    stored = sorted(one for one in named if one.endswith(".safetensors") and "/" not in one)
    # Mistral's own layout repeats the weights in one more file.
    rest = [one for one in stored if not one.startswith(("consolidated", "adapter_"))]
    return tuple(rest or stored), 0


def _text(file: File) -> str:
    if file.size is not None and file.size > LONGEST_TEXT:
        raise FleetError(f"{file.name} has {file.size} bytes; it should be a short text")
    text = file.read(0, LONGEST_TEXT if file.size is None else file.size)
    return text.decode("utf-8", "replace")


def _json(file: File) -> Mapping[str, Any]:
    try:
        found = json.loads(_text(file))
    except (ValueError, RecursionError):
        raise FleetError(f"{file.name} is no JSON", "fetch it again") from None
    if not isinstance(found, Mapping):
        raise FleetError(f"{file.name} is no JSON object", "fetch it again")
    return found
