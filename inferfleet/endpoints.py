"""Where a consumer connects to: worked out from the inventory, without asking any machine."""

from __future__ import annotations

from dataclasses import dataclass
from os.path import expanduser
from pathlib import Path

from inferfleet.errors import USAGE, FleetError
from inferfleet.names import name_hint
from inferfleet.schema.fleet import Fleet


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


def endpoints(fleet: Fleet, machine: str) -> list[Endpoint]:
    """All services of a machine that have a port."""
    from inferfleet.resolve import resolve

    found = []
    entry = fleet.machines[machine]
    root = expanduser(entry.root)
    models = expanduser(entry.models) if entry.models else f"{root}/models"
    for name in entry.services:
        view = resolve(fleet, entry, name, root, models)
        if view.port is None:
            continue
        loopback = view.bind.startswith("127.") or view.bind == "::1"
        anywhere = view.bind in {"0.0.0.0", "::"}
        own = view.bind if not anywhere else (entry.address or "127.0.0.1")
        host = "127.0.0.1" if loopback else own
        url = f"http://{f'[{host}]' if ':' in host else host}:{view.port}"
        found.append(
            Endpoint(
                service=name,
                machine=machine,
                kind=view.service.kind,
                api=view.kind.api,
                url=url,
                base_url=f"{url}/v1" if view.kind.api == "openai" else url,
                model=view.served_name,
                reach="tunnel" if loopback and not entry.local else "direct",
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
    from inferfleet.snapshot import fleet_of

    fleet = fleet_of(find_roots(overlay))
    names = [machine] if machine else sorted(fleet.machines)
    if machine and machine not in fleet.machines:
        raise FleetError(
            f"unknown machine {machine}", hint=name_hint(machine, fleet.machines), code=USAGE
        )
    everything = [found for name in names for found in endpoints(fleet, name)]
    matches = [found for found in everything if found.service == service]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        known = [found.service for found in everything]
        raise FleetError(f"unknown service {service}", hint=name_hint(service, known), code=USAGE)
    where = ", ".join(found.machine for found in matches)
    raise FleetError(
        f"service {service} is on several machines: {where}",
        hint='say which: endpoint("...", machine="...")',
        code=USAGE,
    )


def try_lines(fleet: Fleet, machine: str) -> list[str]:
    """What to try on a machine that just came up: endpoint, a curl line, how to stop it."""
    lines = []
    for found in endpoints(fleet, machine):
        lines.append(f"{found.service}: {found.base_url}  model {found.model or '-'}")
        if found.api == "openai":
            body = (
                f'{{"model": "{found.model}", "messages": '
                '[{"role": "user", "content": "What is the capital of France?"}]}'
            )
            lines.append(
                f"  try:  curl {found.base_url}/chat/completions "
                f"-H 'Content-Type: application/json' -d '{body}'"
            )
    lines.append("  stop: invoke down" + ("" if machine == "local" else f" --host {machine}"))
    return lines
