"""Where a consumer connects to: worked out from the inventory, without asking any machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from inferfleet.errors import USAGE, FleetError
from inferfleet.names import name_hint

if TYPE_CHECKING:
    from inferfleet.run.brief import Brief


@dataclass(frozen=True)
class Endpoint:
    """One service as a client sees it.

    url: scheme, address and port. base_url: what an API client wants; for OpenAI services
    url + /v1. model: the name to ask for. reach: direct, or tunnel when the service listens
    on the machine's loopback address only (`invoke tunnel` makes url work from here).
    """

    service: str
    machine: str
    kind: str
    api: str
    url: str
    base_url: str
    model: str | None
    reach: str


def endpoints(brief: Brief) -> list[Endpoint]:
    """All services of a machine that have a port."""
    found = []
    for unit in brief.draft.release.units.values():
        if unit.address is None:
            continue
        bind, port = unit.address
        loopback = bind.startswith("127.") or bind == "::1"
        anywhere = bind in {"0.0.0.0", "::"}
        own = bind if not anywhere else (brief.reach.address or "127.0.0.1")
        host = "127.0.0.1" if loopback else own
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        found.append(
            Endpoint(
                service=unit.service,
                machine=brief.name,
                kind=unit.kind,
                api=unit.api,
                url=url,
                base_url=f"{url}/v1" if unit.api == "openai" else url,
                model=unit.model,
                reach="tunnel" if loopback and not brief.local else "direct",
            )
        )
    return found


def endpoint(
    service: str, machine: str | None = None, overlay: str | Path | None = None
) -> Endpoint:
    """The endpoint of a service by its name; machine is needed when two machines have one.

    overlay: the consumer's folder, found by itself when None. Raises FleetError when there is
    no such service, or several, and for every mistake in the inventory.
    """
    from inferfleet.paths import find_roots
    from inferfleet.run.snapshot import Snapshot

    snapshot = Snapshot(find_roots(overlay))
    listing = snapshot.listing
    if machine and machine not in listing:
        raise FleetError(f"unknown machine {machine}", hint=name_hint(machine, listing), code=USAGE)
    names = [machine] if machine else sorted(listing)
    having = [name for name in names if service in listing[name].services]
    briefs = snapshot.briefs(having).values()
    matches = [f for brief in briefs for f in endpoints(brief) if f.service == service]
    if len(matches) == 1:
        return matches[0]
    if having and not matches:
        raise FleetError(f"service {service} has no port to connect to", code=USAGE)
    if not matches:
        known = {other for name in names for other in listing[name].services}
        raise FleetError(f"unknown service {service}", hint=name_hint(service, known), code=USAGE)
    where = ", ".join(found.machine for found in matches)
    raise FleetError(
        f"service {service} is on several machines: {where}",
        hint='say which: endpoint("...", machine="...")',
        code=USAGE,
    )


def try_lines(brief: Brief, running: frozenset[str]) -> list[str]:
    """What to try on a machine that just came up: endpoints, curl lines, how to stop them.

    running: the services that are up; the others are left out.
    """
    lines = []
    for found in endpoints(brief):
        if found.service not in running:
            continue
        lines.append(f"{found.service}: {found.base_url}  model {found.model or '-'}")
        if found.api == "openai":
            secret = brief.keys.get(found.service)
            origin = brief.origins.get(secret) if secret else None
            variable = (origin.env if origin else None) or secret
            lines.append(f"  try:  {_curl(found.base_url, found.model, variable)}")
    host = "" if brief.name == "local" else f" --host {brief.name}"
    return [*lines, f"  stop: invoke down{host}"] if lines else []


def _curl(base_url: str, model: str | None, variable: str | None) -> str:
    """A question to the model, or which models there are where no name is known.

    variable: of the shell, with the key that is asked for.
    """
    key = f' -H "Authorization: Bearer ${variable}"' if variable else ""
    if model is None:
        return f"curl {base_url}/models{key}"
    body = (
        f'{{"model": "{model}", "messages": '
        '[{"role": "user", "content": "What is the capital of France?"}]}'
    )
    return f"curl {base_url}/chat/completions{key} -H 'Content-Type: application/json' -d '{body}'"
