"""One command measured, several commands compared in turns."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SECONDS = 600.0


class BenchmarkError(Exception):
    """A command that did not do what it was measured for."""


@dataclass(frozen=True)
class Sample:
    """seconds: wall clock; cpu: seconds of the process and the children it waited for;
    peak: most resident memory of one process among them, in bytes."""

    seconds: float
    cpu: float
    peak: int


def surroundings(**extra: str) -> dict[str, str]:
    """The environment of a user: without what this machine says to Python, ssh and the tools."""
    foreign = ("INFERBASE_", "SSH_", "ANSIBLE_", "PYTHON")
    return {k: v for k, v in os.environ.items() if not k.startswith(foreign)} | extra


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    cwd: Path,
    expect: Sequence[int] = (0,),
) -> Sample:
    """Run a command to its end without a terminal. Raises BenchmarkError for its exit status."""
    with tempfile.TemporaryFile() as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in argv],
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        # wait4 is the one call that tells the resources of this child alone.
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = code = os.waitstatus_to_exitcode(status)
        if code not in expect:
            log.seek(0)
            said = log.read()[-4000:].decode(errors="replace")
            raise BenchmarkError(f"{' '.join(map(str, argv))} ended with {code}:\n{said}")
    # Linux counts ru_maxrss in KiB.
    return Sample(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss << 10)


def run_together(
    commands: Sequence[Sequence[str | Path]], *, env: Mapping[str, str], cwd: Path
) -> Sample:
    """Run commands at the same time; seconds until the last has ended."""
    began = time.perf_counter()
    processes = [
        subprocess.Popen(
            [str(word) for word in argv],
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for argv in commands
    ]
    cpu, peak = 0.0, 0
    for process in processes:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu += used.ru_utime + used.ru_stime
        peak = max(peak, used.ru_maxrss << 10)
    failed = [process.returncode for process in processes if process.returncode]
    if failed:
        raise BenchmarkError(f"{' '.join(map(str, commands[0]))} ended with {failed[0]}")
    return Sample(time.perf_counter() - began, cpu, peak)


def in_turns(
    actions: Mapping[str, Callable[[], Sample]],
    rounds: int,
    between: Callable[[], object] = lambda: None,
) -> dict[str, list[Sample]]:
    """Every action once a round; the order changes, so that none always follows the same other.

    What one leaves behind (a warm or a throttled processor) meets all alike. between: run before
    each action, unmeasured.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in actions}
    names = list(actions)
    for number in range(rounds):
        for name in turn(names, number):
            between()
            samples[name].append(actions[name]())
    return samples


def turn(names: Sequence[str], number: int) -> list[str]:
    """The order of a round. Over len(names) rounds, an even number of names, each follows each
    other once (E. J. Williams, Australian Journal of Scientific Research A 2, 1949)."""
    count = len(names)
    zigzag = [place // 2 + 1 if place % 2 else -(place // 2) for place in range(count)]
    return [names[(place + number) % count] for place in zigzag]


def median_seconds(samples: Sequence[Sample]) -> float:
    """The median of the wall clock."""
    return statistics.median(sample.seconds for sample in samples)


def median_ratio(ours: Sequence[Sample], theirs: Sequence[Sample]) -> float:
    """Median over the rounds of theirs divided by ours: a round's two runs shared one moment."""
    return statistics.median(b.seconds / a.seconds for a, b in zip(ours, theirs, strict=True))


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server that this program started."""
    process.send_signal(signal.SIGTERM)
    process.wait()
