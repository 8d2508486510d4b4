"""A release as plain files in a folder of this machine: what `render --out DIR` leaves."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from inferfleet.errors import USAGE, FleetError
from inferfleet.release.archive import own_files
from inferfleet.release.release import File, Release

# Which files of the folder are ours: path -> sha256 of what was, or is being, written.
LIST = ".inferbase-files.json"
IGNORE = File(b"*\n")


def bring_up_to_date(folder: Path, files: Mapping[str, str]) -> list[str]:
    """Write those of the generated files (name -> text) that differ; their names."""
    changed = []
    for name, text in files.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            changed.append(name)
    return changed


def write_release(release: Release, out: Path) -> list[Path]:
    """Write every file of the release below out and return the paths, in order.

    Out is for its owner alone, and git ignores it, because some files hold secrets. What an
    earlier call wrote is replaced, or removed when it is no longer part of the release. Raises
    FleetError before anything is written when a file there is not ours, was changed by hand, or is
    reached through a link.
    """
    ours = _read_list(out)
    content = {**release.files, ".units": own_files(release)[".units"], ".gitignore": IGNORE}
    if release.links:
        content["LINKS"] = _links(release)
    for path in {*content, *ours}:
        _check(out, path, ours.get(path))
    # Git would ignore them, too.
    if out.is_dir() and not (out / LIST).exists() and any(out.iterdir()):
        raise FleetError(f"{out} holds files that are not of a rendering", "name another folder")
    new = {path: [file.sha256] for path, file in content.items()}
    # Mode before content.
    out.mkdir(parents=True, exist_ok=True)
    out.chmod(0o700)
    # Both old and new, so that an interrupted call does not disown its files.
    _put_list(out, {path: ours.get(path, []) + new.get(path, []) for path in {*ours, *new}})
    for path in ours.keys() - new.keys():
        (out / path).unlink(missing_ok=True)
    written = []
    for path, file in sorted(content.items()):
        target = out / path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        _put(target, file.content, file.mode)
        written.append(target)
    _put_list(out, new)
    return written


def _put_list(out: Path, files: dict[str, list[str]]) -> None:
    _put(out / LIST, json.dumps(files, indent=1, sort_keys=True) + "\n")


def _links(release: Release) -> File:
    """The links that installing would make, as commands to read or run."""
    lines = [f"{path} -> {release.root}/current/{target}" for path, target in release.links.items()]
    return File(("\n".join(sorted(lines)) + "\n").encode())


def _read_list(out: Path) -> dict[str, list[str]]:
    try:
        found = json.loads((out / LIST).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise FleetError(
            f"{out / LIST} cannot be read: {error}", "render into another folder", code=USAGE
        ) from None
    if not isinstance(found, dict) or not all(isinstance(sums, list) for sums in found.values()):
        raise FleetError(f"{out / LIST} is damaged", "render into another folder", code=USAGE)
    return {path: sums for path, sums in found.items() if _inside(Path(path))}


def _inside(path: Path) -> bool:
    return not path.is_absolute() and ".." not in path.parts


def _check(out: Path, path: str, sha256: list[str] | None) -> None:
    target = out / path
    for parent in (target, *target.parents):
        if parent == out:
            break
        if parent.is_symlink():
            raise FleetError(f"{parent} is a link", "render into another folder", code=USAGE)
    if not target.exists():
        return
    if not target.is_file() or sha256 is None or File(target.read_bytes()).sha256 not in sha256:
        raise FleetError(
            f"{target} is not as inferbase wrote it, so it is left alone",
            "move it away, or render into another folder",
            code=USAGE,
        )


def _put(target: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Mode before content, and never through a link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.new")
    new.unlink(missing_ok=True)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content.encode() if isinstance(content, str) else content)
    new.replace(target)
