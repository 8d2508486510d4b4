"""One file after the other onto the machine, by its own download or pushed from here."""

from __future__ import annotations

import time
from collections.abc import Mapping

from inferfleet.errors import FleetError
from inferfleet.models.progress import Progress
from inferfleet.models.sources.origin import Contents, Neighbour, WantedFile
from inferfleet.models.sources.source import source_text
from inferfleet.models.sources.web import UnreachableError, Web, status_error
from inferfleet.models.transfer.store import FetchFailedError, Store

# Tries in a row that bring not one byte before a file is given up.
_TRIES = 4
_PAUSE_SECONDS = 0.5
# curl (EXIT CODES of its manual): it cannot find, reach or trust the server from the machine.
_CANNOT_REACH = (2, 5, 6, 7, 35, 58, 60, 77)
# curl: the server does not do ranges; a partial file is of no use.
_NO_RANGES = 33
_RANGE_REFUSED = 416
# Reading back takes seconds from here on.
_WORTH_A_NOTE = 2 << 30


class Transfer:
    """Brings the files of a model; sizes are those of what the machine has already."""

    def __init__(
        self, store: Store, progress: Progress, contents: Contents, sizes: Mapping[str, int]
    ) -> None:
        self._store = store
        self._progress = progress
        self._sizes = sizes
        self._total = contents.bytes
        self._subject = source_text(store.need.source)
        self._done = 0
        self._pull = True
        self._reached: dict[str, int] = {}

    def bring(self, file: WantedFile) -> tuple[int, str]:
        """(size, SHA-256) of the file, once it lies complete and checked on the machine."""
        if file.path in self._sizes and file.size in (None, self._sizes[file.path]):
            # It has its name, so it was checked once; its digest is read again for the stamp.
            size = self._sizes[file.path]
            digest = self._store.sha256_kept(file.path)
            if file.sha256 in (None, digest):
                self._finished(size)
                return size, digest
        have = self._sizes.get(f"{file.path}.part", 0)
        if file.size is not None and have > file.size:
            self._store.drop(file.path)
            have = 0
        resumed = have > 0
        size = self._fill(file, have)
        try:
            digest = self._check(file, size)
        except FleetError:
            self._store.drop(file.path)
            if not resumed:
                raise
            self._progress.note(f"{file.path} was damaged by an interruption; it is fetched anew")
            size = self._fill(file, 0)
            try:
                digest = self._check(file, size)
            except FleetError:
                self._store.drop(file.path)
                raise
        self._store.keep(file.path)
        self._finished(size)
        return size, digest

    def _fill(self, file: WantedFile, have: int) -> int:
        tries = 0
        while True:
            if file.size is not None and have == file.size and have:
                return have
            before, why = have, ""
            try:
                have = self._once(file, have)
                if file.size is None or have >= file.size:
                    return have
                why = "the server closed the connection early"
            except UnreachableError as error:
                why = str(error)
                have = self._store.part_size(file.path)
            except FetchFailedError as error:
                why = self._failed(file, error)
                have = self._store.part_size(file.path)
            tries = 0 if have > before else tries + 1
            if tries >= _TRIES:
                raise self._given_up(file, have, why)
            self._progress.note(f"{self._subject}: {why or 'interrupted'}; trying again")
            time.sleep(_PAUSE_SECONDS * 2**tries)

    def _once(self, file: WantedFile, have: int) -> int:
        link = file.origin.link() if self._pull else None
        if isinstance(link, Neighbour):
            return self._store.copy(file.path, link.number, self._advance)
        able = {"curl": True, "wget": link is not None and not link.header}
        if link is not None and able.get(self._store.tool, False):
            return self._store.get(file.path, link.url, link.header, self._advance)
        return self._push(file, have)

    def _push(self, file: WantedFile, have: int) -> int:
        with file.origin.open(have) as opened:
            if opened.offset != have:
                self._store.drop(file.path)
                have = opened.offset
            empty = True
            for chunk in opened.chunks:
                empty = False
                have = self._store.put(file.path, chunk)
                self._advance(have)
            if empty and not have:
                have = self._store.put(file.path, b"")
        return have

    def _failed(self, file: WantedFile, error: FetchFailedError) -> str:
        """Why, for another try; raises when another try is of no use."""
        if isinstance(file.origin.link(), Neighbour):
            return self._not_copied(file, error)
        if error.status in _CANNOT_REACH:
            self._pull = False
            words = f"{self._store.machine} cannot download by itself ({error.words.strip()})"
            self._progress.note(f"{words}; the file is pushed from here")
            return words
        if error.status == _NO_RANGES or error.http == _RANGE_REFUSED:
            self._store.drop(file.path)
            return "the server cannot continue a download; it begins anew"
        origin = file.origin
        if 400 <= error.http < 500 and isinstance(origin, Web):
            origin.head()  # tells a refusal from an address that has expired meanwhile
            if not origin.hub:
                raise status_error(origin, error.http)
        if self._store.tool == "wget":
            self._pull = False
        return error.words.strip() or f"the download ended with status {error.status}"

    def _not_copied(self, file: WantedFile, error: FetchFailedError) -> str:
        """A copy from another machine broke off. One that got no further is given up: from now
        on the files go through here."""
        have = self._store.part_size(file.path)
        why = error.words.strip() or f"ssh there ended with status {error.status}"
        if have > self._reached.get(file.path, 0):
            self._reached[file.path] = have
            return why
        self._pull = False
        self._progress.note(
            f"{self._subject}: {self._store.machine} cannot copy by itself ({why}); the rest "
            "goes through this machine, in and out again"
        )
        return why

    def _check(self, file: WantedFile, size: int) -> str:
        if file.size is not None and size != file.size:
            raise FleetError(
                f"model {self._subject}: {file.path} has {size} bytes, not {file.size}",
                "run the same command again; if it repeats, the source is damaged",
            )
        if size > _WORTH_A_NOTE:
            self._progress.note(f"{file.path}: reading it back to check its checksum")
        digest, git = self._store.digests(file.path, file.git is not None)
        wanted, got = file.sha256, digest
        if wanted is None and file.git is not None:
            wanted, got = file.git, git
        if wanted is not None and got != wanted:
            raise FleetError(
                f"model {self._subject}: wrong checksum of {file.path}: "
                f"expected {wanted}, got {got}",
                "nothing was put in place; check sha256 in the machine file, or the source",
            )
        return digest

    def _given_up(self, file: WantedFile, have: int, why: str) -> FleetError:
        total = f" of {file.size}" if file.size is not None else ""
        if have:
            return FleetError(
                f"model {self._subject}: {file.path} is only half there "
                f"({have}{total} bytes): {why}",
                "run the same command again; it continues where this one stopped",
            )
        return FleetError(
            f"model {self._subject}: {file.path} cannot be downloaded: {why}",
            "check the network of this machine and the address of the source",
        )

    def _finished(self, size: int) -> None:
        self._done += size
        self._advance(0)

    def _advance(self, of_file: int) -> None:
        self._progress.advance(self._store.need.key, self._done + of_file, self._total)
