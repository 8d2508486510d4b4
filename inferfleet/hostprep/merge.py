"""Profiles and a machine file to the settings that are wanted of one host; pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from inferfleet.hostprep.setting import Ground, Wanted
from inferfleet.names import name_hint
from inferfleet.schema.fields import Model, kebab
from inferfleet.schema.fleet import Fleet
from inferfleet.schema.profile import HostPrep, Profile, Settings

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


def profile_settings(name: str, profile: Profile) -> Iterator[Wanted]:
    """Everything that a profile sets, what has a cost included."""
    for group in profile.settings:
        for kind, key, value in settings_of(group):
            yield Wanted(kind, key, value, group.why, group.source, name, group.cost or "")


def wanted_settings(
    profiles: Mapping[str, Profile], prep: HostPrep
) -> tuple[tuple[Wanted, ...], list[Problem]]:
    """The settings of the named profiles with the machine's own over them, and what is wrong.

    A setting with a cost counts only when it is accepted; one that is left does not count.
    """
    own = {
        f"{kind}.{key}": Wanted(kind, key, value, "this machine's own choice", "", MACHINE_FILE)
        for kind, key, value in settings_of(prep)
    }
    chosen = [
        wanted
        for name in prep.profiles
        if name in profiles
        for wanted in profile_settings(name, profiles[name])
    ]
    problems = _names(profiles, prep)
    found: dict[str, Wanted] = {}
    for wanted in chosen:
        if wanted.cost and wanted.name not in prep.accept:
            continue
        if wanted.name in prep.leave or wanted.name in own:
            continue
        other = found.setdefault(wanted.name, wanted)
        if not same_value(other, wanted):
            problems.append(_disagreement(prep, other, wanted))
    if all(name in profiles for name in prep.profiles):
        problems += _references(profiles, prep, {w.name: w for w in chosen}, own)
    for name, cost in _costs(profiles).items():
        if name in own and not (_is_off(own[name]) and not _is_off(cost)):
            own[name] = replace(own[name], cost=cost.cost)
            if name not in prep.accept:
                path = (own[name].kind, own[name].key)
                problems.append(Problem(path, f"has a cost: {cost.cost}", f"add {name} to accept"))
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


def same_value(one: Wanted, other: Wanted) -> bool:
    """Whether two wishes for a setting are the same; 1 and "1" are, 1 and true are not."""
    return _comparable(one.value) == _comparable(other.value)


def _comparable(value: Any) -> str:
    # Numbers become text on their way to the machine; true stands for a word of its own.
    plain = value if isinstance(value, bool | dict | list) else str(value)
    return json.dumps(plain, sort_keys=True)


def _disagreement(prep: HostPrep, first: Wanted, second: Wanted) -> Problem:
    what = (
        f"{second.origin} wants {second.name} to be {_shown(second.value)}, and {first.origin} "
        f"wants {_shown(first.value)}"
    )
    hint = (
        f"say which with {second.kind}: {{{second.key}: ...}} in this file, or leave one of the "
        "profiles out"
    )
    return Problem(("profiles", prep.profiles.index(second.origin)), what, hint)


def _names(profiles: Mapping[str, Profile], prep: HostPrep) -> list[Problem]:
    return [
        Problem(
            ("profiles", index),
            f"there is no profile {name}",
            name_hint(name, profiles, "profiles"),
        )
        for index, name in enumerate(prep.profiles)
        if name not in profiles
    ]


def _references(
    profiles: Mapping[str, Profile],
    prep: HostPrep,
    there: Mapping[str, Wanted],
    own: Mapping[str, Wanted],
) -> Iterator[Problem]:
    """Entries of accept and leave that mean nothing, or too little."""
    costs = _costs(profiles)
    useful = {name for name in costs if name in own or (name in there and there[name].cost)}
    examples = _examples(profiles)
    for index, name in enumerate(prep.accept):
        at = ("accept", index)
        if name not in costs:
            hint = name_hint(name, costs, "those that have one")
            yield Problem(at, f"{name} is no setting that has a cost", hint)
        elif name not in useful:
            hint = f"name its profile, {costs[name].origin}, or remove it here"
            yield Problem(at, f"{name} is set neither by these profiles nor in this file", hint)
        elif name in prep.leave:
            yield Problem(at, f"{name} is in leave, too", "remove it from one of them")
        elif name in examples and name not in own:
            value = _shown(costs[name].value)
            hint = f"add {costs[name].kind}: {{{costs[name].key}: ...}}; an example is {value}"
            yield Problem(at, f"{name} needs a value of this machine", hint)
    for index, name in enumerate(prep.leave):
        if name not in there:
            hint = name_hint(name, there)
            yield Problem(("leave", index), f"{name} is no setting of these profiles", hint)


def _costs(profiles: Mapping[str, Profile]) -> dict[str, Wanted]:
    """Every setting that has a cost somewhere, by name."""
    found: dict[str, Wanted] = {}
    for name, profile in profiles.items():
        for wanted in profile_settings(name, profile):
            if wanted.cost:
                found.setdefault(wanted.name, wanted)
    return found


def _examples(profiles: Mapping[str, Profile]) -> set[str]:
    return {
        f"{kind}.{key}"
        for profile in profiles.values()
        for group in profile.settings
        if group.example
        for kind, key, _ in settings_of(group)
    }


def _is_off(wanted: Wanted) -> bool:
    """Whether it is wanted not to be there, which costs nothing."""
    return wanted.value is False or (wanted.kind == "hugepages" and wanted.value == 0)


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    return value
