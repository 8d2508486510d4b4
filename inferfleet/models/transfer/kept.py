"""Revisions that a machine has kept: their files are taken instead of being fetched again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from inferfleet.errors import FleetError
from inferfleet.models.need import ModelNeed
from inferfleet.models.needs import model_key
from inferfleet.models.observe import fits
from inferfleet.models.sources.origin import Contents, Link, Opened, WantedFile
from inferfleet.models.sources.source import parse_source
from inferfleet.models.transfer.store import Kept, Store


class DamagedError(FleetError):
    """A file of a kept revision is not what its record says."""


@dataclass(frozen=True)
class OnMachine:
    """The origin of a file that lies on the machine already and is only linked. open is called
    for one whose content is another than its record says, or that has gone meanwhile."""

    path: str

    def link(self) -> Link | None:
        """None: there is nothing to download."""
        return None

    @contextmanager
    def open(self, offset: int) -> Iterator[Opened]:
        raise DamagedError(f"{self.path} of the kept revision is damaged or gone")
        yield Opened(offset, iter(()))


def kept_contents(known: Iterable[Kept], need: ModelNeed) -> Contents | None:
    """The pinned revision of a repository as the machine has kept it, None when it has not."""
    if need.source.scheme != "hf" or not need.source.revision:
        return None
    for kept in known:
        stamp = kept.stamp
        if stamp.revision != need.source.revision or not _same_choice(kept, need):
            continue
        if fits(need, stamp):
            files = [
                WantedFile(file.path, OnMachine(file.path), file.size, file.sha256)
                for file in stamp.files
            ]
            return Contents(stamp.revision, tuple(files))
    return None


def reuse(store: Store, contents: Contents, known: Iterable[Kept], sizes: dict[str, int]) -> None:
    """Link files with the same checksum from other revisions, or from a cache of the hub's own
    client in the models directory; sizes learns of them."""
    have = {
        file.sha256: (f"{kept.place}/{file.path}", file.size)
        for kept in known
        for file in kept.stamp.files
    }
    for file in contents.files:
        if file.path in sizes:
            continue
        if file.sha256 in have:
            old, count = have[file.sha256]
            if store.reuse(file.path, old):
                sizes[file.path] = count
        elif file.size is not None and any(
            store.reuse(file.path, blob) for blob in _blobs(store.need, file.sha256)
        ):
            sizes[file.path] = file.size


def _blobs(need: ModelNeed, sha256: str | None) -> list[str]:
    """Where huggingface_hub keeps a large file, below HF_HOME and below the cache itself."""
    if need.source.scheme != "hf" or sha256 is None:
        return []
    blob = f"models--{need.source.name.replace('/', '--')}/blobs/{sha256}"
    return [f"hub/{blob}", blob]


def _same_choice(kept: Kept, need: ModelNeed) -> bool:
    """Whether both are the same files of the same repository, whatever the revision."""
    try:
        source = parse_source(kept.stamp.source, None)
    except FleetError:
        return False
    if replace(source, revision="") != replace(need.source, revision=""):
        return False
    key = model_key(source, need.files)
    return kept.name == key or kept.name.startswith(f"{key}.")
