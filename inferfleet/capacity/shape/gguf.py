"""The header of a GGUF file: metadata and the sizes of its tensors, without reading the tensors.

Versions 2 and 3, little endian (ggml/docs/gguf.md in llama.cpp). No length in the file is
trusted: every count is compared with what a file of that size can hold.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from inferfleet.capacity.shape.gguf_types import ARRAY, SCALARS, STRING, TENSOR_TYPES
from inferfleet.errors import FleetError

# (offset, length) -> bytes; fewer only at the end of the file.
Reader = Callable[[int, int], bytes]
Scalar = int | float | bool | str

FIRST_READ = 64 << 10
LONGEST_READ = 8 << 20
# A vocabulary of a million tokens with its merges is some 50 MB.
LONGEST_HEADER = 512 << 20
MOST_KEPT = 4096  # longer arrays are counted, not kept
MOST_TENSORS = 1 << 20
LONGEST_NAME = 1 << 16
DIMENSIONS = 4  # GGML_MAX_DIMS
ALIGNMENT = 32  # general.alignment's default


@dataclass(frozen=True)
class Many:
    """An array that was counted and not kept: strings, or very many numbers."""

    count: int


Value = Scalar | tuple[Scalar, ...] | Many


@dataclass(frozen=True)
class Tensor:
    """A tensor of the file; bytes without padding."""

    name: str
    dimensions: tuple[int, ...]
    type: str
    bytes: int
    offset: int


@dataclass(frozen=True)
class Gguf:
    """A file's header. data: where the tensors begin; end: the least size of a whole file."""

    version: int
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]
    data: int
    end: int


