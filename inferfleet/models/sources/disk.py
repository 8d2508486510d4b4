"""file: sources: a file or a directory on the machine that inferbase runs on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO

from inferfleet.errors import FleetError
from inferfleet.models.need import ModelNeed
from inferfleet.models.sources.origin import Contents, Link, Opened, WantedFile
from inferfleet.models.sources.source import check_member, check_names, source_text
from inferfleet.models.sources.web import CHUNK


@dataclass(frozen=True)
class Disk:
    """The origin of a file here."""

    file: Path

    def link(self) -> Link | None:
        """None: the machine cannot read this disk."""
        return None

    @contextmanager
    def open(self, offset: int) -> Iterator[Opened]:
        with self.file.open("rb") as stream:
            stream.seek(offset)
            yield Opened(offset, read_chunks(stream))


def read_chunks(stream: IO[bytes]) -> Iterator[bytes]:
    """The rest of a stream in pieces."""
    while chunk := stream.read(CHUNK):
        yield chunk


def disk_contents(need: ModelNeed) -> Contents:
    """The file or all files of the directory; sizes and times make the revision."""
    path, directory = Path(need.source.name), need.source.name.endswith("/")
    text = source_text(need.source)
    if not path.exists():
        raise FleetError(f"model {text} does not exist on this machine", "check the path")
    if directory != path.is_dir():
        kind = "not a directory" if directory else "a directory"
        hint = "end the path of a directory, and only of a directory, with a slash"
        raise FleetError(f"model {text} is {kind}", hint)
    found = _walk(path) if directory else [path]
    state = sha256()
    files = []
    for file in found:
        name = str(file.relative_to(path)) if directory else path.name
        try:
            check_member(name)
            status = file.stat()
            with file.open("rb"):
                pass
        except (ValueError, OSError) as error:
            raise FleetError(f"model {text}: {error}") from None
        state.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        digest = need.sha256 or need.checksums.get(name)
        files.append(WantedFile(name, Disk(file), status.st_size, digest))
    if not files:
        raise FleetError(f"model {text} is an empty directory")
    check_names(need, (file.path for file in files))
    return Contents(state.hexdigest()[:16], tuple(files))


def _walk(path: Path) -> list[Path]:
    found = []
    for folder, _, names in os.walk(path, onerror=_unreadable, followlinks=False):
        found += [Path(folder, name) for name in names]
    return sorted(found)


def _unreadable(error: OSError) -> None:
    raise FleetError(f"{error.filename}: {error.strerror}")
