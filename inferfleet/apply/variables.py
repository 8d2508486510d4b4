"""A Plan and its Undo as the variables of the program that carries them out; pure."""

from __future__ import annotations

from collections.abc import Mapping

from inferfleet.observe.observed import Observed
from inferfleet.plan.plan import Plan
from inferfleet.plan.undo import Undo
from inferfleet.release.release import Release


def plan_variables(
    release: Release, observed: Observed, plan: Plan, undo: Undo
) -> dict[str, str | int]:
    """What remote/apply.sh has to know of the plan and of the way back, by variable."""
    gone, evicted = [*plan.gone, *plan.targets("evict")], plan.targets("evict")
    renewed = _renewed(release, observed, plan)
    links = {path: f"{release.root}/current/{release.links[path]}" for path in plan.targets("link")}
    return {
        "root": release.root,
        "from": plan.source,
        "to": plan.to,
        "back": undo.back,
        "by": str(release.by or ""),
        "confirm": "yes" if plan.confirm else "no",
        "links": _pairs(links),
        "unlinks": _pairs(dict.fromkeys(plan.targets("unlink"), "")),
        "left": "\n".join(f"{number}\t{service}" for number, service in plan.left),
        "gone": " ".join(gone),
        "forget": " ".join(undo.lost),
        "back_forget": " ".join(undo.forget),
        "evicted": " ".join(evicted),
        "room": plan.room,
        "replace": " ".join([*plan.targets("replace"), *renewed]),
        "start": " ".join(s for s in plan.targets("start") if s not in renewed),
        "ready": " ".join(plan.wait),
        "shelves": "\n".join(_shelves(release, plan)),
        "back_remove": " ".join(undo.remove),
        "back_stop": " ".join(undo.stop),
        "back_replace": " ".join(undo.replace),
        "back_links": _pairs(undo.links),
        "back_unlinks": _pairs(dict.fromkeys(undo.unlinks, "")),
    }


def _shelves(release: Release, plan: Plan) -> list[str]:
    """The models directories that what is started reads from."""
    acting = {*plan.targets("start"), *plan.targets("replace")}
    needs = (need for need in release.models if need.service in acting)
    return sorted({need.models_dir for need in needs if need.directory or need.aliases})


def _renewed(release: Release, observed: Observed, plan: Plan) -> list[str]:
    """Services to start whose container is there: it would keep an older configuration."""
    return [
        service
        for service in plan.targets("start")
        if release.units[service].runtime == "compose"
        and service in observed.units
        and observed.started.get(service) != release.units[service].digest
    ]


def _pairs(links: Mapping[str, str]) -> str:
    return "\n".join(f"{path}\t{target}" for path, target in links.items())
