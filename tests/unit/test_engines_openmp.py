"""libgomp for xllamacpp on a system that has none."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from importlib import metadata

import pytest

from inferfleet.engines import openmp


def carried() -> metadata.PackagePath:
    return next(f for f in metadata.files(openmp.CARRIER) or [] if f.name.startswith("libgomp"))


def test_a_copy_is_found_under_the_wanted_name() -> None:
    """In a process of its own: what is loaded stays loaded."""
    code = """
import ctypes, sys
from pathlib import Path
from inferfleet.engines import openmp
wanted = "libother.so.1"
try:
    ctypes.CDLL(wanted)
except OSError:
    pass
else:
    sys.exit("there is such a library")
path = Path(sys.argv[1])
openmp._load_as(wanted, path.name, path.read_bytes())
print(ctypes.CDLL(wanted).omp_get_max_threads() > 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(carried().locate())], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_the_carrier_still_carries_it() -> None:
    assert b"GOMP_parallel" in carried().locate().read_bytes()  # type: ignore[attr-defined]


def test_a_system_that_has_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmp, "WANTED", "libc.so.6")
    monkeypatch.setattr(openmp, "_load_as", lambda *_: pytest.fail("loaded another copy"))
    openmp.provide()
    assert ctypes.CDLL("libc.so.6")
