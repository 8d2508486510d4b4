"""Tasks about the files: inventory.list, .show, .validate, .schema, .probe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.collection import Collection
from invoke.context import Context

from inferfleet.errors import OK, USAGE, FleetError, FleetErrors
from inferfleet.tasks.edge import overlay, verb

if TYPE_CHECKING:
    from inferfleet.schema.fleet import Fleet


@verb(name="list")
def list_(c: Context, format: str = "table") -> int:
    """List the machines of the inventory, each with the files it was laid together from."""
    from inferfleet.show import output

    fleet = _fleet(c)
    rows = [
        {
            "machine": name,
            "address": machine.address or "(this machine)",
            "hardware": machine.hardware,
            "groups": list(machine.groups),
            "services": list(machine.services),
            "files": list(fleet.sources.get(name, ())),
            "summary": machine.summary,
        }
        for name, machine in sorted(fleet.machines.items())
    ]
    columns = ["machine", "address", "hardware", "groups", "services", "files", "summary"]
    output(rows, columns, format)
    return OK


@verb(help={"sources": "say behind each value where it stands"})
def show(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    sources: bool = False,
    format: str = "table",
) -> int:
    """Print what holds: machine files laid together, with what their kinds and we add to them."""
    import sys

    from inferfleet.load.load import load
    from inferfleet.load.written import written
    from inferfleet.operations.effective import effective, hardware_line, place, places
    from inferfleet.paths import find_roots
    from inferfleet.run.select import Listed, select_machines
    from inferfleet.show import data

    loaded = load(find_roots(overlay(c)))
    if loaded.errors:
        raise FleetErrors(loaded.errors)
    listing = {
        name: Listed(tuple(machine.groups), tuple(machine.services))
        for name, machine in loaded.fleet.machines.items()
    }
    chosen = select_machines(listing, list(host or ()), list(group or ()))
    found = {name: effective(loaded, name) for name in chosen}
    if format == "json":
        data({name: places(node) if sources else node.plain() for name, node in found.items()})
        return OK
    for name, node in found.items():
        sys.stdout.write(f"{name}:  # {', '.join(loaded.sources['machine', name])}\n")
        if known := hardware_line(loaded, name):
            sys.stdout.write(f"  # {loaded.fleet.machines[name].hardware}: {known}\n")
        for line in written(node, place if sources else lambda _: "", 1):
            sys.stdout.write(f"{line}\n")
    return OK


@verb()
def validate(c: Context, format: str = "table") -> int:
    """Check every file; all mistakes at once, exit 64 if there are any."""
    from inferfleet.load.load import load
    from inferfleet.operations.notes import rendered_notes
    from inferfleet.paths import find_roots
    from inferfleet.show import data, say

    loaded = load(find_roots(overlay(c)))
    fleet = loaded.fleet
    notes, errors = ([], loaded.errors) if loaded.errors else rendered_notes(fleet)
    if format == "json":
        told = [error.data for error in FleetErrors(errors).errors] if errors else []
        data({"errors": told, "notes": notes})
        return USAGE if errors else OK
    if errors:
        raise FleetErrors(errors)
    for note in notes:
        say(f"note: {note['machine']}: {note['service']}: {note['note']}")
    say(
        f"{len(fleet.machines)} machines, {len(fleet.kinds)} service kinds, "
        f"{len(fleet.hardware)} hardware models: no mistakes"
    )
    return OK


@verb(
    help={
        "out": "folder whose inventory/schema/ they are written to, such as fleet; "
        "default: print the machine schema"
    }
)
def schema(c: Context, out: str = "") -> int:
    """Write the JSON Schemas that editors complete and check the YAML files with."""
    from inferfleet.load import jsonschema
    from inferfleet.show import data, say

    if out:
        for name in jsonschema.write_schemas(Path(out)):
            say(f"written: {Path(out) / jsonschema.FOLDER / name}")
    else:
        data(jsonschema.schema("machine"))
    return OK


@verb(
    help={
        "host": "a machine of the inventory, or user@address",
        "out": "machine file to write; default: print it",
    }
)
def probe(
    c: Context, host: Sequence[str] | None = None, out: str = "", format: str = "table"
) -> int:
    """Read a machine's facts and write a machine file for it, its hardware matched."""
    import sys

    from inferfleet.operations.probe import machine_file, probe_host
    from inferfleet.run.select import every
    from inferfleet.show import data, say

    fleet = _fleet(c)
    facts = [probe_host(fleet, name) for name in every(host or ["local"], fleet.machines)]
    if format == "json":
        data(facts)
        return OK
    for found in facts:
        text = machine_file(fleet, found)
        if not out:
            sys.stdout.write(text)
            continue
        path = Path(out)
        if path.exists():
            raise FleetError(f"{path} exists", hint="choose another --out, or remove it")
        path.write_text(text)
        say(f"written: {path}")
    return OK


def _fleet(c: Context) -> Fleet:
    from inferfleet.load.load import load_fleet
    from inferfleet.paths import find_roots

    return load_fleet(find_roots(overlay(c)))


ns = Collection("inventory", list_, show, validate, schema, probe)
