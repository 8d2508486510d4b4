"""The command line in a process of its own that can be stopped at any event.

It is forked from a server that has the engine imported already, so that one run costs tenths of
a second; all else is as when a user runs `invoke` in the checkout without a terminal.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
PRELOAD = [
    "fabric", "httpx", "jinja2", "pydantic", "rich.console", "rich.table", "invoke.main",
    "inferfleet.apply.apply", "inferfleet.hosts.ssh", "inferfleet.load.load",
    "inferfleet.render.render", "inferfleet.run.run", "inferfleet.tasks.change",
    "inferfleet.tasks.look", "inferfleet.operations.tunnel", "inferfleet.hostprep.ground",
    "inferfleet.hostprep.merge", "inferfleet.tasks.hostprep",
]  # fmt: skip
_PATIENCE = 60.0


class Ran(NamedTuple):
    """Exit code and the two outputs of one command."""

    rc: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"exit {self.rc}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


def _operate(
    words: Sequence[str],
    environ: Mapping[str, str],
    outputs: tuple[str, str],
    stop: tuple[str, str] | None,
    silence: int | None,
    cut: int | None,
    line: Connection,
) -> None:
    """The child: `invoke WORDS`, held at the first event of that kind that begins so."""
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(REPOSITORY)
    for number, path in enumerate(outputs, start=1):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
        os.close(handle)
    sys.stdout, sys.stderr = (
        os.fdopen(1, "w", closefd=False),
        os.fdopen(2, "w", closefd=False),
    )
    from inferfleet.apply import apply
    from inferfleet.events import Event
    from inferfleet.show import Reporter

    if silence is not None:
        apply.SILENCE_SECONDS, apply.BEAT_SECONDS = silence, silence / 4
    if cut is not None:
        from inferfleet.hostprep import act

        act.CUT_SECONDS = cut

    show, waiting = Reporter.__call__, [stop] if stop else []

    def held(self: Reporter, event: Event) -> None:
        show(self, event)
        if waiting and event.kind == waiting[0][0] and event.text.strip().startswith(waiting[0][1]):
            waiting.clear()
            line.send(event.text)
            if line.recv() == "crash":
                raise RuntimeError("a defect that nobody expects")

    Reporter.__call__ = held  # type: ignore[method-assign]
    from invoke.main import program

    try:
        program.run(["invoke", *words])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


class Operator:
    """One run of the command line; stop_at is an event (kind, beginning of its text)."""

    def __init__(
        self,
        words: Sequence[str],
        environ: Mapping[str, str],
        folder: Path,
        stop_at: tuple[str, str] | None = None,
        silence: int | None = None,
        cut: int | None = None,
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        self._line, theirs = context.Pipe()
        self._out, self._err = folder / "out", folder / "err"
        outputs = (str(self._out), str(self._err))
        self.process = context.Process(
            target=_operate,
            args=(words, environ, outputs, stop_at, silence, cut, theirs),
            daemon=True,
        )
        self.process.start()
        theirs.close()

    def reached(self) -> Operator:
        """Wait until the run stands at its event; an AssertionError when it ends before."""
        try:
            assert self._line.poll(_PATIENCE), "the run does not come to its event"
            self._line.recv()
        except EOFError:
            raise AssertionError(f"the run ended before its event: {self.ended()}") from None
        return self

    def go_on(self) -> Operator:
        """Let the run go on."""
        self._line.send("go")
        return self

    def crash(self) -> Operator:
        """Let the run go on with an exception that is not one of ours."""
        self._line.send("crash")
        return self

    def kill(self) -> None:
        """SIGKILL, unless it has ended already."""
        self.process.kill()
        self.process.join(_PATIENCE)

    def ended(self, patience: float = _PATIENCE) -> Ran:
        """Wait for the end of the run; its exit code and outputs."""
        self.process.join(patience)
        assert self.process.exitcode is not None, "the run does not end"
        return Ran(self.process.exitcode, self._out.read_text(), self._err.read_text())
