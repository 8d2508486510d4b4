"""libgomp where the system has none: xllamacpp's wheel needs it and does not bring it.

The wheel of pykdtree brings a copy under a name of its own. The dynamic linker takes a library
that is loaded already for one that is wanted when its SONAME is the wanted name, so the copy is
loaded from memory with that name in it; nothing is written to disk.
"""

from __future__ import annotations

import ctypes
import os
from importlib import metadata

WANTED = "libgomp.so.1"
CARRIER = "pykdtree"


def provide() -> None:
    """Make libgomp loadable for this process; harmless where the system has it.

    Does nothing when no copy is found: the import that needs it then says what is missing.
    """
    if _loads(WANTED):
        return
    try:
        files = metadata.files(CARRIER) or []
    except metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name.startswith("libgomp") and ".so" in file.name:
            _load_as(WANTED, file.name, file.locate().read_bytes())  # type: ignore[attr-defined]
            return


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True


def _load_as(wanted: str, name: str, content: bytes) -> None:
    """Load a library under another SONAME, which must not be longer than its own."""
    old, new = name.encode() + b"\0", wanted.encode().ljust(len(name), b"\0") + b"\0"
    handle = os.memfd_create(wanted)
    with os.fdopen(handle, "wb", closefd=False) as memory:
        memory.write(content.replace(old, new))
    _loads(f"/proc/self/fd/{handle}")
    os.close(handle)
