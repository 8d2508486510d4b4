"""The task update-models, and what tasks about models share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from invoke.context import Context

from inferfleet.errors import CHANGES, FAILED, OK, USAGE, FleetError
from inferfleet.tasks.edge import overlay, report, verb

if TYPE_CHECKING:
    from inferfleet.models.need import ModelNeed
    from inferfleet.models.prune import Removal
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
    bad = [row for row in found if row["verdict"] in {"failed", "unknown", "no-room"}]
    if any_failed(run, answers) or bad:
        errors = [answer.error.code for answer in answers if answer.error]
        return same_code(errors + [row.get("code", FAILED) for row in bad])
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


def known_models(
    run: Run, needs: Mapping[str, Sequence[ModelNeed]], asked: frozenset[str]
) -> frozenset[str]:
    """The model files and the sources of services. Whether there is something of another source
    only the disks can tell; raises FleetError (code USAGE) where --model cannot be a source."""
    from inferfleet.models.sources.source import source_text

    sources = {source_text(need.source) for found in needs.values() for need in found}
    known = frozenset(run.fleet.models) | sources
    for text in asked:
        if text not in known and not {"/", ":"} & set(text):
            raise nobody_has(text, known)
    return known


def asked_model(run: Run, text: str, directory: str) -> ModelNeed | None:
    """What --model means on one machine; None for a text that is no source."""
    from inferfleet.models.needs import model_need

    try:
        return model_need("", text, "hf", directory, run.fleet.models)
    except FleetError:
        return None


def concerns(removal: Removal, text: str, asked: ModelNeed | None) -> bool:
    """Whether something that could go is what --model names."""
    from inferfleet.models.prune import about

    return removal.model == text or (asked is not None and about(removal, asked))


def nobody_has(text: str, known: frozenset[str]) -> FleetError:
    """The error for a --model that means nothing here."""
    from inferfleet.names import name_hint

    what = f"--model {text}: there is no such model file, and nothing of it on these machines"
    return FleetError(what, name_hint(text, known, "models"), code=USAGE)


def for_people(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with sizes as people read them; what an update compares is cut, but never a
    revision that stands alone: it is what a model file may be pinned to."""
    from inferfleet.models.transfer.room import size

    found = []
    for row in rows:
        shown = dict(row)
        for key, count in row.items():
            if key == "bytes" or key.endswith("_bytes"):
                name = key.removesuffix("_bytes") if key != "bytes" else "size"
                shown[name] = None if count is None else size(count)
        for key in ("installed", "latest"):
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


def same_code(codes: Sequence[int]) -> int:
    """One exit code for what failed: its own if all of it has the same, else 1."""
    return codes[0] if len(set(codes)) == 1 else FAILED


def any_failed(run: Run, answers: Sequence[Answer[Any]]) -> bool:
    """Report what stopped machines; whether anything did."""
    errors = [answer.error for answer in answers if answer.error]
    for error in errors:
        report(error, run.redact)
    return bool(errors)
