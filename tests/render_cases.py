"""Machines of tests/cases/render, rendered such that nothing depends on this machine."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

from inferfleet.load.load import load_fleet
from inferfleet.paths import Roots
from inferfleet.release.release import Release
from inferfleet.render import render
from inferfleet.schema.fleet import Fleet
from inferfleet.schema.machine import Machine
from inferfleet.secrets import Secret

REPOSITORY = Path(__file__).resolve().parent.parent
CASES = Path(__file__).resolve().parent / "cases" / "render"
NAMES = sorted(path.name for path in CASES.iterdir() if path.is_dir())
HOME = "/home/someone"
PYTHON = "/opt/venv/bin/python"


@cache
def fleet(case: str) -> Fleet:
    """Our data folders with one case as the overlay."""
    return load_fleet(Roots(REPOSITORY, CASES / case))


def secrets(machine: Machine) -> dict[str, Secret]:
    """A recognisable value for each secret, with characters that need care."""
    return {name: Secret(f"canary-{name} '\"$\\%\nend") for name in machine.secrets}


def render_case(case: str) -> Release:
    """The release of the machine case-NAME, with paths that do not depend on this machine."""
    return render_fleet(fleet(case), f"case-{case}")


def render_fleet(over: Fleet, name: str) -> Release:
    real = render.EMBEDDED
    render.EMBEDDED = "/opt/inferfleet/engines/embedded.py"
    try:
        machine = over.machines[name]
        return render.render(over, name, secrets(machine), home=HOME, python=PYTHON)
    finally:
        render.EMBEDDED = real


def with_service(over: Fleet, machine: str, service: str, **changes: object) -> Fleet:
    """The fleet with some fields of one service replaced, unchecked."""
    old = over.machines[machine]
    changed = old.services[service].model_copy(update=changes)
    new = old.model_copy(update={"services": {**old.services, service: changed}})
    return dataclasses.replace(over, machines={**over.machines, machine: new})
