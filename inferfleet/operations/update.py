"""update-models: bringing what is missing or stale, and restarting what runs with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inferfleet.errors import FleetError
from inferfleet.events import Event, Listener
from inferfleet.models.observe import parse_observed
from inferfleet.models.transfer.fetch import Brought, put_back
from inferfleet.models.transfer.peer import Holder
from inferfleet.operations.route import Fleetwide, Route, row_of
from inferfleet.operations.survey import Survey, Want
from inferfleet.parallel import on_each
from inferfleet.plan.models import outdated
from inferfleet.plan.plan import Goal
from inferfleet.run.session import FetchProgress
from inferfleet.run.sharing import Sharing

if TYPE_CHECKING:
    from inferfleet.models.stamp import Stamp
    from inferfleet.observe.observed import Observed
    from inferfleet.run.session import Session

# Steps of a plan that change more than what runs.
_OTHERS = frozenset({"create", "update", "delete", "link", "unlink"})


@dataclass
class _Done:
    """What was done to one machine: rows by model key, and what to undo if it fails to start."""

    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    brought: list[tuple[Want, Brought]] = field(default_factory=list)

    def tell(self, want: Want, detail: str, outdated: Sequence[str] = ()) -> None:
        """What came of the services of a model; outdated: those that run with other files."""
        row = self.changes.setdefault(_key(want), {})
        row |= {"detail": detail, "outdated": list(outdated)}


def carry_out(
    plan: Fleetwide, addresses: Mapping[str, str], listener: Listener, restart: bool
) -> list[dict[str, Any]]:
    """Bring what is missing or stale everywhere; rows as route.rows(), with what came of it.

    One model that fails does not stop the others. restart: services that run with other files
    than those in place, whoever brought them; a service that does not get ready with files that
    this run brought gets the old ones back.
    """
    names = [
        name
        for name, found in plan.surveys.items()
        if any(want.wanting or (restart and want.outdated) for want in found.wants)
    ]
    sharing = Sharing({}, addresses, plan.depot)

    def work(name: str) -> dict[str, dict[str, Any]]:
        done = _Done()
        try:
            for want in plan.surveys[name].wants:
                if want.wanting:
                    _bring(plan, sharing, name, want, listener, done)
        finally:
            sharing.leave(name)
        _restart(plan.surveys[name], done, listener, restart)
        return done.changes

    answers = {answer.machine: answer for answer in on_each(names, work)}
    found = []
    for name, survey in plan.surveys.items():
        answer = answers.get(name)
        for want in survey.wants:
            row = row_of(name, want, plan)
            if answer and answer.error and (want.wanting or want.outdated):
                row |= _failed(answer.error)
            elif answer and answer.value:
                row |= answer.value.get(_key(want), {})
            found.append(row)
    return found


def _failed(error: FleetError) -> dict[str, Any]:
    return {"verdict": "failed", "detail": error.what, "hint": error.hint, "code": error.code}


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


def _restart(found: Survey, done: _Done, listener: Listener, restart: bool) -> None:
    """Restart what runs with other files than those in place, and put the old ones back on
    failure. Others on the same disk may have brought them, before this run or meanwhile."""
    session = found.session
    observed = session.observe()
    wants = {
        want.need.key: want
        for want in found.wants
        if want.need.source.scheme != "ollama"
        and done.changes.get(_key(want), {}).get("verdict") != "failed"
    }
    stale = outdated(session.release, observed, parse_observed(observed.model_lines))
    changed = _changed(found, done, observed)
    # Also services that were not chosen, if they read the same files.
    pairs = [
        (need.service, wants[need.key])
        for need in session.release.models
        if need.key in wants
        and need.service in observed.units
        and observed.units[need.service].up
        and (
            need.service in stale
            # What an earlier version started has no note.
            or (need.key in changed and need.service not in observed.loaded)
        )
    ]
    services = frozenset(service for service, _ in pairs)
    if not services:
        return
    touched = list({_key(want): want for _, want in pairs}.values())
    names = {_key(want): [service for service, other in pairs if other is want] for want in touched}
    problem = "" if restart else "--no-restart"
    if not problem:
        planned = session.plan(Goal(True, services, True))
        problem = planned.plan.problems[0].what if planned.plan.problems else ""
        if any(step.action in _OTHERS for step in planned.plan.steps):
            problem = "other changes wait for `invoke up`"
    if problem:
        for want in touched:
            done.tell(want, f"not restarted: {problem}", names[_key(want)])
        return
    outcome = session.apply(planned, "update-models", listener)
    if outcome.ok:
        for want in touched:
            done.tell(want, f"restarted {', '.join(names[_key(want)])}")
        return
    for line in outcome.logs:
        listener(Event(session.host.name, "log", line))
    back = dict.fromkeys(_key(want) for want in touched)
    for want, brought in done.brought:
        if want in touched and brought.before is not None:
            back[_key(want)] = _put_back(session, want, brought.before, done, outcome.failure)
    for want in touched:
        if back[_key(want)] is None:
            done.changes.setdefault(_key(want), {})["verdict"] = "failed"
            done.tell(want, outcome.failure)
    if not any(back.values()):
        return
    again = session.apply(session.plan(Goal(True, services, True)), "update-models", listener)
    if not again.ok:
        listener(Event(session.host.name, "note", f"with the old files: {again.failure}"))


def _put_back(session: Session, want: Want, before: Stamp, done: _Done, why: str) -> bool:
    """Whether the files before are in place again, which the row says."""
    row = done.changes[_key(want)]
    row["verdict"] = "failed"
    try:
        put_back(session.host, want.need, before, sudo=session.sudo)
    except FleetError as error:
        row["detail"] = f"{why}; not put back: {error.line}"
        return False
    row |= {"installed": before.revision, "detail": f"put back, because {why}"}
    return True


def _changed(found: Survey, done: _Done, observed: Observed) -> set[str]:
    """Keys of the models that are others than when this run first looked."""
    changed = {want.need.key for want, _ in done.brought}
    for key, state in parse_observed(observed.model_lines).items():
        old = parse_observed(found.observed.model_lines).get(key)
        if state.store and old is not None and old.store != state.store:
            changed.add(key)
    return changed
