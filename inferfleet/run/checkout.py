"""What git says of the folders that a run reads: from its files, and once from git itself."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from inferfleet.paths import Roots
from inferfleet.release.provenance import Checkout, Provenance

STATUS_SECONDS = 10
_REVISION = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


def provenance(roots: Roots, who: str, *, dirty: bool = False) -> Provenance:
    """Of these folders; dirty: whether git is asked for changes, which takes some milliseconds."""
    engine = _checkout(roots.data, dirty)
    if roots.overlay is None:
        return Provenance(who, engine)
    project = _checkout(roots.overlay, dirty)
    return Provenance(who, project, engine if engine.path != project.path else None)


def _checkout(folder: Path, dirty: bool) -> Checkout:
    top = next((path for path in (folder, *folder.parents) if (path / ".git").exists()), None)
    if top is None:
        return Checkout(str(folder))
    return Checkout(str(top), _revision(top / ".git"), _changed(folder) if dirty else None)


def _changed(folder: Path) -> bool | None:
    """Whether files below folder differ from what is committed."""
    words = ["git", "--no-optional-locks", "-C", str(folder), "status", "--porcelain", "--", "."]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=STATUS_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return bool(done.stdout.strip()) if done.returncode == 0 else None


def _revision(git: Path) -> str:
    """The commit that is checked out, as git's own files say; "" when they say it otherwise."""
    try:
        if git.is_file():  # of a submodule or another work tree
            git = git.parent / _line(git).removeprefix("gitdir:").strip()
        head = _line(git / "HEAD")
        name = head.removeprefix("ref:").strip()
        if name != head:
            head = _named(git, name)
    except OSError:
        return ""
    return head if _REVISION.fullmatch(head) else ""


def _named(git: Path, name: str) -> str:
    common = git / _line(git / "commondir") if (git / "commondir").is_file() else git
    for folder in (git, common):
        if (folder / name).is_file():
            return _line(folder / name)
    for line in (common / "packed-refs").read_text("utf-8", "replace").splitlines():
        revision, _, packed = line.partition(" ")
        if packed == name:
            return revision
    return ""


def _line(path: Path) -> str:
    return path.read_text("utf-8", "replace").partition("\n")[0].strip()
