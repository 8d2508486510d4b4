"""The task that shows GPUs."""

from __future__ import annotations

from collections.abc import Sequence

from invoke.context import Context

from inferfleet.errors import FAILED, OK
from inferfleet.tasks.edge import overlay, report, verb


@verb()
def gpu(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    format: str = "table",
) -> int:
    """Show GPUs: memory, power, clocks, links, errors, and whose processes use them."""
    from inferfleet.gpu.facts import GpuFacts
    from inferfleet.gpu.rows import COLUMNS, PROCESS_COLUMNS, gpu_rows, process_rows
    from inferfleet.operations.gpus import read_gpus
    from inferfleet.parallel import on_each
    from inferfleet.run.run import Run
    from inferfleet.show import data, table

    run = Run(overlay(c), host or (), group or ())

    def work(name: str) -> GpuFacts:
        known = run.brief(name)
        return read_gpus(run.session(name, lenient=True), known.local, known.gpu)

    answers = on_each(run.machines, work)
    found = {answer.machine: answer.value for answer in answers if answer.value}
    if format == "json":
        data([{"machine": name, **facts.data()} for name, facts in found.items()])
    else:
        if found:
            table([row for name, facts in found.items() for row in gpu_rows(name, facts)], COLUMNS)
        processes = [row for name, facts in found.items() for row in process_rows(name, facts)]
        if processes:
            print()
            table(processes, PROCESS_COLUMNS)
    errors = [answer.error for answer in answers if answer.error]
    for error in errors:
        report(error)
    return FAILED if errors else OK
