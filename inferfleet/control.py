"""The control script of a release: start, stop and look at its services, with sh alone."""

from __future__ import annotations

from inferfleet.release import File
from inferfleet.templates import Templates


def control_file(templates: Templates, machine: str, root: str, project: str) -> File:
    """The script; which units there are it reads from `.units` beside it."""
    text = templates.render("control/control.j2", machine=machine, root=root, project=project)
    return File(text.encode(), mode=0o755)
