"""Tasks about AI models: update-models."""

from __future__ import annotations

from collections.abc import Sequence

from invoke.context import Context

from inferfleet.errors import CHANGES, FAILED, OK
from inferfleet.tasks.edge import overlay, report, verb


@verb(
    name="update-models",
    help={"check": "only list what is stale or missing; exit 2 if anything is"},
)
def update_models(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    service: Sequence[str] | None = None,
    check: bool = False,
    format: str = "table",
) -> int:
    """Fetch the models of services that are missing or stale; pinned ones never are stale."""
    from inferfleet.parallel import on_each
    from inferfleet.run import Run
    from inferfleet.show import Reporter, output
    from inferfleet.update import model_rows, update

    run = Run(overlay(c), host or (), group or (), service or ())
    reporter = Reporter(run.redact)
    answers = on_each(
        run.machines,
        lambda name: (model_rows if check else update)(
            run.session(name), run.services[name], reporter
        ),
    )
    rows = [row for answer in answers for row in answer.value or ()]
    columns = ["machine", "service", "model", "verdict", "installed", "latest", "detail"]
    output(rows, columns, format)
    errors = [answer.error for answer in answers if answer.error]
    for error in errors:
        report(error)
    if errors or any(row["verdict"] == "failed" for row in rows):
        return FAILED
    waiting = any(row["verdict"] in {"stale", "missing", "partial"} for row in rows)
    return CHANGES if check and waiting else OK
