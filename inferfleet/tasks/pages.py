"""Tasks about models in huge pages: models.pin, models.unpin."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from invoke.collection import Collection
from invoke.context import Context

from inferfleet.errors import FAILED, OK, USAGE, FleetError
from inferfleet.tasks.edge import overlay, report, verb

if TYPE_CHECKING:
    from inferfleet.events import Listener
    from inferfleet.operations.pages import Pages, Pinned
    from inferfleet.run.session import Planned, Session


ONE = {"host": "machine of the inventory, one; default: local", "service": "its service, one"}


@verb(help=ONE)
def pin(
    c: Context,
    host: Sequence[str] | None = None,
    service: Sequence[str] | None = None,
    format: str = "table",
    yes: bool = False,
) -> int:
    """Load a service's model into huge pages and restart the service on them."""
    from inferfleet.operations.pages import pin_plan

    def carry(pages: Pages, found: Pinned, listener: Listener) -> None:
        pages.pin(found, listener)

    def plan(session: Session, name: str, found: Pinned) -> list[str]:
        return pin_plan(session.host.name, name, found)

    return _carry(c, "pin", host, service, (format, yes), plan, carry)


@verb(help=ONE)
def unpin(
    c: Context,
    host: Sequence[str] | None = None,
    service: Sequence[str] | None = None,
    format: str = "table",
    yes: bool = False,
) -> int:
    """Give the huge pages of a service's model back and restart the service without them."""
    from inferfleet.operations.pages import unpin_plan

    def carry(pages: Pages, found: Pinned, listener: Listener) -> None:
        pages.unpin(listener)

    def plan(session: Session, name: str, found: Pinned) -> list[str]:
        return unpin_plan(found)

    return _carry(c, "unpin", host, service, (format, yes), plan, carry)


ns = Collection("models", pin, unpin)


def _carry(
    c: Context,
    what: str,
    host: Sequence[str] | None,
    service: Sequence[str] | None,
    how: tuple[str, bool],
    plan: Callable[[Session, str, Pinned], list[str]],
    carry: Callable[[Pages, Pinned, Listener], None],
) -> int:
    from inferfleet.operations.pages import Pages, service_words
    from inferfleet.plan.diff import plan_lines
    from inferfleet.plan.plan import Goal
    from inferfleet.run.run import Run
    from inferfleet.show import Reporter, data, say
    from inferfleet.tasks.carry import confirmed

    run = Run(overlay(c), host or (), (), service or ())
    if len(run.machines) != 1 or len(service or ()) != 1:
        raise FleetError(
            f"models.{what} works on one service of one machine",
            "give one --host and one --service",
            code=USAGE,
        )
    machine, name = run.machines[0], (service or ("",))[0]
    session = run.session(machine)
    pages = Pages(session, name)
    found = pages.look()
    lines = plan(session, name, found)
    form, yes = how
    result = {"machine": machine, "service": name, "result": "unchanged"}
    if not lines:
        say(f"{machine}: nothing to change", run.redact)
        if form == "json":
            data(result)
        return OK
    planned: Planned | None = session.plan(Goal(True, frozenset([name]), True))
    assert planned is not None
    up = name in planned.observed.units and planned.observed.units[name].up
    planned = planned if up else None
    lines.append(service_words(what, name, up))
    for problem in planned.plan.problems if planned else ():
        raise problem
    if planned:
        steps = plan_lines(planned.plan, planned.release, planned.contents, brief=True)
        lines += [line for line in steps if not line.endswith("(was asked to restart)")]
    say("\n".join([f"{machine}:", *(f"  {line}" for line in lines)]), run.redact)
    if not yes and not confirmed([machine]):
        report(FleetError("nothing was changed", hint="answer y, or give --yes"))
        return FAILED
    reporter = Reporter(run.redact)
    carry(pages, found, reporter)
    if planned is not None and not _restarted(session, planned, what, reporter):
        if what == "pin":
            pages.unpin(reporter)
            _restarted(session, session.plan(Goal(True, frozenset([name]), True)), what, reporter)
            report(FleetError(f"{machine}: {name} did not get ready on huge pages",
                              hint="they were given back; it reads its disk again"))  # fmt: skip
        if form == "json":
            data({**result, "result": "failed"})
        return FAILED
    if form == "json":
        data({**result, "result": f"{what}ned"})
    else:
        sys.stdout.write(f"{machine} {name} {what}ned\n")
    return OK


def _restarted(session: Session, planned: Planned, what: str, reporter: Listener) -> bool:
    from inferfleet.events import Event

    outcome = session.apply(planned, f"models.{what}", reporter)
    if not outcome.ok:
        reporter(Event(session.host.name, "note", outcome.failure))
        for line in outcome.logs:
            reporter(Event(session.host.name, "log", line))
    return outcome.ok
