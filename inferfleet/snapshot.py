"""The checked fleet of an earlier run, used again as long as no file it was made from changed.

Building the validators and checking the files costs more than everything else that a run with
nothing to change does here (150 of 330 ms, measured). A file counts as unchanged while its size,
inode and both its times are the same, our own program included; whatever is in doubt is loaded
anew. Snapshots hold no secrets, only where they come from. They lie in the user's cache folder,
private like the compiled modules of Python, and may be removed at any time.
"""

from __future__ import annotations

import os
import pickle
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from inferfleet.paths import PACKAGE, Roots

if TYPE_CHECKING:
    from inferfleet.schema.fleet import Fleet

SETTLED_NS = 1_000_000_000
READ = ("inventory", "inventory/hardware", "services")


def fleet_of(roots: Roots) -> Fleet:
    """The fleet of these folders, checked now or found as it was checked before.

    Raises FleetErrors with every mistake; a fleet with mistakes is never kept.
    """
    identity, newest = _identity(roots)
    folder = cache_folder()
    path = folder / f"{sha256(repr(roots).encode()).hexdigest()[:24]}.fleet" if folder else None
    fleet = _read(path, identity) if path else None
    if fleet is None:
        from inferfleet.load import load_fleet

        fleet = load_fleet(roots)
        # A file of this very moment could change once more without its times showing it.
        if path and time.time_ns() - newest > SETTLED_NS:
            _write(path, identity, fleet)
    return fleet


def cache_folder() -> Path | None:
    """The user's private folder for what can be made again; None when it is not private."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(base) / "inferbase"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    ours = found.st_uid == os.geteuid() and stat.S_ISDIR(found.st_mode)
    return folder if ours and not found.st_mode & 0o022 else None


def _identity(roots: Roots) -> tuple[bytes, int]:
    """What differs when any file does that a fleet is made from, or the program that makes it;
    and the newest time of them, in nanoseconds since 1970."""
    total = sha256(f"{sys.version}\0{roots!r}\0{roots.template_dirs!r}\0".encode())
    newest = 0
    folders = [folder for name in READ for folder in roots.folders(name)]
    for entry in _files([*folders, PACKAGE, PACKAGE / "schema"]):
        found = entry.stat()
        times = f"{found.st_mtime_ns}\0{found.st_ctime_ns}"
        newest = max(newest, found.st_mtime_ns, found.st_ctime_ns)
        total.update(f"{entry.path}\0{found.st_ino}\0{found.st_size}\0{times}\n".encode())
    return total.digest(), newest


def _files(folders: list[Path]) -> Iterator[os.DirEntry[str]]:
    for folder in folders:
        with os.scandir(folder) as entries:
            yield from sorted((e for e in entries if not e.is_dir()), key=lambda e: e.name)


def _read(path: Path, identity: bytes) -> Fleet | None:
    # Whatever a file of another version or half a file raises, it is only a cache.
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            private = found.st_uid == os.geteuid() and not found.st_mode & 0o022
            if not private or file.read(len(identity)) != identity:
                return None
            fleet: Fleet = pickle.load(file)
            return fleet
    except (
        OSError,
        pickle.PickleError,
        EOFError,
        ImportError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ):
        return None


def _write(path: Path, identity: bytes, fleet: Fleet) -> None:
    new = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError):
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(identity + pickle.dumps(fleet))
        new.replace(path)
