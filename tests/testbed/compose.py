"""The Docker Compose v2 plugin: one binary of a newer Debian, for this machine and the machines.

Run as `python3 -m testbed.compose` to put it where this machine's docker finds it.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from testbed import debian
from testbed.shell import CommandError, cache_dir, run

SUITE = "trixie"
PLUGIN = Path("usr/libexec/docker/cli-plugins/docker-compose")


def binary() -> Path:
    """Return the cached plugin, downloading it once."""
    kept = cache_dir() / f"docker-compose-{SUITE}"
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=cache_dir()) as folder:
            work = Path(folder)
            debian.unpack(debian.download(SUITE, ["docker-compose"], work, alone=True), work / "x")
            found = [path for path in (work / "x").rglob("docker-compose") if path.is_file()]
            ready = work / "ready"
            shutil.copyfile(max(found, key=lambda path: path.stat().st_size), ready)
            ready.chmod(0o755)
            ready.rename(kept)
    return kept


def install() -> None:
    """Install the plugin on this machine unless its docker already has Compose v2."""
    try:
        run("docker", "compose", "version")
    except CommandError:
        target = Path("/") / PLUGIN
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(binary(), target)
        target.chmod(0o755)
        run("docker", "compose", "version")


if __name__ == "__main__":
    install()
