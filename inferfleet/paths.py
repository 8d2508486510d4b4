"""Where the data folders are: ours, and the consumer's overlay."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from inferfleet.errors import USAGE, FleetError

FOLDERS = ("inventory", "services", "hostprep", "templates")
PACKAGE = Path(__file__).resolve().parent
OVERLAY_VARIABLE = "INFERBASE_OVERLAY"


@dataclass(frozen=True)
class Roots:
    """data: the folder that holds our data folders; overlay: the consumer's, if there is one."""

    data: Path
    overlay: Path | None = None

    def folders(self, name: str) -> tuple[Path, ...]:
        """The existing folders of this name, ours before the overlay's."""
        roots = (self.data, self.overlay) if self.overlay else (self.data,)
        return tuple(root / name for root in roots if (root / name).is_dir())

    @property
    def template_dirs(self) -> tuple[Path, ...]:
        """In search order: the overlay's templates win."""
        return self.folders("templates")[::-1]


def find_roots(
    overlay: Path | str | None = None,
    *,
    package: Path = PACKAGE,
    environ: Mapping[str, str] = os.environ,
    cwd: Path | None = None,
) -> Roots:
    """Our data folders and the overlay.

    The overlay is the argument, else $INFERBASE_OVERLAY, else the folder fleet/ beside the
    nearest tasks.py above the checkout (or, for an installed wheel, from cwd upward).
    Raises FleetError when our folders are missing or a named overlay does not exist.
    """
    cwd = cwd or Path.cwd()
    installed = package / "_data"
    if installed.is_dir():
        data, above = installed, (cwd, *cwd.parents)
    else:
        data, above = package.parent, tuple(package.parent.parents)
    if not all((data / name).is_dir() for name in FOLDERS):
        raise _without_data(cwd)
    named = str(overlay) if overlay else environ.get(OVERLAY_VARIABLE)
    if named:
        return Roots(data, _named_overlay(cwd / Path(named).expanduser()))
    return Roots(data, _found_overlay(above))


def mounts(folder: Path) -> list[Path]:
    """The checkouts of this project that are git submodules of folder or of one above it."""
    found = [path for above in (folder, *folder.parents) for path in _submodules(above)]
    return [path.resolve() for path in found if (path / PACKAGE.name / "__init__.py").is_file()]


def display(path: Path, cwd: Path | None = None) -> str:
    """The path as messages show it: relative to cwd where it lies below, else absolute."""
    cwd = cwd or Path.cwd()
    return str(path.relative_to(cwd) if path.is_relative_to(cwd) else path)


def _named_overlay(path: Path) -> Path:
    if not path.is_dir():
        raise FleetError(
            f"the overlay folder {path} does not exist",
            f"create it, or correct {OVERLAY_VARIABLE} or the setting that names it",
            code=USAGE,
        )
    if _is_empty_submodule(path):
        raise _uninitialised(path)
    return path.resolve()


def _found_overlay(above: tuple[Path, ...]) -> Path | None:
    for folder in above:
        if (folder / "tasks.py").is_file():
            fleet = folder / "fleet"
            return _named_overlay(fleet) if fleet.is_dir() else None
    return None


def _without_data(cwd: Path) -> FleetError:
    for folder in (cwd, *cwd.parents):
        for path in _submodules(folder):
            if _is_empty_submodule(path):
                return _uninitialised(path)
    return FleetError(
        "the engine is installed without its data folders",
        "install a wheel of it, or the checkout as editable: uv add --editable ./infra",
        code=USAGE,
    )


def _uninitialised(path: Path) -> FleetError:
    return FleetError(
        f"the git submodule {path} is empty", "run: git submodule update --init", code=USAGE
    )


def _submodules(folder: Path) -> Iterator[Path]:
    """The submodules that folder's .gitmodules names."""
    try:
        lines = (folder / ".gitmodules").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        key, equals, value = line.partition("=")
        if equals and key.strip() == "path":
            yield folder / value.strip().strip('"')


def _is_empty_submodule(path: Path) -> bool:
    """True for a folder without content that a .gitmodules above it names."""
    if not path.is_dir() or any(entry.name != ".git" for entry in path.iterdir()):
        return False
    return any(path in _submodules(folder) for folder in path.parents)
