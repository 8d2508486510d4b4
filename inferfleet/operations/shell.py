"""What `shell` runs on a machine: an interactive shell there, or one command."""

from __future__ import annotations

import shlex

from inferfleet.release.release import Release

LOGIN = 'exec "${SHELL:-/bin/sh}" -l'


def shell_script(release: Release, service: str | None, command: str) -> str:
    """The script for a terminal: in the service's container, at its files, or on the machine.

    command: what sh runs there; its exit status becomes the script's. "" is a shell.
    """
    unit = release.units[service] if service else None
    run = f"exec sh -c {shlex.quote(command)}" if command else ""
    if unit is None:
        return run or LOGIN
    if unit.runtime == "compose":
        inner = run.removeprefix("exec ") or "sh"
        return f"exec docker exec -i$([ -t 0 ] && echo t) {shlex.quote(unit.name)} {inner}"
    return f"cd {shlex.quote(release.root)} && {run or LOGIN}"
