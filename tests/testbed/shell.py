"""Runs commands on the machine that runs the tests, and knows where the test cache is."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path


class CommandError(RuntimeError):
    """A command of the testbed exited with a code that is not 0; the text holds its output."""


def cache_dir() -> Path:
    """Return the folder kept between sessions: $INFERBASE_TEST_CACHE or one below ~/.cache."""
    named = os.environ.get("INFERBASE_TEST_CACHE")
    folder = Path(named) if named else Path.home() / ".cache" / "inferbase-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Wait until no other process of this machine is in a block of this name."""
    with (cache_dir() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(
    *argv: str | Path,
    stdin: bytes | None = None,
    env: dict[str, str] | None = None,
    timeout: float = 600,
) -> str:
    """Run argv and return its standard output; raise CommandError with all output on failure."""
    done = subprocess.run(
        [str(word) for word in argv],
        input=stdin if stdin is not None else b"",
        capture_output=True,
        env={**os.environ, **(env or {})},
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        tail = (done.stdout + done.stderr).decode(errors="replace")[-4000:]
        raise CommandError(f"{' '.join(map(str, argv))}: exit code {done.returncode}\n{tail}")
    return done.stdout.decode(errors="replace")
