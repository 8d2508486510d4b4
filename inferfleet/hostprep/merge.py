"""Profiles and a machine file to the settings that are wanted of one host; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from inferfleet.errors import FleetError
from inferfleet.hostprep.setting import Ground, Wanted
from inferfleet.names import name_hint
from inferfleet.schema.fields import Model, kebab
from inferfleet.schema.fleet import Fleet
from inferfleet.schema.machine import Machine
from inferfleet.schema.profile import HostPrep, Profile, Settings
from inferfleet.view import View

MACHINE_FILE = "machine file"


@dataclass(frozen=True)
class Problem:
    """A mistake of a machine file: at this path below `hostprep`."""

    path: tuple[str | int, ...]
    what: str
    hint: str


def settings_of(group: Settings) -> Iterator[tuple[str, str, Any]]:
    """(kind, key, plain value) of everything that is set, in the order of the schema."""
    for field in Settings.model_fields:
        found = getattr(group, field)
        if isinstance(found, Model):
            pairs = {
                kebab(key): getattr(found, key)
                for key in type(found).model_fields
                if getattr(found, key) is not None
            }
        else:
            pairs = found or {}
        for key, value in pairs.items():
            yield kebab(field), key, _plain(value)


def wanted_settings(
    profiles: Mapping[str, Profile], prep: HostPrep
) -> tuple[tuple[Wanted, ...], list[Problem]]:
    """The settings of the named profiles with the machine's own over them, and what is wrong.

    A setting with a cost counts only when it is accepted; one that is left does not count.
    """
    problems = _names(profiles, prep)
    own = {f"{kind}.{key}": Wanted(kind, key, value, "this machine's own choice", "",
                                   MACHINE_FILE)
           for kind, key, value in settings_of(prep)}  # fmt: skip
    found: dict[str, Wanted] = {}
    for wanted in _of_profiles(profiles, prep):
        if wanted.cost and wanted.name not in prep.accept:
            continue
        if wanted.name in prep.leave or wanted.name in own:
            continue
        other = found.setdefault(wanted.name, wanted)
        if other.value != wanted.value:
            place = prep.profiles.index(wanted.origin)
            problems.append(
                Problem(
                    ("profiles", place),
                    f"{wanted.origin} wants {wanted.name} {wanted.value!r}, and {other.origin} "
                    f"wants {other.value!r}",
                    f"say which with {wanted.kind}: {{{wanted.key}: ...}} in this file, or "
                    "leave one of the profiles out",
                )
            )
    costs = {w.name: w.cost for w in _all(profiles) if w.cost}
    for name, wanted in own.items():
        if name in costs and wanted.value is not False and name not in prep.accept:
            what = f"has a cost: {costs[name]}"
            problems.append(Problem((wanted.kind, wanted.key), what, f"add {name} to accept"))
    return tuple({**found, **own}[name] for name in sorted({**found, **own})), problems


def make_ground(fleet: Fleet, name: str) -> Ground:
    """What is wanted of a machine's host; a fleet that was checked has no problems here."""
    machine = fleet.machines[name]
    hardware = fleet.hardware.get(machine.hardware or "")
    settings: tuple[Wanted, ...] = ()
    if machine.hostprep is not None:
        settings, _ = wanted_settings(fleet.profiles, machine.hostprep)
    data = hardware.model_dump(mode="json", by_alias=True) if hardware else {}
    return Ground(settings, data)


def check_ground(view: View, known: set[str]) -> Iterator[FleetError]:
    """What is wrong with the hostprep of a machine, at its place. known: names of profiles."""
    prep = view.machine.hostprep
    if prep is None:
        return
    for problem in wanted_settings(view.fleet.profiles, prep)[1]:
        at = problem.path
        if (
            at[0] == "profiles"
            and isinstance(at[1], int)
            and prep.profiles[at[1]] in (known - view.fleet.profiles.keys())
        ):
            continue  # the profile has mistakes of its own, which are told at its own place
        key = at[0] != "profiles"
        yield view.error(("hostprep", *at), problem.what, problem.hint, key=key)


def compute_mode(view: View) -> str:
    """The compute mode that the machine's GPUs will have."""
    machine: Machine = view.machine
    if machine.hostprep is None:
        return "default"
    for wanted in wanted_settings(view.fleet.profiles, machine.hostprep)[0]:
        if wanted.name == "gpu.compute-mode":
            return str(wanted.value)
    return "default"


def _names(profiles: Mapping[str, Profile], prep: HostPrep) -> list[Problem]:
    problems = []
    for index, name in enumerate(prep.profiles):
        if name not in profiles:
            hint = name_hint(name, profiles, "profiles")
            problems.append(Problem(("profiles", index), f"there is no profile {name}", hint))
    there = {wanted.name: wanted for wanted in _of_profiles(profiles, prep)}
    for key in ("accept", "leave"):
        for index, name in enumerate(getattr(prep, key)):
            if key == "accept":
                known = {w.name for w in _all(profiles) if w.cost}
                what = "is no setting of a profile that has a cost"
            else:
                known, what = set(there), "is no setting of these profiles"
            if name not in known:
                problems.append(Problem((key, index), f"{name} {what}", name_hint(name, known)))
    return problems


def _of_profiles(profiles: Mapping[str, Profile], prep: HostPrep) -> Iterator[Wanted]:
    for name in prep.profiles:
        if name in profiles:
            yield from _of_profile(name, profiles[name])


def _all(profiles: Mapping[str, Profile]) -> Iterator[Wanted]:
    for name, profile in profiles.items():
        yield from _of_profile(name, profile)


def _of_profile(name: str, profile: Profile) -> Iterator[Wanted]:
    for group in profile.settings:
        for kind, key, value in settings_of(group):
            yield Wanted(kind, key, value, group.why, group.source, name, group.cost or "")


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    return value
