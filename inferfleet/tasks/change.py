"""Tasks that change machines, and those that show what would change: plan and render."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from invoke.context import Context

from inferfleet.errors import CHANGES, OK, USAGE, FleetError
from inferfleet.tasks.carry import carry_out, one_code, plan_all, plan_rows, show_plans
from inferfleet.tasks.edge import overlay, verb

if TYPE_CHECKING:
    from inferfleet.plan.plan import Goal

EVICT = "stop services that were not asked for where memory is short"


@verb(help={"evict": EVICT}, aliases=("start",))
def up(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    service: Sequence[str] | None = None,
    format: str = "table",
    yes: bool = False,
    evict: bool = False,
) -> int:
    """Converge the machine, start its services if they fit, wait until they answer."""
    from inferfleet.plan.plan import Goal

    def goal(chosen: frozenset[str] | None) -> Goal:
        return Goal(True, chosen, evict=evict)

    return _converge(c, "up", goal, host, group, service, format, yes)


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
    from inferfleet.plan.plan import Goal

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
    """Restart services as they are in force, wait until they answer; apply no changes."""
    from inferfleet.run.run import Run

    run = Run(overlay(c), host or (), group or (), service or ())
    return carry_out(
        run,
        "restart",
        lambda name: run.session(name, lenient=True),
        lambda session, name: session.plan_restart(run.services[name]),
        format,
        yes,
    )


@verb(aliases=("stop",))
def down(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    service: Sequence[str] | None = None,
    format: str = "table",
    yes: bool = False,
) -> int:
    """Stop and remove services; files, models and generations stay."""
    from inferfleet.run.run import Run

    run = Run(overlay(c), host or (), group or (), service or ())
    return carry_out(
        run,
        "down",
        lambda name: run.session(name, lenient=True),
        lambda session, name: session.plan_down(run.services[name]),
        format,
        yes,
    )


@verb(help={"to": "number of the generation to return to; default: the one before the current"})
def rollback(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    to: str = "",
    format: str = "table",
    yes: bool = False,
) -> int:
    """Return to a kept generation, wait until its services answer."""
    from inferfleet.run.run import Run

    if to and not (to.isascii() and to.isdigit() and int(to)):
        what = f"rollback: --to {to} is not the number of a generation"
        raise FleetError(what, "see `invoke history`", code=USAGE)
    run = Run(overlay(c), host or (), group or ())
    return carry_out(
        run,
        "rollback",
        lambda name: run.session(name, lenient=True),
        lambda session, _name: session.plan_rollback(int(to) if to else None),
        format,
        yes,
    )


@verb(help={"evict": EVICT, "full": "also the content of inferbase's own programs"})
def plan(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    service: Sequence[str] | None = None,
    format: str = "table",
    evict: bool = False,
    full: bool = False,
) -> int:
    """Show what up would change, to the line, without changing it; exit 2 if something would."""
    from inferfleet.plan.diff import plan_data
    from inferfleet.plan.plan import Goal
    from inferfleet.run.run import Run
    from inferfleet.show import data, hidden

    run = Run(overlay(c), host or (), group or (), service or ())

    def goal(name: str) -> Goal:
        return Goal(True, run.services[name], evict=evict)

    answers = plan_all(run, run.session, lambda session, name: session.plan(goal(name)))
    if format == "json":
        found = [
            plan_data(a.value.plan, a.value.release, a.value.contents)
            if a.value
            else {"machine": a.machine, "error": a.error.data if a.error else None}
            for a in answers
        ]
        data(hidden(found, run.redact))
    show_plans(run, answers, to_stdout=format == "table", full=full)
    if format == "table" and len(answers) > 1:
        from inferfleet.show import table

        columns = ["machine", "result", "fetch", "files", "start", "restart", "stop", "detail"]
        table([hidden(row, run.redact) for row in plan_rows(answers)], columns)
    problems = [p for a in answers if a.value for p in a.value.plan.problems]
    errors = [a.error for a in answers if a.error]
    if errors or problems:
        return one_code([*errors, *problems])
    return CHANGES if any(a.value and not a.value.plan.empty for a in answers) else OK


@verb(help={"out": "required: folder to write to; a folder per machine is made in it"})
def render(
    c: Context,
    out: str = "",
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
) -> int:
    """Write a machine's files, private and ignored by git, to use without us; never connects."""
    from pathlib import Path

    from inferfleet.render.render import write_release
    from inferfleet.run.run import Run
    from inferfleet.show import say

    if not out:
        raise FleetError(
            "render: --out DIR is missing", hint="`invoke render --out DIR`", code=USAGE
        )
    run = Run(overlay(c), host or (), group or ())
    for name in run.machines:
        target = Path(out) / name
        release = run.release(name, run.secrets(name))
        write_release(release, target)
        secret = sum(file.secret for file in release.files.values())
        holds = f", {secret} of its files with secrets" if secret else ""
        say(f"{name}: written to {target}{holds}")
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
    from inferfleet.run.run import Run

    run = Run(overlay(c), host or (), group or (), service or ())
    return carry_out(
        run,
        what,
        run.session,
        lambda session, name: session.plan(goal(run.services[name])),
        form,
        yes,
    )
