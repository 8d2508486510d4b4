"""What is to be told of files without mistakes, and what only rendering them shows."""

from __future__ import annotations

from inferfleet.errors import FleetError
from inferfleet.render.render import draft
from inferfleet.schema.fleet import Fleet


def rendered_notes(fleet: Fleet) -> tuple[list[dict[str, str]], list[FleetError]]:
    """The notes of every service, and mistakes of templates; of a fleet that was checked.

    A note: machine, service, note.
    """
    notes: list[dict[str, str]] = []
    errors: list[FleetError] = []
    for name in sorted(fleet.machines):
        try:
            told = draft(fleet, name).release.notices
        except FleetError as error:
            errors.append(error)
            continue
        notes += [{"machine": name, "service": one, "note": text} for one, text in told.items()]
    return notes, errors
