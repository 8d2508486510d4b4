"""Tasks about what lies in models directories: models.list, models.verify, models.prune."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection
from invoke.context import Context

from inferfleet.errors import CHANGES, FAILED, OK, FleetError
from inferfleet.tasks import pages
from inferfleet.tasks.edge import overlay, report, verb
from inferfleet.tasks.models import (
    MODEL,
    any_failed,
    asked_model,
    chosen_models,
    concerns,
    for_people,
    known_models,
    nobody_has,
    on_machines,
    same_code,
    show_rows,
)

if TYPE_CHECKING:
    from inferfleet.models.prune import Removal
    from inferfleet.models.shelf import Shelf
    from inferfleet.run.run import Run
    from inferfleet.run.session import Session


@verb(name="list")
def list_(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    service: Sequence[str] | None = None,
    format: str = "table",
) -> int:
    """Every model and old revision on a machine: its size, and which services use it."""
    from inferfleet.models.listing import COLUMNS, list_rows
    from inferfleet.models.shelf import read_shelf
    from inferfleet.run.run import Run

    run = Run(overlay(c), host or (), group or (), service or ())

    def work(name: str) -> list[dict[str, Any]]:
        session, chosen = run.session(name, lenient=True), run.services[name]
        needs = [n for n in session.release.models if chosen is None or n.service in chosen]
        paths = [n.source.name for n in needs if n.source.scheme == "path"]
        directory = run.brief(name).models
        shelf = read_shelf(
            session.host, directory, session.release.root, sudo=session.sudo, paths=paths
        )
        served = _served(session, [n.service for n in needs if n.source.scheme == "ollama"])
        rows = list_rows(name, needs, shelf, directory, served)
        return [row for row in rows if chosen is None or chosen & set(row["used_by"])]

    answers = on_machines(run, work)
    show_rows(run, [row for a in answers for row in a.value or ()], COLUMNS, format)
    return FAILED if any_failed(run, answers) else OK


@verb(help={"model": MODEL}, iterable=["model"])
def verify(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    service: Sequence[str] | None = None,
    model: Sequence[str] | None = None,
    format: str = "table",
) -> int:
    """Compute the checksums of models again, on the machine; exit 1 if one is wrong."""
    from inferfleet.models.verify import COLUMNS
    from inferfleet.models.verify import verify as verified
    from inferfleet.operations.survey import merged
    from inferfleet.run.run import Run
    from inferfleet.show import Reporter

    run = Run(overlay(c), host or (), group or (), service or ())
    models, reporter = chosen_models(run, model or ()), Reporter(run.redact)

    def work(name: str) -> list[dict[str, Any]]:
        from inferfleet.models.observe import parse_observed

        session = run.session(name, lenient=True)
        states = parse_observed(session.observe().model_lines)
        wanted = merged(session.release.models, run.services[name], models)
        asked = [(need, services, states.get(need.key)) for need, services in wanted]
        return verified(session.host, asked, reporter, sudo=session.sudo)

    answers = on_machines(run, work)
    found = [row for a in answers for row in a.value or ()]
    show_rows(run, found, COLUMNS, format)
    wrong = any(row["verdict"] in {"wrong", "missing"} for row in found)
    return FAILED if any_failed(run, answers) or wrong else OK


@verb(
    help={
        "model": MODEL,
        "all-generations": "also what only earlier generations use; rollback then fetches again",
        "check": "only list what would go and what stays; exit 2 if anything would go",
    },
    iterable=["model"],
)
def prune(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    model: Sequence[str] | None = None,
    all_generations: bool = False,
    check: bool = False,
    format: str = "table",
    yes: bool = False,
) -> int:
    """Remove old revisions and models that no service names; shows first what that frees."""
    from functools import partial

    from inferfleet.models.prune import prune as remove
    from inferfleet.models.prune import removals
    from inferfleet.models.shelf import read_shelf
    from inferfleet.run.run import Run
    from inferfleet.show import plain_table, say
    from inferfleet.tasks.carry import confirmed

    run = Run(overlay(c), host or (), group or ())
    needs = _everywhere(run)
    wanted = frozenset(model or ())
    known = known_models(run, needs, wanted)

    def read(session: Session) -> Shelf:
        models = run.brief(session.host.name).models
        return read_shelf(session.host, models, session.release.root, sudo=session.sudo)

    def work(name: str) -> tuple[Session, Shelf]:
        session = run.session(name, lenient=True)
        return session, read(session)

    answers = on_machines(run, work)
    sessions = {a.machine: a.value[0] for a in answers if a.value}
    disks = _disks(run, {a.machine: a.value[1] for a in answers if a.value})

    def look(name: str, held: str, first: bool = False) -> list[Removal]:
        shelves = disks[name] if first else {n: read(sessions[n]) for n in disks[name]}
        directory, mine = run.brief(name).models, shelves[name]
        # Who sees nothing there any more has lost the disk, and knows nothing of its users.
        others = [s for n, s in shelves.items() if n != name and (s.stores or not mine.stores)]
        return removals(
            mine.joined(others),
            needs.get(directory, ()),
            directory,
            all_generations=all_generations,
            held=held,
        )

    plans, matched = {}, set[str]()
    for name in disks:
        found = look(name, "", first=True)
        if wanted:
            directory = run.brief(name).models
            asked = {text: asked_model(run, text, directory) for text in wanted}
            chosen = {text: [r for r in found if concerns(r, text, n)] for text, n in asked.items()}
            matched |= {text for text, rows in chosen.items() if rows}
            found = [r for r in found if any(r in rows for rows in chosen.values())]
        if found:
            plans[name] = found
    strange = sorted(wanted - known - matched)
    if strange and not any(answer.error for answer in answers):
        raise nobody_has(strange[0], known)
    columns = ["machine", "what", "model", "revision", "place", "frees", "result", "detail"]
    going = {n: [r for r in found if not r.keep] for n, found in plans.items()}
    going = {n: found for n, found in going.items() if found}
    results: dict[tuple[str, str], tuple[str, str]] = {}
    codes: list[int] = []
    if going and not check:
        lines = _removal_rows(plans, {}, "goes")
        say("\n".join(plain_table(for_people(lines), columns)), run.redact)
        if not yes and not confirmed(list(going)):
            report(FleetError("nothing was changed", hint="answer y, or give --yes"))
            return FAILED
        for name, found in going.items():
            session, directory = sessions[name], run.brief(name).models
            again = partial(look, name)
            for removal in found:
                try:
                    stays = remove(session.host, directory, removal, again, sudo=session.sudo)
                    results[name, removal.place] = ("stays" if stays else "removed", stays)
                except FleetError as error:
                    results[name, removal.place] = ("failed", error.line)
                    codes.append(error.code)
    rows = _removal_rows(plans, results, "goes")
    show_rows(run, rows, columns, format, "nothing to remove")
    if any_failed(run, answers) or codes:
        return same_code([*codes, *(a.error.code for a in answers if a.error)])
    return CHANGES if check and going else OK


ns = Collection("models", list_, verify, prune, pages.pin, pages.unpin)


def _removal_rows(
    plans: Mapping[str, Sequence[Removal]],
    results: Mapping[tuple[str, str], tuple[str, str]],
    otherwise: str,
) -> list[dict[str, Any]]:
    rows = []
    for name, found in plans.items():
        for removal in found:
            result, detail = results.get((name, removal.place), (otherwise, ""))
            if removal.keep:
                result, detail = "stays", removal.keep
            rows.append({
                "machine": name, "what": removal.what, "model": removal.model,
                "revision": removal.revision or None, "place": removal.place,
                "frees_bytes": removal.frees, "result": result, "detail": detail,
            })  # fmt: skip
    return rows


def _disks(run: Run, shelves: Mapping[str, Shelf]) -> dict[str, dict[str, Shelf]]:
    """Each disk under the first of the machines that see it, with the shelves of all of them."""
    found: dict[str, dict[str, Shelf]] = {}
    for name, shelf in shelves.items():
        first = next(
            (
                other
                for other in found
                if run.brief(other).models == run.brief(name).models
                and shelf.same_disk(shelves[other])
            ),
            name,
        )
        found.setdefault(first, {})[name] = shelf
    return found


def _everywhere(run: Run) -> dict[str, list[Any]]:
    """What every machine of the inventory needs, by models directory: a disk may be shared."""
    from os.path import expanduser

    from inferfleet.run.brief import make_brief

    chosen = {run.brief(name).models for name in run.machines}
    found: dict[str, list[Any]] = {}
    for name, machine in run.fleet.machines.items():
        if expanduser(machine.models or f"{machine.root}/models") in chosen:
            brief = make_brief(run.fleet, name)
            found.setdefault(brief.models, []).extend(brief.draft.release.models)
    return found


def _served(session: Any, services: Sequence[str]) -> dict[str, Any]:
    """What a running Ollama has for each service, or why it cannot be asked."""
    from inferfleet.health.ready import reachable
    from inferfleet.models.ollama import ollama_state

    found: dict[str, Any] = {}
    observed = session.observe() if services else None
    for need in session.release.models:
        if need.service not in services:
            continue
        unit = session.release.units[need.service]
        state = observed.units.get(need.service) if observed else None
        if unit.address is None or state is None or not state.up:
            found[need.service] = "unknown: Ollama does not run"
            continue
        try:
            at = reachable(unit.address[0])
            found[need.service] = ollama_state(session.host, need, unit.address[1], at)
        except FleetError as error:
            found[need.service] = f"unknown: {error.what}"
    return found
