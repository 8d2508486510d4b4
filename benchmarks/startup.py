"""`invoke --list` here against `invoke --list` of an empty tasks.py: what our door costs."""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.measure import in_turns, median_ratio, median_seconds, run, surroundings

REPOSITORY = Path(__file__).resolve().parent.parent
INVOKE = Path(sys.executable).with_name("invoke")


def measure(rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    """The figures of the start-up."""
    with tempfile.TemporaryDirectory(prefix="startup-") as folder:
        empty = Path(folder)
        (empty / "tasks.py").touch()
        listing = partial(run, [INVOKE, "--list"], env=surroundings())
        samples = in_turns(
            {
                # Invoke has nothing to list there, and says so with exit status 1.
                "empty": partial(listing, cwd=empty, expect=(1,)),
                "ours": partial(listing, cwd=REPOSITORY),
            },
            rounds,
        )
    ratio = median_ratio(samples["empty"], samples["ours"])
    figures = [Figure("invoke --list, to that of an empty tasks.py", ratio, "times", 1.5)]
    figures += [
        Figure(f"invoke --list, {name}", median_seconds(taken), "s")
        for name, taken in samples.items()
    ]
    details = {name: [round(s.seconds, 3) for s in taken] for name, taken in samples.items()}
    return figures, details
