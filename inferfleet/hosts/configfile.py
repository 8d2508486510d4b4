"""Reading ssh_config files: Include followed, each file parsed once."""

from __future__ import annotations

import glob
import os
import shlex
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from paramiko import SSHConfig
from paramiko.config import SSHConfigDict
from paramiko.ssh_exception import ConfigParseError

from inferfleet.errors import FleetError

USER_CONFIG = "~/.ssh/config"
SYSTEM_CONFIG = "/etc/ssh/ssh_config"
# readconf.h of OpenSSH, READCONF_MAX_DEPTH.
MAX_DEPTH = 16


class Config(SSHConfig):
    """paramiko's reader without its expansion of %-tokens, which asks DNS for every key file."""

    TOKENS_BY_CONFIG_KEY: ClassVar = {  # type: ignore[misc]
        "match-exec": SSHConfig.TOKENS_BY_CONFIG_KEY["match-exec"]
    }

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[str, SSHConfigDict] = {}

    def lookup(self, hostname: str) -> SSHConfigDict:
        """What is said about a host; asked five times for one login, so it is kept."""
        if hostname not in self._found:
            self._found[hostname] = super().lookup(hostname)
        return self._found[hostname]


def load(path: str | None = None) -> Config:
    """Read path alone, or the user's configuration followed by the system's.

    A parsed file is kept until it or its time of change differs; Include is followed.
    FleetError when a file cannot be read or understood, or the named one is missing.
    """
    if path is not None and not os.path.exists(os.path.expanduser(path)):
        raise FleetError(f"there is no ssh configuration {path}", "check ssh_config")
    wanted = [path] if path is not None else [USER_CONFIG, SYSTEM_CONFIG]
    files = tuple(os.path.expanduser(file) for file in wanted)
    return _parsed(files, tuple(_stamp(file) for file in files))


def _stamp(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=8)
def _parsed(files: tuple[str, ...], stamps: tuple[int, ...]) -> Config:
    """Cached by the times of change, so that eight hosts read one file once."""
    lines: list[str] = []
    for file, stamp in zip(files, stamps, strict=True):
        if stamp:
            lines += ["Host *", *_included(Path(file), "Host *", 0)]
    config = Config()
    try:
        config.parse(lines)
    except ConfigParseError as error:
        raise FleetError(f"{' or '.join(files)}: {error}") from None
    return config


def _included(path: Path, block: str, depth: int) -> list[str]:
    """Lines of a file with Include replaced by what it names; paramiko knows no Include."""
    if depth > MAX_DEPTH:
        raise FleetError(f"{path}: Include nests deeper than {MAX_DEPTH}")
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise FleetError(f"cannot read {path}: {error.strerror}") from None
    lines = []
    for line in text.splitlines():
        word, _, rest = line.strip().replace("=", " ", 1).partition(" ")
        if word.lower() in ("host", "match"):
            block = line
        if word.lower() != "include":
            lines.append(line)
            continue
        for pattern in shlex.split(rest):
            system = str(path).startswith("/etc/ssh/")
            base = Path(SYSTEM_CONFIG if system else USER_CONFIG).expanduser().parent
            for name in sorted(glob.glob(str(base / Path(pattern).expanduser()))):
                lines += _included(Path(name), block, depth + 1)
        lines.append(block)
    return lines
