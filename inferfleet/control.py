"""The control script of a release: start, stop and look at its services, with sh alone."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from inferfleet.release import File, Release
from inferfleet.templates import Templates


def with_control(release: Release, template_dirs: tuple[Path, ...]) -> Release:
    """The release with its file `control`; which units there are that reads from `.units`."""
    text = _templates(template_dirs).render(
        "control/control.j2",
        machine=release.machine,
        root=release.root,
        project=release.project,
    )
    return replace(release, files={**release.files, "control": File(text.encode(), mode=0o755)})


@lru_cache(maxsize=8)
def _templates(directories: tuple[Path, ...]) -> Templates:
    return Templates(directories)
