"""Tasks about the files: inventory.list, .show, .validate, .schema, .probe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.collection import Collection
from invoke.context import Context

from inferfleet.errors import OK, FleetError
from inferfleet.tasks.edge import overlay, verb

if TYPE_CHECKING:
    from inferfleet.schema.fleet import Fleet


@verb(name="list")
def list_(c: Context, format: str = "table") -> int:
    """List the machines of the inventory."""
    from inferfleet.show import output

    fleet = _fleet(c)
    rows = [
        {
            "machine": name,
            "address": machine.address or "(this machine)",
            "hardware": machine.hardware,
            "groups": list(machine.groups),
            "services": list(machine.services),
            "summary": machine.summary,
        }
        for name, machine in sorted(fleet.machines.items())
    ]
    output(rows, ["machine", "address", "hardware", "groups", "services", "summary"], format)
    return OK


@verb()
def show(
    c: Context,
    host: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
    format: str = "table",
) -> int:
    """Show machines with everything merged: overlay, defaults, kinds."""
    import sys

    import yaml

    from inferfleet.run.run import Run
    from inferfleet.show import data

    run = Run(overlay(c), host or (), group or ())
    found = {
        name: run.fleet.machines[name].model_dump(mode="json", by_alias=True, exclude_defaults=True)
        for name in run.machines
    }
    if format == "json":
        data(found)
    else:
        yaml.safe_dump(found, sys.stdout, sort_keys=False, width=100)
    return OK


@verb()
def validate(c: Context) -> int:
    """Check every file; all mistakes at once, exit 64 if there are any."""
    from inferfleet.show import say

    fleet = _fleet(c)
    for name, machine in sorted(fleet.machines.items()):
        for service, entry in machine.services.items():
            if notice := fleet.kinds[entry.kind].notice:
                say(f"note: {name}: {service}: {notice}")
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
    from inferfleet.show import data, say

    fleet = _fleet(c)
    facts = [probe_host(fleet, name) for name in host or ["local"]]
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
