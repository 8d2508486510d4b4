"""The control script of a release: start, stop and look at its services, with sh alone."""

from __future__ import annotations

from inferfleet.release.release import File
from inferfleet.render.templates import Templates


def control_file(
    templates: Templates, machine: str, root: str, project: str, drop_caches: bool = False
) -> File:
    """The script; which units there are it reads from `.units` beside it.

    drop_caches: the page cache is given back before services are started.
    """
    text = templates.render(
        "control/control.j2",
        machine=machine,
        root=root,
        project=project,
        drop_caches=drop_caches,
    )
    return File(text.encode(), mode=0o755)
