"""Compiled modules are kept between runs, unless the user has told Python otherwise."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    skip = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(REPOSITORY / "inferfleet", tmp_path / "inferfleet", ignore=skip)
    shutil.copy(REPOSITORY / "tasks.py", tmp_path)
    return tmp_path


def listed(checkout: Path, **extra: str) -> set[str]:
    """Run `invoke --list` there; the names of the modules that lie compiled afterwards."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "--list"],
        cwd=checkout,
        env={**env, "PYTHONPATH": str(checkout), **extra},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "  up " in done.stdout
    return {path.name.split(".")[0] for path in checkout.rglob("*.pyc")}


def test_invoke_leaves_our_modules_compiled(checkout: Path) -> None:
    assert {"change", "look", "edge", "errors"} <= listed(checkout)


def test_who_wants_no_compiled_files_gets_none(checkout: Path) -> None:
    assert listed(checkout, PYTHONDONTWRITEBYTECODE="1") == set()
