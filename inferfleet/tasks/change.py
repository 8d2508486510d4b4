"""Tasks that change machines, and those that show what would change: plan and render."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from invoke.context import Context

from inferfleet.errors import CHANGES, FAILED, OK, USAGE, FleetError
from inferfleet.tasks.edge import as_called, overlay, report, verb

if TYPE_CHECKING:
    from inferfleet.apply import Outcome
    from inferfleet.parallel import Answer
    from inferfleet.plan import Goal
    from inferfleet.run import Run
    from inferfleet.session import Planned, Session


@verb()
def up(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    service: Sequence[str] | None = None,
    format: str = "table",
    yes: bool = False,
) -> int:
    """Converge the machine, start its services, wait until they answer."""
    from inferfleet.plan import Goal

    return _converge(c, "up", lambda chosen: Goal(True, chosen), host, group, service, format, yes)


@verb()
def apply(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    service: Sequence[str] | None = None,
    format: str = "table",
    yes: bool = False,
) -> int:
    """Converge what is there; start nothing that is stopped."""
    from inferfleet.plan import Goal

    return _converge(
        c, "apply", lambda chosen: Goal(False, chosen), host, group, service, format, yes
    )


@verb()
def restart(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    service: Sequence[str] | None = None,
    format: str = "table",
    yes: bool = False,
) -> int:
    """Restart services, wait until they answer."""
    from inferfleet.plan import Goal

    return _converge(
        c, "restart", lambda chosen: Goal(True, chosen, True), host, group, service, format, yes
    )


@verb()
def down(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    service: Sequence[str] | None = None,
    format: str = "table",
    yes: bool = False,
) -> int:
    """Stop and remove services; files, models and generations stay."""
    from inferfleet.run import Run

    run = Run(overlay(c), host or (), group or (), service or ())
    return _carry_out(
        run,
        "down",
        lambda name: run.session(name, lenient=True),
        lambda session, name: session.plan_down(run.services[name]),
        format,
        yes,
    )


@verb(help={"to": "generation to return to; default: the one before the current"})
def rollback(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    to: int = 0,
    format: str = "table",
    yes: bool = False,
) -> int:
    """Return to a kept generation, wait until its services answer."""
    from inferfleet.run import Run

    run = Run(overlay(c), host or (), group or ())
    return _carry_out(
        run,
        "rollback",
        lambda name: run.session(name, lenient=True),
        lambda session, _name: session.plan_rollback(to or None),
        format,
        yes,
    )


@verb()
def plan(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    service: Sequence[str] | None = None,
    format: str = "table",
) -> int:
    """Show what up would change, to the line, without changing it; exit 2 if something would."""
    from inferfleet.diff import plan_data
    from inferfleet.plan import Goal
    from inferfleet.run import Run
    from inferfleet.show import data, hidden

    run = Run(overlay(c), host or (), group or (), service or ())
    answers = _plan_all(
        run, run.session, lambda session, name: session.plan(Goal(True, run.services[name]))
    )
    if format == "json":
        found = [
            plan_data(a.value.plan, a.value.release, a.value.details.contents)
            if a.value
            else {"machine": a.machine, "error": str(a.error)}
            for a in answers
        ]
        data(hidden(found, run.redact))
    _show_plans(run, answers, to_stdout=format == "table")
    problems = [p for a in answers if a.value for p in a.value.plan.problems]
    errors = [a.error for a in answers if a.error]
    if errors or problems:
        return _code([*errors, *problems])
    return CHANGES if any(a.value and not a.value.plan.empty for a in answers) else OK


@verb(help={"out": "folder to write to; a folder per machine is made in it"})
def render(
    c: Context,
    out: str = "",
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
) -> int:
    """Write a machine's files as plain files that work without inferbase; never connects."""
    from pathlib import Path

    from inferfleet.render import write_release
    from inferfleet.run import Run
    from inferfleet.show import say

    if not out:
        raise FleetError(
            "render: --out DIR is missing", hint="`invoke render --out DIR`", code=USAGE
        )
    run = Run(overlay(c), host or (), group or ())
    for name in run.machines:
        target = Path(out) / name
        write_release(run.release(name, run.secrets(name)), target)
        say(f"{name}: written to {target}")
    return OK


def _converge(
    c: Context,
    what: str,
    goal: Callable[[frozenset[str] | None], Goal],
    host: Sequence[str] | None,
    group: Sequence[str] | None,
    service: Sequence[str] | None,
    form: str,
    yes: bool,
) -> int:
    from inferfleet.run import Run

    run = Run(overlay(c), host or (), group or (), service or ())
    return _carry_out(
        run,
        what,
        run.session,
        lambda session, name: session.plan(goal(run.services[name])),
        form,
        yes,
    )


