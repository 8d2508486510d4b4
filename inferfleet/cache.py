"""What can be made again and is kept between runs, in a private folder of the user's."""

from __future__ import annotations

import os
import pickle
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any


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


def read_kept(path: Path, identity: bytes) -> Any:
    """The object in a file that begins with this identity; None when it may not be trusted."""
    # Whatever a file of another version or half a file raises, it is only a cache.
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            private = found.st_uid == os.geteuid() and not found.st_mode & 0o022
            if not private or file.read(len(identity)) != identity:
                return None
            return pickle.load(file)
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


def write_kept(path: Path, identity: bytes, value: object) -> None:
    """Keep an object for read_kept, wholly or not at all; a full or read-only disk is no error."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(identity + pickle.dumps(value))
        new.replace(path)
