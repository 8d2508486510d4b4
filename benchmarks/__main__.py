"""`python -m benchmarks [fanout|hostprep|startup|render|local|engine|gateway|all] [--rounds N]`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import engine, fanout, gateway, hostprep, local, rendering, startup
from benchmarks.figures import Figure, keep, machine, table
from benchmarks.measure import BenchmarkError

Measure = Callable[[], tuple[list[Figure], dict[str, Any]]]


def main() -> int:
    """Measure what was asked for; 0 when every bound is kept, 1 when not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = ("fanout", "hostprep", "startup", "render", "local", "engine", "gateway")
    parser.add_argument("what", nargs="*", choices=[*names, "all"], default="all")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each command; odd")
    parser.add_argument(
        "--slow-rounds", type=int, default=5, help="the same for first applies, which take long"
    )
    given = parser.parse_args()
    measures: dict[str, Measure] = {
        "startup": lambda: startup.measure(2 * given.rounds + 1),
        "render": lambda: rendering.measure(given.rounds),
        "local": lambda: local.measure(given.rounds),
        "engine": lambda: engine.measure(4 * given.rounds + 1),
        "gateway": lambda: gateway.measure(given.slow_rounds),
        "hostprep": lambda: hostprep.measure(given.rounds),
        "fanout": lambda: fanout.measure(given.rounds, given.slow_rounds),
    }
    wanted = [name for name in measures if name in given.what or "all" in given.what]
    here = machine()
    print(f"{here['cpu']}, {here['cores']} cores, Python {here['python']}, {here['ssh']}")
    kept = True
    for name in wanted:
        load = os.getloadavg()
        try:
            figures, details = measures[name]()
        except BenchmarkError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        path = keep(name, figures, details, load)
        print(f"\n{name} ({path.name}; load average {load[0]:.1f} before)\n{table(figures)}")
        sys.stdout.flush()
        kept = kept and all(figure.met is not False for figure in figures)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
