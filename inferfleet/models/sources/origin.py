"""What a model consists of at its source, and how its bytes are got there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Link:
    """A URL that the machine may download by itself; header is "" or one header line (secret)."""

    url: str
    header: str = ""


@dataclass(frozen=True)
class Opened:
    """Bytes of a file from offset on; offset 0 when the source cannot start elsewhere."""

    offset: int
    chunks: Iterator[bytes]


@dataclass(frozen=True)
class Neighbour:
    """A file that the machine may copy from another machine by itself: its number there."""

    number: int


class Origin(Protocol):
    """Where one file comes from. Methods raise FleetError; broken transfers OSError."""

    def link(self) -> Link | Neighbour | None:
        """For a download by the machine itself; None when only this machine can read it."""

    def open(self, offset: int) -> AbstractContextManager[Opened]:
        """Read the file here, to push it to the machine."""


@dataclass(frozen=True)
class WantedFile:
    """One file of a model.

    path: below the model's directory. size: bytes, None when the source does not say.
    sha256 and git (git's blob id): what its content must be, None when not known.
    """

    path: str
    origin: Origin
    size: int | None = None
    sha256: str | None = None
    git: str | None = None


@dataclass(frozen=True)
class Contents:
    """All files of a model at one revision; revision "" when the source has none.

    store: name of the directory to put them in, "" where they decide it themselves.
    """

    revision: str
    files: tuple[WantedFile, ...]
    store: str = ""

    @property
    def bytes(self) -> int | None:
        """Of all files; None when a size is not known."""
        total = 0
        for file in self.files:
            if file.size is None:
                return None
            total += file.size
        return total
