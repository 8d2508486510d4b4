"""The real node exporter, one program out of a Debian package that needs nothing but libc."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from testbed import debian
from testbed.shell import alone, cache_dir

PACKAGE = "prometheus-node-exporter"
# The suite whose version services/node-exporter.yaml knows the options of.
SUITE = "sid"


def program() -> Path:
    """The program on this machine, downloaded once."""
    with alone("exporter"):
        kept = cache_dir() / "exporter" / PACKAGE
        if not kept.exists():
            kept.parent.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache_dir()) as folder:
                work = Path(folder)
                debian.unpack(debian.download(SUITE, [PACKAGE], work, alone=True), work / "root")
                shutil.move(work / "root" / "usr" / "bin" / PACKAGE, kept)
        return kept


if __name__ == "__main__":
    print(program())
