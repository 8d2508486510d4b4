"""Virtual environments out of wheels, built once for each list of wheels and interpreter."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from testbed.shell import alone, cache_dir, run

_READY = "inferbase-ready"


def environment(name: str, *wheels: str) -> Path:
    """The folder of the environment with that name; other sessions wait while it is built."""
    with alone(name):
        folder = cache_dir() / name
        ready = folder / _READY
        wanted = f"{sys.version}\n{' '.join(wheels)}\n"
        if not ready.exists() or ready.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            run(sys.executable, "-m", "venv", folder)
            pip = [folder / "bin" / "pip", "--disable-pip-version-check", "--quiet"]
            run(*pip, "install", *wheels, timeout=1800)
            ready.write_text(wanted)
        return folder
