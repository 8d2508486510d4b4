"""Rows of status: one per service of one machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inferfleet.errors import FleetError
from inferfleet.observe.states import GAVE_UP
from inferfleet.plan.plan import Goal, make_plan
from inferfleet.release.release import Unit
from inferfleet.run.session import Session

if TYPE_CHECKING:
    from inferfleet.hostprep.setting import Ground


def unreachable_row(machine: str, error: FleetError) -> dict[str, Any]:
    """The row of a machine that cannot be asked."""
    return {
        "machine": machine, "service": None, "state": "unreachable", "address": None,
        "generation": None, "detail": error.what,
    }  # fmt: skip


def status_rows(
    session: Session,
    services: frozenset[str] | None,
    gpus: bool = False,
    ground: Ground | None = None,
) -> list[dict[str, Any]]:
    """What runs, beside what the inventory wants; differences are said in `detail`.

    gpus: the machine has some, so a row says how full and how busy each is. ground: whose
    storage has thresholds of free space.
    """
    from inferfleet.gpu.brief import brief_lines
    from inferfleet.hostprep.space import space_notes, space_script

    gpus = gpus and services is None
    observed = session.observe(gpus=gpus, space=space_script(ground) if ground else "")
    release = session.release
    old = observed.manifest.units if observed.manifest else {}
    plan = make_plan(release, observed, Goal(start=False))
    # Without all its secrets the release is not what it should be: nothing follows from it.
    pending = {} if session.unknown else {step.target: step for step in plan.steps}
    rows = []
    names = [*release.units, *sorted((old.keys() | observed.units.keys()) - release.units.keys())]
    for service in names:
        if services is not None and service not in services:
            continue
        unit: Unit | None = release.units.get(service) or old.get(service)
        state = observed.units.get(service)
        notes = [state.detail] if state and state.detail else []
        if state and GAVE_UP in state.detail:
            notes.append(f"`invoke health --service {service}` says why")
        if service not in release.units:
            notes.append("is not in the machine file")
        elif service in pending:
            notes.append(f"{pending[service].action} pending: {pending[service].reason}")
        rows.append(
            {
                "machine": session.host.name,
                "service": service,
                "state": state.state if state else "absent",
                "address": f"{unit.address[0]}:{unit.address[1]}"
                if unit and unit.address
                else None,
                "generation": observed.current,
                "detail": "; ".join(notes),
            }
        )
    for text in brief_lines(observed) if gpus else ():
        rows.append(
            {
                "machine": session.host.name, "service": None, "state": "gpu", "address": None,
                "generation": observed.current, "detail": text,
            }
        )  # fmt: skip
    trouble = [*plan.notes, *(space_notes(ground, observed.space_lines) if ground else ())]
    if observed.journal:
        trouble.append(observed.journal.verdict(observed.current))
    if observed.lock and observed.lock.alive:
        trouble.append(f"locked by {observed.lock}")
    trouble += [str(error).replace("\n", "; ") for error in observed.damage]
    files = len(plan.changed_files)
    if session.unknown:
        absent = ", ".join(session.unknown)
        trouble.append(f"secrets that cannot be had here: {absent}; so changes cannot be told")
    elif observed.current and files:
        what = "1 file differs" if files == 1 else f"{files} files differ"
        trouble.append(f"{what} from the inventory: see `invoke plan`")
    for text in trouble:
        rows.append(
            {
                "machine": session.host.name, "service": None, "state": "note", "address": None,
                "generation": observed.current, "detail": text,
            }
        )  # fmt: skip
    return rows