def read_gguf(read: Reader, size: int | None = None, name: str = "the file") -> Gguf:
    """Read a header progressively. size: of the whole file, if it is known.

    Raises FleetError for what is no GGUF, is damaged, or ends before its tensors do.
    """
    cursor = _Cursor(read, size, name)
    magic = cursor.take(4)
    if magic != b"GGUF":
        raise _damaged(name, "it does not begin with GGUF")
    version = cursor.number("I")
    if version not in (2, 3):
        if version in (2 << 24, 3 << 24):
            raise _damaged(name, "it is big endian, which no engine here reads")
        raise _damaged(name, f"its version is {version}; versions 2 and 3 are known")
    tensors, entries = cursor.number("Q"), cursor.number("Q")
    # The smallest entry is a key's length, its type and one byte; the smallest tensor 36 bytes.
    cursor.bound(entries * 13, f"{entries} metadata entries")
    cursor.bound(tensors * 36, f"{tensors} tensors")
    if tensors > MOST_TENSORS:
        raise _damaged(name, f"it claims {tensors} tensors")
    metadata: dict[str, Value] = {}
    for _ in range(entries):
        key = cursor.string(LONGEST_NAME)
        metadata[key] = cursor.value(cursor.number("I"))
    found = tuple(_tensor(cursor) for _ in range(tensors))
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= 1 << 20:
        raise _damaged(name, "its general.alignment is no size")
    data = -(-cursor.at // alignment) * alignment
    end = data + max((tensor.offset + tensor.bytes for tensor in found), default=0)
    if size is not None and end > size:
        raise FleetError(
            f"{name} is truncated: its tensors end at byte {end}, it has {size}",
            "fetch it again",
        )
    return Gguf(version, metadata, found, data, end)


def _tensor(cursor: _Cursor) -> Tensor:
    name = cursor.string(LONGEST_NAME)
    count = cursor.number("I")
    if count > DIMENSIONS:
        raise _damaged(cursor.name, f"tensor {name[:80]!r} has {count} dimensions")
    dimensions = tuple(cursor.number("Q") for _ in range(count))
    kind, offset = cursor.number("I"), cursor.number("Q")
    if kind not in TENSOR_TYPES:
        raise _damaged(cursor.name, f"tensor {name[:80]!r} is of the unknown type {kind}")
    label, numbers, size = TENSOR_TYPES[kind]
    if dimensions and dimensions[0] % numbers:
        raise _damaged(
            cursor.name, f"a row of tensor {name[:80]!r} is no multiple of {label}'s {numbers}"
        )
    elements = 1
    for dimension in dimensions:
        elements *= dimension
    if elements >= 1 << 63 or offset >= 1 << 63:
        raise _damaged(cursor.name, f"tensor {name[:80]!r} is impossibly large")
    return Tensor(name, dimensions, label, elements // numbers * size, offset)


class _Cursor:
    """Reads forward through a file in growing pieces."""

    def __init__(self, read: Reader, size: int | None, name: str) -> None:
        self.name = name
        self._read = read
        self._size = size
        self._step = FIRST_READ
        self._piece = b""
        self._start = 0  # of the piece, in the file
        self._next = 0  # in the piece

    @property
    def at(self) -> int:
        """The next byte's place in the file."""
        return self._start + self._next

    def bound(self, length: int, what: str) -> None:
        """Refuse what cannot lie in the rest of the file."""
        rest = LONGEST_HEADER if self._size is None else min(self._size, LONGEST_HEADER)
        if self.at + length > rest:
            raise _damaged(self.name, f"{what} cannot be in a file of its size")

    def _fill(self, length: int, at: int) -> None:
        """Make `length` bytes from `at` on available as the piece."""
        self.bound(length, f"{length} bytes at byte {at}")
        kept = self._piece[at - self._start :] if at <= self._start + len(self._piece) else b""
        wanted = max(length - len(kept), self._step)
        if self._size is not None:
            wanted = min(wanted, self._size - at - len(kept))
        self._step = min(self._step * 2, LONGEST_READ)
        self._piece = kept + self._read(at + len(kept), wanted)
        self._start, self._next = at, 0
        if len(self._piece) < length:
            raise FleetError(
                f"{self.name} is truncated: its header goes on after byte {at + len(self._piece)}",
                "fetch it again",
            )

    def take(self, length: int) -> bytes:
        if self._next + length > len(self._piece):
            self._fill(length, self.at)
        first = self._next
        self._next += length
        return self._piece[first : self._next]

    def skip(self, length: int) -> None:
        self.bound(length, f"an array of {length} bytes")
        if self._next + length <= len(self._piece):
            self._next += length
        else:
            self._start, self._next, self._piece = self.at + length, 0, b""

    def number(self, code: str) -> int:
        return int(struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0])

    def string(self, longest: int) -> str:
        length = self.number("Q")
        if length > longest:
            raise _damaged(self.name, f"a name of {length} bytes at byte {self.at}")
        return self.take(length).decode("utf-8", "replace")

    def value(self, kind: int) -> Value:
        if kind in SCALARS:
            code, size = SCALARS[kind]
            scalar: Scalar = struct.unpack("<" + code, self.take(size))[0]
            return scalar
        if kind == STRING:
            return self.string(LONGEST_READ)
        if kind != ARRAY:
            raise _damaged(self.name, f"metadata of the unknown type {kind} at byte {self.at}")
        of, count = self.number("I"), self.number("Q")
        if of == STRING:
            self.strings(count)
            return Many(count)
        if of not in SCALARS:
            raise _damaged(self.name, f"an array of the unknown type {of} at byte {self.at}")
        code, size = SCALARS[of]
        self.bound(count * size, f"an array of {count}")
        if count > MOST_KEPT:
            self.skip(count * size)
            return Many(count)
        return struct.unpack(f"<{count}{code}", self.take(count * size))

    def strings(self, count: int) -> None:
        """Pass over strings; written out because a vocabulary has hundreds of thousands."""
        self.bound(count * 8, f"an array of {count} strings")
        piece, place = self._piece, self._next
        for _ in range(count):
            if place + 8 > len(piece):
                self._fill(8, self._start + place)
                piece, place = self._piece, 0
            length = int.from_bytes(piece[place : place + 8], "little")
            place += 8 + length
            if place > len(piece):
                self._next = place - length
                self.skip(length)
                piece, place = self._piece, self._next
        self._next = place


def _damaged(name: str, why: str) -> FleetError:
    return FleetError(f"{name} is not a usable GGUF file: {why}", "fetch it again")
