"""Folders of YAML files for tests of loading: a small base of kinds and hardware, plus texts."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from inferfleet.load.load import Loaded, load
from inferfleet.paths import Roots

CASES = Path(__file__).resolve().parent / "cases" / "load"


def write_files(root: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def load_files(root: Path, files: Mapping[str, str | bytes], **overlay: str) -> Loaded:
    """Load the base with files added; overlay: texts below root/fleet by 'folder__name'."""
    shutil.copytree(CASES / "base", root, dirs_exist_ok=True)
    write_files(root, files)
    over = {f"fleet/{name.replace('__', '/')}.yaml": text for name, text in overlay.items()}
    write_files(root, over)
    return load(Roots(root, root / "fleet" if overlay else None))


def error_lines(loaded: Loaded) -> str:
    ordered = sorted(loaded.errors, key=lambda error: (error.where, error.what))
    return "\n".join(str(error) for error in ordered)
