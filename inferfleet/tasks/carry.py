"""From plans to changed machines: plan everywhere, show, ask once, apply everywhere, sum up."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from inferfleet.errors import FAILED, OK, FleetError
from inferfleet.tasks.edge import as_called, report

if TYPE_CHECKING:
    from inferfleet.apply.apply import Outcome
    from inferfleet.parallel import Answer
    from inferfleet.run.run import Run
    from inferfleet.run.session import Planned, Session
    from inferfleet.run.sharing import Sharing


def plan_all(
    run: Run,
    session: Callable[[str], Session],
    make: Callable[[Session, str], Planned],
) -> list[Answer[Planned]]:
    """Plans of all machines, made in parallel."""
    from inferfleet.parallel import on_each

    def work(name: str) -> Planned:
        return make(session(name), name)

    return on_each(run.machines, work)


def show_plans(
    run: Run, answers: list[Answer[Planned]], to_stdout: bool, full: bool = False
) -> None:
    """Every machine's plan or error; on stderr the content of new files is left out.

    full: also the programs of inferbase itself.
    """
    from inferfleet.plan.diff import plan_lines
    from inferfleet.show import say

    stream = sys.stdout if to_stdout else sys.stderr
    for answer in answers:
        if answer.error:
            report(answer.error, run.redact)
        elif answer.value:
            planned = answer.value
            contents = planned.contents
            lines = plan_lines(
                planned.plan, planned.release, contents, brief=not to_stdout, full=full
            )
            say("\n".join([f"{answer.machine}:", *(f"  {line}" for line in lines)]),
                run.redact, stream)  # fmt: skip


def plan_rows(answers: Sequence[Answer[Planned]]) -> list[dict[str, Any]]:
    """A row for each machine: what its plan comes to, or why there is none."""
    from inferfleet.plan.diff import counts

    rows = []
    for answer in answers:
        row: dict[str, Any] = {"machine": answer.machine, "result": "failed", "detail": ""}
        if answer.error:
            row["detail"] = answer.error.what
        elif answer.value:
            plan = answer.value.plan
            row |= counts(plan)
            row["result"] = "unchanged" if plan.empty else "changes"
            if plan.problems:
                row |= {"result": "refused", "detail": plan.problems[0].what}
        rows.append(row)
    return rows


def carry_out(
    run: Run,
    what: str,
    session: Callable[[str], Session],
    make: Callable[[Session, str], Planned],
    form: str,
    yes: bool,
) -> int:
    """Carry out what the sessions' plans say on all machines of the run; the exit code.

    make: the plan of one session. A machine that fails never hides the others.
    """
    from inferfleet.parallel import on_each
    from inferfleet.show import Reporter, hidden, prepare_table

    answers = plan_all(run, session, make)
    show_plans(run, answers, to_stdout=False)
    ready = {a.machine: a.value for a in answers if a.value and not a.value.plan.problems}
    changing = [name for name, planned in ready.items() if not planned.plan.empty]
    if changing and not yes and not _confirmed(run, changing):
        report(FleetError("nothing was changed", hint="answer y, or give --yes"))
        return FAILED
    reporter = Reporter(run.redact)
    prepare_table()
    sharing = _sharing(run, ready)

    def work(name: str) -> Outcome:
        try:
            return ready[name].talk.apply(ready[name], what, reporter, sharing)
        finally:
            if sharing:
                sharing.leave(name)

    done = on_each(changing, work)
    outcomes = {a.machine: a for a in done}
    rows = [hidden(_row(a, outcomes.get(a.machine)), run.redact) for a in answers]
    for answer in done:
        if answer.error:
            report(answer.error, run.redact)
        elif answer.value and not answer.value.ok:
            _show_failure(run, answer.value)
    _sum_up(run, rows, what, form, {a.machine: _running(a.value) for a in answers if a.value})
    errors = [a.error for a in answers if a.error] + [a.error for a in done if a.error]
    errors += [p for a in answers if a.value for p in a.value.plan.problems]
    if errors:
        return one_code(errors)
    return FAILED if any(a.value and not a.value.ok for a in done) else OK


def _sharing(run: Run, ready: Mapping[str, Planned]) -> Sharing | None:
    """What machines of a site copy from each other; None when nothing is fetched."""
    if not any(planned.plan.fetch for planned in ready.values()):
        return None
    from inferfleet.run.sharing import Sharing

    sites = {name: site for name in ready if (site := run.brief(name).site)}
    sharing = Sharing(sites, {name: run.brief(name).site_address or "" for name in sites})
    for planned in ready.values():
        sharing.offer(planned.talk, planned.observed)
    return sharing


def _confirmed(run: Run, changing: list[str]) -> bool:
    """Ask once on a terminal; a local machine that needs no root is never asked about."""
    asked = [n for n in changing if not run.brief(n).local or run.brief(n).sudo]
    return confirmed(asked)


def confirmed(machines: Sequence[str]) -> bool:
    """Ask on a terminal whether these may be changed; without one nobody is asked."""
    if not machines or not sys.stdin.isatty():
        return True
    sys.stderr.write(f"Change {', '.join(machines)}? [y/N] ")
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
    row |= {"result": "changed", "generation": plan.to}
    if outcome.value.ready:
        row["ready_seconds"] = round(max(r.seconds for r in outcome.value.ready), 1)
    return row


def _show_failure(run: Run, outcome: Outcome) -> None:
    from inferfleet.show import say

    report(FleetError(f"{outcome.machine}: {outcome.failure}", outcome.hint), run.redact)
    if outcome.logs:
        say("in its own words:" if outcome.recognised else "last lines of its log:")
        say("\n".join(f"  {line}" for line in outcome.logs), run.redact)
    for note in outcome.notes:
        say(f"note: {note}", run.redact)


def _running(planned: Planned) -> frozenset[str]:
    """The services that are up once the plan is carried out."""
    plan = planned.plan
    before = {service for service, state in planned.observed.units.items() if state.up}
    ended = {*plan.gone, *plan.targets("evict")}
    return frozenset(before - ended).union(plan.targets("start"), plan.targets("replace"))


def _sum_up(
    run: Run,
    rows: list[dict[str, Any]],
    what: str,
    form: str,
    running: Mapping[str, frozenset[str]],
) -> None:
    """The rows; after an `up` of this machine, what of it can be tried. running: by machine."""
    from inferfleet.show import data, say, table

    if form == "json":
        data(rows)
        return
    columns = ["machine", "result", "generation", "changes"]
    columns += [c for c in ("ready_seconds", "detail") if any(c in row for row in rows)]
    table(rows, columns)
    local = [n for n in run.machines if run.brief(n).local]
    good = {row["machine"] for row in rows if row["result"] in {"changed", "unchanged"}}
    if what == "up" and local and set(local) <= good:
        from inferfleet.operations.endpoints import try_lines

        for name in local:
            lines = try_lines(run.brief(name), running[name])
            if lines:
                say(as_called("\n".join(lines)))


def one_code(errors: Sequence[FleetError]) -> int:
    """One exit code for several errors: theirs if they agree, else 1."""
    codes = {error.code for error in errors}
    return codes.pop() if len(codes) == 1 else FAILED
