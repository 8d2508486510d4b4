"""Exact weight bytes from the headers of safetensors files; the tensors are not read.

A file begins with the header's length (8 bytes, little endian) and a JSON object that names each
tensor's type, shape and place (huggingface/safetensors, README). No number in it is trusted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from inferfleet.capacity.shape.gguf import Reader
from inferfleet.capacity.shape.shape import GUESSED, Shape, Weights
from inferfleet.errors import FleetError

LONGEST_HEADER = 100 << 20  # the format's own limit
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16,
    "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64,
}  # fmt: skip
INDEX = "model.safetensors.index.json"

_EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|wte|word_embeddings|tok_embeddings|embeddings)\.weight$"
)
_OUTPUT = re.compile(r"(^|\.)(lm_head|embed_out|output)\.weight$")
_EXPERTS = re.compile(r"\.experts\.")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
# Parts that a text request does not read: other senses.
_IDLE = re.compile(
    r"(^|\.)(visual|vision_\w+|audio_\w+|image_\w+|multi_modal_projector|mm_projector"
    r"|embed_vision|embed_audio)\."
)
# Layers that predict further tokens: engines load them only to speculate.
_FURTHER = re.compile(r"(^|\.)mtp\.")


@dataclass(frozen=True)
class Stored:
    """One tensor of a file: its type's name and its bytes."""

    type: str
    bytes: int


def read_safetensors(
    read: Reader, size: int | None = None, name: str = "the file"
) -> dict[str, Stored]:
    """The tensors of one file by name. size: of the whole file, if it is known.

    Raises FleetError for what is no such file, is damaged, or ends before its tensors do.
    """
    head = read(0, 8)
    if len(head) < 8:
        raise FleetError(f"{name} is truncated: it has {len(head)} bytes", "fetch it again")
    length = int.from_bytes(head, "little")
    if not 2 <= length <= LONGEST_HEADER or (size is not None and 8 + length > size):
        raise _damaged(name, f"its header claims {length} bytes")
    text = read(8, length)
    if len(text) < length:
        raise FleetError(f"{name} is truncated within its header", "fetch it again")
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise _damaged(name, "its header is no JSON") from None
    if not isinstance(header, dict):
        raise _damaged(name, "its header is no JSON object")
    found, end = {}, 0
    for key, entry in header.items():
        if key != "__metadata__":
            found[key], last = _tensor(name, key, entry)
            end = max(end, last)
    if size is not None and 8 + length + end > size:
        raise FleetError(
            f"{name} is truncated: its tensors end at byte {8 + length + end}, it has {size}",
            "fetch it again",
        )
    return found


def index_files(text: str, name: str = INDEX) -> tuple[tuple[str, ...], int]:
    """The files that an index names, and the total_size it claims (0 if it says none).

    Raises FleetError if it is no such index.
    """
    try:
        index = json.loads(text)
        files = tuple(sorted({str(one) for one in index["weight_map"].values()}))
        metadata = index.get("metadata")
        total = metadata.get("total_size") if isinstance(metadata, Mapping) else None
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        raise _damaged(name, "it names no files") from None
    return files, total if type(total) is int and total > 0 else 0


def stored_shape(shape: Shape, files: Sequence[Mapping[str, Stored]]) -> Shape:
    """A shape from config.json with the exact weights of its files' headers.

    Layers beyond the model's own, which predict further tokens, are left out and noted.
    """
    tensors = {key: one for file in files for key, one in file.items()}
    embedding = output = experts = idle = total = further = 0
    layers = [0] * len(shape.layers)
    for key, one in tensors.items():
        total += one.bytes
        layer = _LAYER.search(key)
        if _IDLE.search(key):
            idle += one.bytes
        elif _FURTHER.search(key) or (layer and int(layer[1]) >= len(layers)):
            further += one.bytes
        elif layer:
            layers[int(layer[1])] += one.bytes
            experts += one.bytes if _EXPERTS.search(key) else 0
        elif _EMBEDDING.search(key):
            embedding += one.bytes
        elif _OUTPUT.search(key):
            output += one.bytes
    if shape.weights.tied and output:
        # Files may repeat a matrix that the config says is shared; engines load one of them.
        total, output = total - output, 0
    notes = (f"{further:,} bytes of layers for further tokens are not loaded",) if further else ()
    weights = Weights(
        total - further, embedding, output, experts, idle, tied=not output, layers=tuple(layers)
    )
    return replace(shape, weights=weights, source="safetensors", notes=notes)


def sized_shape(shape: Shape, total: int) -> Shape:
    """A shape from config.json whose files are known to have `total` bytes of tensors.

    The parts keep the proportions of the estimate.
    """
    old = shape.weights
    if not total or not old.total:
        return shape
    ratio = total / old.total
    weights = replace(
        old,
        total=total,
        embedding=int(old.embedding * ratio),
        output=int(old.output * ratio),
        experts=int(old.experts * ratio),
        layers=tuple(int(one * ratio) for one in old.layers),
        how="exact",
        guessed=False,
    )
    notes = tuple(note for note in shape.notes if note != GUESSED)
    return replace(shape, weights=weights, notes=notes)


def _tensor(name: str, key: str, entry: object) -> tuple[Stored, int]:
    try:
        kind, shape = entry["dtype"], entry["shape"]  # type: ignore[index]
        first, last = entry["data_offsets"]  # type: ignore[index]
        whole = all(type(one) is int and one >= 0 for one in [*shape, first, last])
    except (TypeError, KeyError, ValueError):
        raise _damaged(name, f"tensor {key[:80]!r} is not described") from None
    if not whole or last < first:
        raise _damaged(name, f"tensor {key[:80]!r} has an impossible place")
    if kind in BITS:
        bits = BITS[kind]
        for one in shape:
            bits *= one
        if -(-bits // 8) != last - first:
            raise _damaged(name, f"tensor {key[:80]!r} has another size than its shape")
    return Stored(str(kind), last - first), last


def _damaged(name: str, why: str) -> FleetError:
    return FleetError(f"{name} is not a usable safetensors file: {why}", "fetch it again")
