"""Which way models come to machines: who fetches, who copies, what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from inferfleet.models.sources.source import source_text
from inferfleet.models.transfer.depot import Depot
from inferfleet.models.transfer.peer import reach
from inferfleet.operations.survey import Survey, Want
from inferfleet.parallel import on_each

COLUMNS = [
    "machine", "services", "model", "verdict", "installed", "latest", "from", "fetch", "free",
    "left", "detail",
]  # fmt: skip


@dataclass(frozen=True)
class Route:
    """How a model gets to a machine. origin: the machine it is copied from, "" for the source;
    closed: why the two cannot copy directly, so that the bytes go through here twice."""

    origin: str = ""
    closed: str = ""

    def words(self, scheme: str) -> str:
        if not self.origin:
            return {"hf": "hub", "file": "here", "pypi": "here"}.get(scheme, scheme)
        return f"{self.origin}, through here" if self.closed else self.origin


@dataclass(frozen=True)
class Fleetwide:
    """Everything an update of several machines will do. routes: by machine and model key."""

    surveys: Mapping[str, Survey]
    routes: Mapping[tuple[str, str], Route]
    depot: Depot


def plan_update(
    surveys: Mapping[str, Survey], sites: Mapping[str, str], addresses: Mapping[str, str]
) -> Fleetwide:
    """Decide who fetches and who copies; machines that are to copy try the way there. What is
    wanting where neither the source can be asked nor a machine of the site has it is unknown.

    sites: machine -> site; addresses: machine -> its address for its site, "" for the usual.
    """
    depot = Depot(sites)
    first: dict[tuple[str, str], str] = {}
    for name, found in surveys.items():
        for want in found.wants:
            holder = found.holder(want, addresses.get(name, ""))
            if holder is not None and name in sites:
                depot.stock(name, want.need.key, holder)
                first.setdefault((sites[name], want.need.key), name)
    tasks: dict[tuple[str, str], str] = {}
    wanting = [(name, w) for name, s in surveys.items() for w in s.wants if w.wanting]
    for name, want in sorted(wanting, key=lambda found: not found[1].asked):
        key = want.need.key
        if not want.need.directory or not (want.asked or (sites.get(name, ""), key) in first):
            continue
        origin = first.setdefault((sites[name], key), name) if name in sites else name
        tasks[name, key] = "" if origin == name else origin
        if origin == name:
            depot.appoint(name, key)
    ways = {(name, origin) for (name, _), origin in tasks.items() if origin}
    closed = _closed(surveys, addresses, sorted(ways))
    routes = {
        (name, key): Route(origin, closed.get((name, origin), ""))
        for (name, key), origin in tasks.items()
    }
    return Fleetwide({n: _known(n, s, routes) for n, s in surveys.items()}, routes, depot)


def _known(name: str, found: Survey, routes: Mapping[tuple[str, str], Route]) -> Survey:
    """The survey, where what nobody can give counts as unknown."""
    wants = tuple(
        replace(want, verdict="unknown", fetch=0)
        if want.wanting and not want.asked and (name, want.need.key) not in routes
        else want
        for want in found.wants
    )
    return replace(found, wants=wants)


def _closed(
    surveys: Mapping[str, Survey],
    addresses: Mapping[str, str],
    ways: Sequence[tuple[str, str]],
) -> dict[tuple[str, str], str]:
    """Why machines cannot copy from others, by (machine, other); only those that cannot."""

    def work(text: str) -> str:
        name, origin = ways[int(text)]
        source = surveys[origin].session.host
        return reach(source, addresses.get(origin, ""), surveys[name].session.host)

    answers = on_each([str(number) for number in range(len(ways))], work) if ways else []
    found = {}
    for answer in answers:
        why = answer.error.what if answer.error else answer.value
        if why:
            found[ways[int(answer.machine)]] = why
    return found


def rows(plan: Fleetwide) -> list[dict[str, Any]]:
    """A row per machine and model."""
    return [row_of(name, want, plan) for name, s in plan.surveys.items() for want in s.wants]


def row_of(name: str, want: Want, plan: Fleetwide) -> dict[str, Any]:
    """What is wanted, found and to be paid; texts and bytes."""
    route = plan.routes.get((name, want.need.key))
    shelf = plan.surveys[name].shelf
    detail = want.detail
    if route and route.closed and not detail:
        detail = f"{name} cannot copy by itself: {route.closed}"
    if want.outdated and not detail:
        detail = f"{', '.join(want.outdated)} to restart: runs with other files"
    return {
        "machine": name,
        "services": list(want.services),
        "model": want.need.declared or source_text(want.need.source),
        "verdict": want.verdict,
        "installed": want.state.stamp.revision if want.state and want.state.stamp else None,
        "latest": want.newest.revision if want.newest and want.newest.revision else None,
        "from": route.words(want.need.source.scheme) if route else None,
        "fetch_bytes": want.fetch,
        "through_here_bytes": 2 * (want.fetch or 0) if route and route.closed else 0,
        "free_bytes": shelf.free if shelf and want.need.directory else None,
        "left_bytes": want.left,
        "outdated": list(want.outdated),
        "detail": detail,
    }
