"""What is done to a machine, as data: files put, values written, commands run; and as shell."""

from __future__ import annotations

import base64
import shlex
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PutFile:
    """Have this file with this content, mode and owner root; None: have no file there.

    A file that is there keeps its owner and mode. after: a command (argv) that must follow a
    change of the file, such as update-grub; run once, after all files, however many changed files
    name it. reload: systemd must read its units anew before that, which it does once for all.
    reboot, cuts: as in Change.
    """

    path: str
    content: str | None
    mode: int = 0o644
    after: tuple[str, ...] = ()
    reload: bool = False
    reboot: str = ""
    cuts: bool = False


@dataclass(frozen=True)
class Restore:
    """Put back the file that the first PutFile of this path replaced, byte for byte; or none."""

    path: str


@dataclass(frozen=True)
class Write:
    """Write a value to a file of /proc or /sys; one that is not there is an error."""

    path: str
    value: str


@dataclass(frozen=True)
class Run:
    """Run a program (argv, no shell). quiet: its failure does not count."""

    argv: tuple[str, ...]
    quiet: bool = False


Step = PutFile | Restore | Write | Run


def reloads(step: Step) -> bool:
    """Whether it may make systemd read its units anew, as enabling one does, too."""
    return isinstance(step, Run) and "systemctl" in " ".join(step.argv)


def shell(step: Step) -> str:
    """One line of POSIX sh that does it, with the functions of remote/steps.sh in scope."""
    match step:
        case PutFile(path, None):
            return f"drop_file {shlex.quote(path)}"
        case PutFile(path, content, mode):
            body = base64.b64encode((content or "").encode()).decode()
            return f"put_file {shlex.quote(path)} {mode:o} {body}"
        case Restore(path):
            return f"restore_file {shlex.quote(path)}"
        case Write(path, value):
            return f"write_value {shlex.quote(path)} {shlex.quote(value)}"
        case Run(argv, quiet):
            return f"run_{'quietly' if quiet else 'program'} {shlex.join(argv)}"


def dump(step: Step) -> dict[str, Any]:
    """The step as plain JSON data."""
    match step:
        case PutFile(path, content, mode):
            return {"put": path, "content": content, "mode": mode}
        case Restore(path):
            return {"restore": path}
        case Write(path, value):
            return {"write": path, "value": value}
        case Run(argv, quiet):
            return {"run": list(argv), "quiet": quiet}


def load(data: dict[str, Any]) -> Step:
    """The step that dump wrote. Raises KeyError or TypeError for anything else."""
    if "put" in data:
        return PutFile(data["put"], data["content"], data["mode"])
    if "restore" in data:
        return Restore(data["restore"])
    if "write" in data:
        return Write(data["write"], data["value"])
    return Run(tuple(data["run"]), data["quiet"])
