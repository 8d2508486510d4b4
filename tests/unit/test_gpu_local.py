"""NVML through pynvml: a library made here, one that is missing, old or failing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tools import needs

SOURCE = Path(__file__).parent / "nvml_stub.c"
REPOSITORY = Path(__file__).parents[2]
ASK = """
import json, sys
from inferfleet.errors import FleetError
from inferfleet.gpu.local import NoLibrary, local_gpus
try:
    print(json.dumps(local_gpus().data()))
except FleetError as error:
    print(json.dumps({"error": error.what, "hint": error.hint,
                      "library": not isinstance(error, NoLibrary)}))
"""


def compiled(folder: Path, *defined: str) -> Path:
    """A folder with libnvidia-ml.so.1."""
    flags = [f"-D{name}" for name in defined]
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-w", *flags, "-o", str(library), str(SOURCE)], check=True
    )
    return folder


def ask(folder: Path) -> dict[str, Any]:
    """local_gpus in a process that finds its libraries there first."""
    env = {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=env, capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@needs("cc")
def test_a_card(tmp_path: Path) -> None:
    found = ask(compiled(tmp_path))
    assert (found["driver"], found["cuda"]) == ("580.95.05", "13.0")
    (gpu,) = found["gpus"]
    assert (gpu["name"], gpu["uuid"]) == ("NVIDIA H100 NVL", "GPU-1")
    assert (gpu["memory_total"], gpu["memory_used"]) == (95830 << 20, 86412 << 20)
    assert (gpu["utilization"], gpu["temperature"], gpu["state"]) == (41, 45, "P0")
    # What this library lacks is unknown, and nothing else suffers.
    assert gpu["power"] == {
        "draw": 64.87, "limit": 400.0, "default": None, "minimum": None, "maximum": None,
    }  # fmt: skip
    assert gpu["link"]["generation"] is None
    assert gpu["ecc"] == {"current": True, "pending": False, "corrected": 2, "uncorrected": 0}
    assert gpu["reasons"] == ["sw power cap"]
    assert gpu["compute_mode"] == "exclusive-process"
    assert gpu["mig"]["current"] is None
    assert gpu["processes"] == [
        {"pid": 1, "name": "", "memory": 86390 << 20, "kind": "C", "owner": ""}
    ]


@needs("cc")
def test_unified_memory(tmp_path: Path) -> None:
    (gpu,) = ask(compiled(tmp_path, "UNIFIED"))["gpus"]
    assert gpu["name"] == "NVIDIA GB10"
    assert (gpu["memory_total"], gpu["bar1"], gpu["power"]["limit"]) == (None, None, None)
    assert gpu["processes"][0]["memory"] == 86390 << 20


@needs("cc")
@pytest.mark.parametrize(
    ("defined", "what", "library"),
    [
        ("OLD", "libnvidia-ml.so.1 is too old", False),
        ("NO_DRIVER", "kernel module is not loaded", True),
        ("MISMATCH", "newer than its kernel module", True),
    ],
)
def test_a_library_that_cannot(tmp_path: Path, defined: str, what: str, library: bool) -> None:
    found = ask(compiled(tmp_path, defined))
    assert what in found["error"]
    assert found["hint"]
    assert found["library"] == library


def test_no_library(tmp_path: Path) -> None:
    found = ask(tmp_path)
    if "error" not in found:
        pytest.skip("this machine has a GPU")
    assert found["error"] == "libnvidia-ml.so.1 is not installed"
    assert not found["library"]
