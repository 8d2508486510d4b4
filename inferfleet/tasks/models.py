"""The task update-models, and what tasks about models share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from invoke.context import Context

from inferfleet.errors import CHANGES, FAILED, OK, USAGE, FleetError
from inferfleet.tasks.edge import overlay, report, verb

if TYPE_CHECKING:
    from inferfleet.operations.survey import Survey
    from inferfleet.parallel import Answer
    from inferfleet.run.run import Run

T = TypeVar("T")
MODEL = "only this model, by the name of its file or its source; repeatable"


@verb(
    name="update-models",
    help={
        "check": "only list what is stale, missing or to restart, and its cost; exit 2 if any is",
        "model": MODEL,
        "restart": "restart what runs with other files than those in place; --no-restart: leave it",
    },
    iterable=["model"],
)
def update_models(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    service: Sequence[str] | None = None,
    model: Sequence[str] | None = None,
    check: bool = False,
    restart: bool = True,
    format: str = "table",
    yes: bool = False,
) -> int:
    """Fetch models that are missing or stale, once per site; restart what runs with them."""
    from inferfleet.operations.route import COLUMNS, plan_update, rows
    from inferfleet.run.run import Run
    from inferfleet.show import Reporter, plain_table, say
    from inferfleet.tasks.carry import confirmed

    run = Run(overlay(c), host or (), group or (), service or ())
    answers = _surveys(run, chosen_models(run, model or ()))
    surveys = {a.machine: a.value for a in answers if a.value}
    sites = {n: s for n in surveys if (s := run.brief(n).site)}
    addresses = {n: run.brief(n).site_address or "" for n in surveys}
    plan = plan_update(surveys, sites, addresses)
    found = rows(plan)
    waiting = [
        row
        for row in found
        if row["verdict"] in {"missing", "partial", "stale"} or (restart and row["outdated"])
    ]
    if not check and waiting:
        columns = [column for column in COLUMNS if column != "latest"]
        say("\n".join(plain_table(for_people(found), columns)), run.redact)
        machines = sorted({row["machine"] for row in waiting})
        asked = [n for n in machines if not run.brief(n).local or run.brief(n).sudo]
        if not yes and not confirmed(asked):
            report(FleetError("nothing was changed", hint="answer y, or give --yes"))
            return FAILED
        from inferfleet.operations.update import carry_out

        found = carry_out(plan, addresses, Reporter(run.redact), restart)
    show_rows(run, found, COLUMNS, format)
    verdicts = {row["verdict"] for row in found}
    if any_failed(run, answers) or verdicts & {"failed", "unknown", "no-room"}:
        return FAILED
    return CHANGES if check and waiting else OK


def _surveys(run: Run, models: frozenset[str]) -> list[Answer[Survey]]:
    from inferfleet.operations.survey import Sources, survey

    sources = Sources()
    return on_machines(
        run,
        lambda name: survey(
            run.session(name), run.services[name], models, sources, run.brief(name).models
        ),
    )


def on_machines(run: Run, work: Callable[[str], T]) -> list[Answer[T]]:
    """The work on every machine of the run, in parallel."""
    from inferfleet.parallel import on_each

    return on_each(run.machines, work)


def chosen_models(run: Run, models: Sequence[str]) -> frozenset[str]:
    """The models that --model names. Raises FleetError (code USAGE) for one nobody has."""
    from inferfleet.models.sources.source import source_text
    from inferfleet.names import name_hint

    needs = [need for name in run.machines for need in run.brief(name).draft.release.models]
    known = {need.declared for need in needs if need.declared}
    sources = {source_text(need.source) for need in needs}
    for model in models:
        if model not in known | sources:
            raise FleetError(
                f"--model {model}: no service of these machines has that model",
                name_hint(model, known | sources, "models"),
                code=USAGE,
            )
    return frozenset(models)


def for_people(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with sizes and revisions as people read them."""
    from inferfleet.models.transfer.room import size

    found = []
    for row in rows:
        shown = dict(row)
        for key, count in row.items():
            if key == "bytes" or key.endswith("_bytes"):
                name = key.removesuffix("_bytes") if key != "bytes" else "size"
                shown[name] = None if count is None else size(count)
        for key in ("revision", "installed", "latest"):
            text = shown.get(key)
            if isinstance(text, str) and len(text) == 40:
                shown[key] = text[:12]
        found.append(shown)
    return found


def show_rows(
    run: Run,
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    form: str,
    empty: str = "no models",
) -> None:
    """Rows on stdout, without secrets; sizes as people read them unless it is JSON. empty: what
    is said where there is none."""
    from inferfleet.show import hidden, output

    shown = rows if form == "json" else for_people(rows)
    more = [key for key in ("hint",) if any(row.get(key) for row in rows)]
    output([hidden(row, run.redact) for row in shown], [*columns, *more], form, empty)


def any_failed(run: Run, answers: Sequence[Answer[Any]]) -> bool:
    """Report what stopped machines; whether anything did."""
    errors = [answer.error for answer in answers if answer.error]
    for error in errors:
        report(error, run.redact)
    return bool(errors)
