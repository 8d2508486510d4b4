"""What an earlier run made of the files, used again as long as none of them has changed.

Loading, checking and rendering cost more than everything else that a run with nothing to change
does here, their libraries included. A file counts as unchanged while its size, inode and both
its times are the same, our own program included; whatever is in doubt is made anew. What is kept
holds no secrets, only where they come from. It lies in the user's cache folder, private like the
compiled modules of Python, and may be removed at any time.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from inferfleet.cache import cache_folder, read_kept, write_kept
from inferfleet.errors import FleetError, FleetErrors
from inferfleet.paths import PACKAGE, Roots
from inferfleet.run.select import Listed

if TYPE_CHECKING:
    from inferfleet.hostprep.setting import Ground
    from inferfleet.run.brief import Brief
    from inferfleet.schema.fleet import Fleet

T = TypeVar("T")

SETTLED_NS = 1_000_000_000
READ = ("inventory", "services", "hostprep", "templates")
PROGRAM = (
    "", "schema", "load", "services", "render", "release", "run", "plan", "gateway", "hostprep",
    "hosts", "models", "models/sources",
)  # fmt: skip


class Snapshot:
    """The machines of these folders, checked now or found as they were checked before.

    Raises FleetErrors with every mistake in the files; nothing of files with mistakes is kept.
    folder: the user's private one for these roots, which may not exist; None when there is none.
    """

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._identity, newest = _identity(roots)
        # A file of this very moment could change once more without its times showing it.
        self._settled = time.time_ns() - newest > SETTLED_NS
        base = cache_folder()
        self.folder = base / sha256(repr(roots).encode()).hexdigest()[:24] if base else None
        self.listing: Mapping[str, Listed] = self._read("listing") or self._list()

    @cached_property
    def fleet(self) -> Fleet:
        """Everything in the folders, loaded and checked now."""
        from inferfleet.load.load import load_fleet

        return load_fleet(self._roots)

    def briefs(self, names: Iterable[str]) -> dict[str, Brief]:
        """What a run must know of these machines. Raises FleetErrors for those that have none."""
        from inferfleet.run.brief import make_brief

        return self._each(names, "brief", make_brief)

    def grounds(self, names: Iterable[str]) -> dict[str, Ground]:
        """What is wanted of these machines' hosts."""

        def make(fleet: Fleet, name: str) -> Ground:
            from inferfleet.hostprep.merge import make_ground

            return make_ground(fleet, name)

        return self._each(names, "ground", make)

    def _each(
        self, names: Iterable[str], what: str, make: Callable[[Fleet, str], T]
    ) -> dict[str, T]:
        found: dict[str, T] = {}
        errors: list[FleetError] = []
        for name in names:
            try:
                kept = self._read(f"{name}.{what}")
                if kept is None:
                    kept = make(self.fleet, name)
                    self._write(f"{name}.{what}", kept)
                found[name] = kept
            except FleetErrors as error:
                errors += error.errors
            except FleetError as error:
                errors.append(error)
        if errors:
            raise FleetErrors(errors)
        return found

    def _list(self) -> dict[str, Listed]:
        listing = {
            name: Listed(tuple(machine.groups), tuple(machine.services))
            for name, machine in self.fleet.machines.items()
        }
        self._write("listing", listing)
        return listing

    def _read(self, name: str) -> Any:
        """What was kept under that name for the same files; None when there is nothing."""
        return read_kept(self.folder / name, self._identity) if self.folder else None

    def _write(self, name: str, value: object) -> None:
        if self.folder and self._settled:
            write_kept(self.folder / name, self._identity, value)


def _identity(roots: Roots) -> tuple[bytes, int]:
    """What differs when anything does that briefs are made from, or the program that makes them;
    and the newest time of the files, in nanoseconds since 1970."""
    here = (sys.version, sys.executable, os.path.expanduser("~"), roots, roots.template_dirs)
    total = sha256(repr(here).encode())
    newest = 0
    folders = [folder for name in READ for folder in roots.folders(name)]
    files = [entry for folder in folders for entry in _files(folder, deep=True)]
    files += [entry for name in PROGRAM for entry in _files(PACKAGE / name, deep=False)]
    for entry in files:
        found = entry.stat()
        times = f"{found.st_mtime_ns}\0{found.st_ctime_ns}"
        newest = max(newest, found.st_mtime_ns, found.st_ctime_ns)
        total.update(f"{entry.path}\0{found.st_ino}\0{found.st_size}\0{times}\n".encode())
    return total.digest(), newest


def _files(folder: Path | str, deep: bool) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if not entry.is_dir():
            yield entry
        elif deep:
            yield from _files(entry.path, deep)
