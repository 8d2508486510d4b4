"""Tasks that prepare the host under the services: hostprep.check, .plan, .apply, .rollback."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection
from invoke.context import Context

from inferfleet.errors import CHANGES, FAILED, OK, FleetError
from inferfleet.tasks.carry import one_code
from inferfleet.tasks.edge import overlay, report, verb

if TYPE_CHECKING:
    from inferfleet.hostprep.act import Acted
    from inferfleet.hostprep.ground import Seen
    from inferfleet.parallel import Answer
    from inferfleet.run.run import Run


@verb()
def check(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    format: str = "table",
) -> int:
    """Compare every host setting with the machine; exit 2 if one is not as wanted."""
    from inferfleet.hostprep.show import COLUMNS, reboots, rows
    from inferfleet.show import output, say

    run, answers = _look(c, host, group)
    found = [row for a in answers if a.value for row in rows(a.machine, a.value.prepared)]
    unseen = any(a.error for a in answers)
    output(found, COLUMNS, format, "" if unseen else "no hostprep in the machine file")
    for answer in answers:
        if answer.value:
            for line in [*answer.value.notes, *reboots(answer.value.prepared)]:
                say(f"{answer.machine}: {line}")
    errors = _errors(run, answers)
    if errors:
        return errors
    return CHANGES if any(a.value and a.value.prepared.wrong for a in answers) else OK


@verb()
def plan(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    format: str = "table",
) -> int:
    """Show what hostprep.apply would change, to the line; exit 2 if something would."""
    from inferfleet.hostprep.show import plan_data
    from inferfleet.show import data

    run, answers = _look(c, host, group)
    if format == "json":
        data([plan_data(a.machine, a.value.prepared) for a in answers if a.value])
    else:
        for answer in answers:
            _show(answer, sys.stdout)
    errors = _errors(run, answers)
    changing = any(a.value and (a.value.prepared.changes or a.value.broken) for a in answers)
    return errors or (CHANGES if changing else OK)


@verb()
def apply(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    format: str = "table",
    yes: bool = False,
) -> int:
    """Bring host settings to what is wanted, read them back; undo all if one is refused."""
    from inferfleet.hostprep.show import reboots
    from inferfleet.parallel import on_each
    from inferfleet.show import Reporter, say

    run, answers = _look(c, host, group, mend=True)
    for answer in answers:
        _show(answer, sys.stderr)
    ready = {a.machine: a.value for a in answers if a.value}
    changing = [name for name, seen in ready.items() if seen.prepared.changes]
    _ask(run, changing, yes)
    reporter = Reporter(run.redact)
    done: dict[str, Answer[Acted]] = {
        a.machine: a
        for a in on_each(changing, lambda name: ready[name].session.apply(ready[name], reporter))
    }
    table = []
    for answer in answers:
        outcome = done.get(answer.machine)
        row: dict[str, Any] = {"machine": answer.machine, "result": "unchanged", "detail": ""}
        if answer.error:
            row |= {"result": "failed", "detail": answer.error.what}
        elif outcome is not None and outcome.error:
            row |= {"result": "failed", "detail": outcome.error.what}
            report(outcome.error, run.redact)
        elif outcome is not None and outcome.value:
            acted = outcome.value
            result = "changed" if acted.ok else "undone" if acted.undone else "failed"
            row |= {
                "result": result,
                "detail": "; ".join((acted.failure, *acted.notes)).strip("; "),
            }
            if not acted.ok:
                report(FleetError(f"{answer.machine}: {acted.failure}"), run.redact)
        table.append(row)
    _output(table, ["machine", "result", "detail"], format)
    for name, seen in ready.items():
        acted_on = done.get(name)
        now = acted_on.value.after if acted_on and acted_on.value else None
        for line in reboots(now or seen.prepared):
            say(f"{name}: {line}")
    errors = [a.error for a in answers if a.error] + [a.error for a in done.values() if a.error]
    if any(a.error for a in answers):
        _errors(run, answers)
    if errors:
        return one_code(errors)
    return FAILED if any(a.value and not a.value.ok for a in done.values()) else OK


@verb()
def rollback(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    format: str = "table",
    yes: bool = False,
) -> int:
    """Undo the newest hostprep.apply: files and live values as they were before it."""
    from inferfleet.hostprep.show import undo_lines
    from inferfleet.parallel import on_each
    from inferfleet.show import say

    run, answers = _look(c, host, group)
    ready = {a.machine: a.value for a in answers if a.value}
    for name, seen in ready.items():
        lines = undo_lines(seen.record) if seen.record else ["nothing to undo"]
        say("\n".join([f"{name}:", *(f"  {line}" for line in lines)]), run.redact)
    changing = [name for name, seen in ready.items() if seen.record]
    _ask(run, changing, yes)
    done = {a.machine: a for a in on_each(changing, lambda n: ready[n].session.rollback(ready[n]))}
    table = []
    for answer in answers:
        outcome = done.get(answer.machine)
        error = answer.error or (outcome.error if outcome else None)
        result = "failed" if error else "undone" if outcome else "unchanged"
        notes = outcome.value.notes if outcome and outcome.value else ()
        detail = error.what if error else "; ".join(notes)
        table.append({"machine": answer.machine, "result": result, "detail": detail})
        if outcome and outcome.error:
            report(outcome.error, run.redact)
    _output(table, ["machine", "result", "detail"], format)
    errors = [a.error for a in answers if a.error] + [a.error for a in done.values() if a.error]
    _errors(run, answers)
    return one_code(errors) if errors else OK


def _look(
    c: Context, host: Sequence[str] | None, group: Sequence[str] | None, mend: bool = False
) -> tuple[Run, list[Answer[Seen]]]:
    """The machines, each looked at and judged; mend: an unfinished run is undone before."""
    from inferfleet.hostprep.ground import GroundSession
    from inferfleet.parallel import on_each
    from inferfleet.run.run import Run

    run = Run(overlay(c), host or (), group or ())

    def work(name: str) -> Seen:
        early = run.early()
        session = GroundSession(run.brief(name), run.ground(name), run.sudo_password, early)
        return session.see(mend)

    return run, on_each(run.machines, work)


def _show(answer: Answer[Seen], stream: Any) -> None:
    from inferfleet.hostprep.show import costs, plan_lines
    from inferfleet.show import say

    if answer.value is None:
        return
    prepared = answer.value.prepared
    lines = [*answer.value.notes, *costs(prepared), *plan_lines(prepared)]
    if not prepared.changes:
        lines.append("nothing to change")
    say("\n".join([f"{answer.machine}:", *(f"  {line}" for line in lines)]), stream=stream)


def _ask(run: Run, changing: list[str], yes: bool) -> None:
    """Ask once on a terminal. Raises FleetError when the answer is no."""
    from inferfleet.tasks.carry import confirmed

    if changing and not yes and not confirmed(changing):
        raise FleetError("nothing was changed", hint="answer y, or give --yes")


def _output(rows: list[dict[str, Any]], columns: list[str], form: str) -> None:
    from inferfleet.show import output

    output(rows, columns, form)


def _errors(run: Run, answers: Sequence[Answer[Any]]) -> int:
    """Print the machines' errors; their one exit code, 0 without errors."""
    errors = [answer.error for answer in answers if answer.error]
    for error in errors:
        report(error, run.redact)
    return one_code(errors) if errors else OK


ns = Collection("hostprep", check, plan, apply, rollback)
