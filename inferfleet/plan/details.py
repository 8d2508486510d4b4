"""The second question, asked only before a change: old contents, missing tools, culprits."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from inferfleet.errors import FleetError
from inferfleet.observe.observed import Observed, parse_listener
from inferfleet.plan.footing import Footing, Missing, footing_variables, parse_missing
from inferfleet.plan.obstacles import PortTaken, needed_addresses
from inferfleet.plan.plan import Plan
from inferfleet.release.release import Release
from inferfleet.remote import program

MIB = 1 << 20


@dataclass(frozen=True)
class Details:
    """contents: path -> bytes of changed files that are not secret. tools: name -> what was
    found ("" is fine, else the trouble). culprits: port -> who listens. listeners: (ip, port)
    of sockets that listen on a port that a service will need. free_kb: KiB free where the
    release will lie, None when it was not asked. missing: of the ground under services."""

    contents: Mapping[str, bytes]
    tools: Mapping[str, str]
    culprits: Mapping[int, str]
    listeners: frozenset[tuple[str, int]] = frozenset()
    free_kb: int | None = None
    missing: Missing = field(default_factory=Missing)


def details_script(
    release: Release,
    observed: Observed,
    plan: Plan,
    footings: Mapping[str, Footing] | None = None,
) -> str:
    """The shell program that answers for this plan, "" when it leaves nothing to ask."""
    old = {step.target for step in plan.steps if step.action in {"update", "delete"}}
    paths = [path for path in plan.changed_files if path in old and path not in plan.hidden]
    starting = acting_services(release, plan)
    acting = {release.units[service].runtime for service in starting}
    ground = footing_variables(release, footings or {}, starting)
    needs = any(ground[name] for name in ("gpus", "locks", "mounts"))
    ports = {port for _, port in needed_addresses(release, observed, plan.steps).values()}
    space = plan.to != plan.source and "free_kb" not in observed.facts
    if not paths and not ports and not space and not needs and acting <= {"process"}:
        return ""
    return program(
        "details",
        root=release.root,
        paths="\n".join(paths),
        runtimes=" ".join(sorted(acting)),
        ports=" ".join(map(str, sorted(ports))),
        near=observed.facts.get("near", "") if space else "",
        **ground,
    )


def acting_services(release: Release, plan: Plan) -> list[str]:
    """The services that a plan starts."""
    acting = [step.target for step in plan.steps if step.action in {"start", "replace"}]
    return [service for service in acting if service in release.units]


def parse_details(text: str) -> Details:
    """Read the output of remote/details.sh."""
    contents: dict[str, bytes] = {}
    tools: dict[str, str] = {}
    culprits: dict[int, str] = {}
    listeners: set[tuple[str, int]] = set()
    ground: list[tuple[str, str]] = []
    free_kb: int | None = None
    for line in text.splitlines():
        kind, _, rest = line.partition("\t")
        key, _, value = rest.partition("\t")
        if kind == "content":
            contents[key] = base64.b64decode(value)
        elif kind == "tool":
            tools[key] = value
        elif kind == "culprit" and key.isdigit():
            culprits.setdefault(int(key), value)
        elif kind == "listen":
            listeners.add(parse_listener(key))
        elif kind == "free_kb" and key.isdigit():
            free_kb = int(key)
        elif kind == "ground":
            ground.append((key, value))
    missing = parse_missing(ground)
    return Details(contents, tools, culprits, frozenset(listeners), free_kb, missing)


def with_details(plan: Plan, details: Details, observed: Observed, upload: int) -> Plan:
    """The same plan with what the details add to its problems. upload: bytes to be written."""
    problems = [
        PortTaken(p.service, p.port, p.ip, details.culprits.get(p.port, ""))
        if isinstance(p, PortTaken)
        else p
        for p in plan.problems
    ]
    problems.extend(
        FleetError(f"{tool}: {trouble}", hint=REMEDIES.get(tool, ""))
        for tool, trouble in sorted(details.tools.items())
        if trouble
    )
    free = details.free_kb
    if free is None and observed.facts.get("free_kb", "").isdigit():
        free = int(observed.facts["free_kb"])
    need = 2 * upload + MIB
    if free is not None and free * 1024 < need:
        problems.append(
            FleetError(
                f"{observed.facts.get('near')} has {free // 1024} MiB free, "
                f"{-(-need // MIB)} MiB are needed",
                hint="free some space there, or set `root` to another disk",
            )
        )
    return replace(plan, problems=tuple(problems))


REMEDIES = {
    "docker": "install Docker Engine 28 or newer and start it; the user must be root, use "
    "`sudo: true`, or be in the group docker (which is as good as root)",
    "compose": "install the Docker Compose plugin, version 2",
    "systemd": "systemd units need a machine that runs systemd, and root or `sudo: true`",
}
