"""The task that says whether services fit a machine, and what they yield."""

from __future__ import annotations

from collections.abc import Sequence

from invoke.context import Context

from inferfleet.errors import NO_FIT, OK, USAGE, FleetError
from inferfleet.tasks.edge import overlay, report, verb


@verb(
    help={
        "live": "ask the machine how much memory is free now, and for the models that lie there",
        "model": "a model that no service names: what would it take",
        "kind": "kind of service for --model; default: what usually serves such a model",
        "options": "options of the engine for --model, as name=value,name=value",
        "exact": "with whole numbers, and the sums that they come from",
    }
)
def capacity(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    service: Sequence[str] | None = None,
    live: bool = False,
    model: str = "",
    kind: str = "",
    options: str = "",
    exact: bool = False,
    format: str = "table",
) -> int:
    """Show what services take of a machine's memory, whether they fit, and what they yield."""
    if (kind or options) and not model:
        raise FleetError("--kind and --options are for --model", "name one", code=USAGE)
    if model and service:
        raise FleetError("--model asks about no service", "leave one of them out", code=USAGE)
    from inferfleet.capacity.report import columns, data, lines, rows
    from inferfleet.operations.asked import Asked
    from inferfleet.operations.capacity import survey
    from inferfleet.parallel import on_each
    from inferfleet.run.run import Run
    from inferfleet.show import data as show_data
    from inferfleet.show import hidden, table
    from inferfleet.tasks.carry import one_code

    run = Run(overlay(c), host or (), group or (), service or ())
    asked = Asked(model, kind, options) if model else None
    answers = on_each(run.machines, lambda name: survey(run, name, live, asked))
    found = [answer.value for answer in answers if answer.value]
    if format == "json":
        show_data(hidden([data(one) for one in found], run.redact))
    else:
        for one in found:
            if terms := rows(one):
                table(terms, columns(one, exact))
            print("\n".join(run.redact(line) for line in lines(one)))
    errors = [answer.error for answer in answers if answer.error]
    for error in errors:
        report(error, run.redact)
    if errors:
        return one_code(errors)
    return OK if all(one.fits for one in found) else NO_FIT
