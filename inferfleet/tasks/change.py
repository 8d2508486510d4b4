"""Tasks that change machines, and those that show what would change: plan and render."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from invoke.context import Context

from inferfleet.errors import CHANGES, OK, USAGE, FleetError
from inferfleet.tasks.carry import carry_out, one_code, plan_all, show_plans
from inferfleet.tasks.edge import overlay, verb

if TYPE_CHECKING:
    from inferfleet.plan.plan import Goal

EVICT = "stop services that were not asked for where memory is short"


@verb(help={"evict": EVICT})
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
    """Restart services, wait until they answer."""
    from inferfleet.plan.plan import Goal

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
    from inferfleet.run.run import Run

    run = Run(overlay(c), host or (), group or ())
    return carry_out(
        run,
        "rollback",
        lambda name: run.session(name, lenient=True),
        lambda session, _name: session.plan_rollback(to or None),
        format,
        yes,
    )


@verb(help={"evict": EVICT})
def plan(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    service: Sequence[str] | None = None,
    format: str = "table",
    evict: bool = False,
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
            else {"machine": a.machine, "error": str(a.error)}
            for a in answers
        ]
        data(hidden(found, run.redact))
    show_plans(run, answers, to_stdout=format == "table")
    problems = [p for a in answers if a.value for p in a.value.plan.problems]
    errors = [a.error for a in answers if a.error]
    if errors or problems:
        return one_code([*errors, *problems])
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
