"""What is wrong with profiles and with the `hostprep` of a machine file, at its place; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from inferfleet.errors import USAGE, FleetError
from inferfleet.hostprep.merge import settings_of, wanted_settings
from inferfleet.hostprep.setting import Wanted
from inferfleet.schema.fleet import Fleet
from inferfleet.schema.nodes import dotted
from inferfleet.schema.view import Locate, View


def check_profiles(fleet: Fleet, locate: Locate) -> Iterator[FleetError]:
    """Groups that hold nothing, settings that a profile gives twice, examples without a cost."""
    for name, profile in fleet.profiles.items():
        seen: dict[str, int] = {}
        for index, group in enumerate(profile.settings):
            at: tuple[str | int, ...] = ("settings", index)
            found = list(settings_of(group))
            if not found:
                yield _error(locate, name, at, "holds no setting", "add one, or remove the group")
            if group.example and group.cost is None:
                what = "is only for settings that have a cost"
                yield _error(locate, name, (*at, "example"), what, "add cost, or remove example")
            for kind, key, _ in found:
                first = seen.setdefault(f"{kind}.{key}", index)
                if first != index:
                    what = f"is set in settings[{first}], too"
                    yield _error(locate, name, (*at, kind, key), what, "remove one of them")


def check_ground(view: View, known: Collection[str]) -> Iterator[FleetError]:
    """What is wrong with the hostprep of a machine. known: names of all profiles that exist."""
    prep = view.machine.hostprep
    if prep is None:
        return
    for problem in wanted_settings(view.fleet.profiles, prep)[1]:
        path: tuple[str | int, ...] = ("hostprep", *problem.path)
        if path[1] == "profiles" and isinstance(path[2], int):
            name = prep.profiles[path[2]]
            if name in known and name not in view.fleet.profiles:
                continue  # it has mistakes of its own, which are told at its own place
            # The short form has the names right below hostprep.
            short = view.locate("machine", view.name, "hostprep", key=True)
            if view.locate("machine", view.name, *path) == short:
                path = ("hostprep", path[2])
        key = path[1] not in ("accept", "leave") and not isinstance(path[-1], int)
        yield view.error(path, problem.what, problem.hint, key=key)


def compute_mode(view: View) -> Wanted | None:
    """The wish for a compute mode of the machine's GPUs, if there is one."""
    if view.machine.hostprep is None:
        return None
    settings, _ = wanted_settings(view.fleet.profiles, view.machine.hostprep)
    return next((wanted for wanted in settings if wanted.name == "gpu.compute-mode"), None)


def _error(
    locate: Locate, name: str, path: tuple[str | int, ...], what: str, hint: str
) -> FleetError:
    where = locate("profile", name, *path, key=True)
    return FleetError(f"{dotted(path)}: {what}", hint, where, USAGE)
