"""Real LiteLLM out of wheels: its proxy in a virtual environment of its own, 550 MB.

Too heavy for every run: tests that need it are slow ones, and build it once. Run as
`python3 -m testbed.litellm` to build it and print its folder.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from testbed.shell import alone, cache_dir, run

# The version that the benchmark of the gateway compares with.
WHEEL = "litellm[proxy]==1.106.*"
_READY = "inferbase-ready"


def build() -> Path:
    """The environment, built when it is not there; other sessions wait meanwhile."""
    with alone("litellm"):
        folder = cache_dir() / "litellm"
        ready = folder / _READY
        wanted = f"{sys.version}\n{WHEEL}\n"
        if not ready.exists() or ready.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            run(sys.executable, "-m", "venv", folder)
            pip = [folder / "bin" / "pip", "--disable-pip-version-check", "--quiet"]
            run(*pip, "install", WHEEL, timeout=1800)
            ready.write_text(wanted)
        return folder


if __name__ == "__main__":
    print(build())
