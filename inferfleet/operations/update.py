"""update-models: bringing what is missing or stale, and restarting what runs with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from inferfleet.errors import FleetError
from inferfleet.events import Event, Listener
from inferfleet.models.transfer.fetch import Brought, put_back
from inferfleet.models.transfer.peer import Holder
from inferfleet.operations.route import Fleetwide, Route, row_of
from inferfleet.operations.survey import Survey, Want
from inferfleet.parallel import on_each
from inferfleet.plan.plan import Goal
from inferfleet.run.session import FetchProgress
from inferfleet.run.sharing import Sharing


@dataclass
class _Done:
    """What was done to one machine: rows by model key, and what to undo if it fails to start."""

    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    brought: list[tuple[Want, Brought]] = field(default_factory=list)


def carry_out(
    plan: Fleetwide, addresses: Mapping[str, str], listener: Listener, restart: bool
) -> list[dict[str, Any]]:
    """Bring what is missing or stale everywhere; rows as route.rows(), with what came of it.

    One model that fails does not stop the others. restart: services whose files changed and
    that run; a service that does not get ready with the new files gets the old ones back.
    """
    names = [name for name, s in plan.surveys.items() if any(w.wanting for w in s.wants)]
    sharing = Sharing({}, addresses, plan.depot)

    def work(name: str) -> dict[str, dict[str, Any]]:
        done = _Done()
        try:
            for want in plan.surveys[name].wants:
                if want.wanting:
                    _bring(plan, sharing, name, want, listener, done)
        finally:
            sharing.leave(name)
        if restart:
            _restart(plan.surveys[name], done, listener)
        return done.changes

    answers = {answer.machine: answer for answer in on_each(names, work)}
    found = []
    for name, survey in plan.surveys.items():
        answer = answers.get(name)
        for want in survey.wants:
            row = row_of(name, want, plan)
            if answer and answer.error and want.wanting:
                row |= _failed(answer.error)
            elif answer and answer.value:
                row |= answer.value.get(_key(want), {})
            found.append(row)
    return found


def _failed(error: FleetError) -> dict[str, Any]:
    return {"verdict": "failed", "detail": error.what, "hint": error.hint}


def _key(want: Want) -> str:
    return f"{want.need.key} {want.services}"


def _bring(
    plan: Fleetwide, sharing: Sharing, name: str, want: Want, listener: Listener, done: _Done
) -> None:
    found, need = plan.surveys[name], want.need
    session = found.session
    progress = FetchProgress(name, listener, need)
    try:
        if need.source.scheme == "ollama":
            changed = session.ensure_served(need, progress, update=True)
            brought = Brought(changed)
        else:
            route = plan.routes.get((name, need.key), Route())

            def closed(holder: Holder) -> str:
                return route.closed if holder.host.name == route.origin else ""

            brought = sharing.bring(session, need, progress, update=True, closed=closed)
    except FleetError as error:
        done.changes[_key(want)] = _failed(error)
        return
    revision = brought.stamp.revision if brought.stamp else None
    verdict = "updated" if brought.changed else "current"
    done.changes[_key(want)] = {"verdict": verdict, "installed": revision, "detail": ""}
    if brought.changed and need.source.scheme != "ollama":
        done.brought.append((want, brought))


def _restart(found: Survey, done: _Done, listener: Listener) -> None:
    """Restart the running services whose files changed, and put the old files back on failure."""
    session, running = found.session, found.observed.units
    # Also services that were not chosen, if they read the same files.
    pairs = [
        (need.service, want)
        for want, _ in done.brought
        for need in session.release.models
        if need.key == want.need.key and need.service in running and running[need.service].up
    ]
    services = frozenset(service for service, _ in pairs)
    if not services:
        return
    touched = list({_key(want): want for _, want in pairs}.values())
    planned = session.plan(Goal(True, services, True))
    problem = planned.plan.problems[0].what if planned.plan.problems else ""
    if planned.plan.to != planned.plan.source:
        problem = "other changes wait for `invoke up`"
    if problem:
        for want in touched:
            done.changes[_key(want)]["detail"] = f"not restarted: {problem}"
        return
    outcome = session.apply(planned, "update-models", listener)
    if outcome.ok:
        for want in touched:
            names = ", ".join(service for service, other in pairs if other is want)
            done.changes[_key(want)]["detail"] = f"restarted {names}"
        return
    for line in outcome.logs:
        listener(Event(session.host.name, "log", line))
    for want, brought in done.brought:
        if want not in touched or brought.before is None:
            continue
        try:
            put_back(session.host, want.need, brought.before, sudo=session.sudo)
        except FleetError as error:
            detail = f"{outcome.failure}; not put back: {error.line}"
            done.changes[_key(want)] |= {"verdict": "failed", "detail": detail}
            continue
        done.changes[_key(want)] = {
            "verdict": "failed",
            "installed": brought.before.revision,
            "detail": f"put back, because {outcome.failure}",
        }
    again = session.apply(session.plan(Goal(True, services, True)), "update-models", listener)
    if not again.ok:
        listener(Event(session.host.name, "note", f"with the old files: {again.failure}"))