def _plan_all(
    run: Run,
    session: Callable[[str], Session],
    make: Callable[[Session, str], Planned],
) -> list[Answer[Planned]]:
    """Plans of all machines, made in parallel."""
    from inferfleet.parallel import on_each

    def work(name: str) -> Planned:
        return make(session(name), name)

    return on_each(run.machines, work)


def _show_plans(run: Run, answers: list[Answer[Planned]], to_stdout: bool) -> None:
    from inferfleet.diff import plan_lines
    from inferfleet.show import say

    stream = sys.stdout if to_stdout else sys.stderr
    for answer in answers:
        if answer.error:
            report(answer.error, run.redact)
        elif answer.value:
            planned = answer.value
            contents = planned.details.contents
            lines = plan_lines(planned.plan, planned.release, contents, brief=not to_stdout)
            say("\n".join([f"{answer.machine}:", *(f"  {line}" for line in lines)]),
                run.redact, stream)  # fmt: skip


def _carry_out(
    run: Run,
    what: str,
    session: Callable[[str], Session],
    make: Callable[[Session, str], Planned],
    form: str,
    yes: bool,
) -> int:
    """Plan everywhere, show, ask once, apply everywhere, sum up."""
    from inferfleet.parallel import on_each
    from inferfleet.show import Reporter, hidden

    answers = _plan_all(run, session, make)
    _show_plans(run, answers, to_stdout=False)
    ready = {a.machine: a.value for a in answers if a.value and not a.value.plan.problems}
    changing = [name for name, planned in ready.items() if not planned.plan.empty]
    if changing and not yes and not _confirmed(run, changing):
        report(FleetError("nothing was changed", hint="answer y, or give --yes"))
        return FAILED
    reporter = Reporter(run.redact)
    done = on_each(changing, lambda name: ready[name].talk.apply(ready[name], what, reporter))
    outcomes = {a.machine: a for a in done}
    rows = [hidden(_row(a, outcomes.get(a.machine)), run.redact) for a in answers]
    for answer in done:
        if answer.error:
            report(answer.error, run.redact)
        elif answer.value and not answer.value.ok:
            _show_failure(run, answer.value)
    _sum_up(run, rows, what, form)
    errors = [a.error for a in answers if a.error] + [a.error for a in done if a.error]
    errors += [p for a in answers if a.value for p in a.value.plan.problems]
    if errors:
        return _code(errors)
    return FAILED if any(a.value and not a.value.ok for a in done) else OK


def _confirmed(run: Run, changing: list[str]) -> bool:
    """Ask once on a terminal; a local machine that needs no root is never asked about."""
    asked = [n for n in changing if not run.machine(n).local or run.machine(n).sudo]
    if not asked or not sys.stdin.isatty():
        return True
    sys.stderr.write(f"Change {', '.join(asked)}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _row(planned: Answer[Planned], outcome: Answer[Outcome] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"machine": planned.machine, "result": "unchanged", "generation": None}
    if planned.error:
        return {**row, "result": "failed", "detail": planned.error.what}
    assert planned.value is not None
    plan = planned.value.plan
    row |= {"generation": plan.source, "changes": len(plan.steps)}
    if plan.problems:
        return {**row, "result": "refused", "detail": plan.problems[0].what}
    if outcome is None:
        return row
    if outcome.error:
        return {**row, "result": "failed", "detail": outcome.error.what}
    assert outcome.value is not None
    if not outcome.value.ok:
        back = "rolled back" if outcome.value.rolled_back else "failed"
        return {**row, "result": back, "detail": outcome.value.failure}
    slowest = max((r.seconds for r in outcome.value.ready), default=0.0)
    return {**row, "result": "changed", "generation": plan.to, "ready_seconds": round(slowest, 1)}


def _show_failure(run: Run, outcome: Outcome) -> None:
    from inferfleet.show import say

    report(FleetError(f"{outcome.machine}: {outcome.failure}"), run.redact)
    if outcome.logs:
        say("last lines of its log:", run.redact)
        say("\n".join(f"  {line}" for line in outcome.logs), run.redact)
    for note in outcome.notes:
        say(f"note: {note}", run.redact)


def _sum_up(run: Run, rows: list[dict[str, Any]], what: str, form: str) -> None:
    from inferfleet.show import data, say, table

    if form == "json":
        data(rows)
        return
    columns = ["machine", "result", "generation", "changes"]
    columns += [c for c in ("ready_seconds", "detail") if any(c in row for row in rows)]
    table(rows, columns)
    local = [n for n in run.machines if run.machine(n).local]
    good = {row["machine"] for row in rows if row["result"] in {"changed", "unchanged"}}
    if what == "up" and local and set(local) <= good:
        from inferfleet.endpoints import try_lines

        for name in local:
            say(as_called("\n".join(try_lines(run.fleet, name))))


def _code(errors: Sequence[FleetError]) -> int:
    """One exit code for several errors: theirs if they agree, else 1."""
    codes = {error.code for error in errors}
    return codes.pop() if len(codes) == 1 else FAILED
