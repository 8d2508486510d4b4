"""Shell programs that run on a machine: POSIX sh, coreutils and tar are all they need.

A program is plain text beside this file; its parameters are shell variables that the
caller sets in front of it, each quoted here.
"""

from __future__ import annotations

import shlex
from functools import cache
from pathlib import Path


@cache
def _text(name: str) -> str:
    return (Path(__file__).parent / f"{name}.sh").read_text("ascii")


def program(*names: str, **variables: str | int) -> str:
    """The texts of NAME.sh, one after the other, with shell variables set in front of them."""
    settings = [f"{key}={shlex.quote(str(value))}" for key, value in variables.items()]
    return "\n".join([*settings, *map(_text, names)])
