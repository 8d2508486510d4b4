"""The services that a gateway passes requests to: which they are and how it reaches them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from inferfleet.errors import USAGE, FleetError
from inferfleet.names import name_hint
from inferfleet.schema.fleet import Fleet
from inferfleet.services.argv import merge_options
from inferfleet.services.resolve import Resolved, resolve

# Ollama answers OpenAI's paths too.
APIS = ("openai", "ollama")
_ANYWHERE = "/opt/inferbase"


@dataclass(frozen=True)
class Target:
    """A service of a machine. id: SERVICE, or MACHINE/SERVICE on another machine.

    model: what it is asked for, if that is not the name it serves its model under.
    """

    id: str
    machine: str
    view: Resolved
    model: str | None = None


def target(fleet: Fleet, here: str, ref: str) -> Target:
    """The service that ref names, seen from the machine here. Raises FleetError (code USAGE)."""
    machine_name, _, service = ref.rpartition("/")
    machine_name = machine_name or here
    machine = fleet.machines.get(machine_name)
    if machine is None:
        hint = name_hint(machine_name, fleet.machines, "machines")
        raise FleetError(f"there is no machine {machine_name}", hint, code=USAGE)
    if service not in machine.services:
        what = f"{machine_name} has no service {service}"
        raise FleetError(what, name_hint(service, machine.services, "services"), code=USAGE)
    view = resolve(fleet, machine, service, _ANYWHERE, f"{_ANYWHERE}/models")
    if view.kind.api not in APIS:
        what = f"{ref} speaks {view.kind.api}, and a gateway needs OpenAI's API"
        raise FleetError(what, "route to an engine, such as one of kind vllm", code=USAGE)
    found = service if machine_name == here else f"{machine_name}/{service}"
    return Target(found, machine_name, view)


def adapters(view: Resolved) -> list[str]:
    """The LoRA adapters that a service serves beside its model, as far as its options say."""
    options = merge_options(view.kind.options.defaults, view.service.options)
    given = options.get(view.kind.options.adapters or "")
    names = [_adapter(one) for one in (given if isinstance(given, list) else [given])]
    return list(dict.fromkeys(name for name in names if name))


def _adapter(given: object) -> str | None:
    """The name in NAME=PATH, in a mapping, or in one that is written as JSON."""
    if isinstance(given, str) and given.lstrip().startswith("{"):
        try:
            given = json.loads(given)
        except ValueError:
            return None
    if isinstance(given, dict):
        name = given.get("name")
        return name if isinstance(name, str) else None
    name, equals, _ = given.partition("=") if isinstance(given, str) else ("", "", "")
    return name if equals else None


def check_model(found: Target, model: str) -> None:
    """Raises FleetError (code USAGE) for a name that a service is known not to serve."""
    known = adapters(found.view)
    if known and model not in {found.view.served_name, *known}:
        what = f"{found.id} serves nothing by the name {model}"
        raise FleetError(what, name_hint(model, known, "adapters"), code=USAGE)


def neighbours(fleet: Fleet, here: str) -> Iterator[Target]:
    """The OpenAI services of the machine that serve a model."""
    machine = fleet.machines[here]
    for name, service in machine.services.items():
        kind = fleet.kinds.get(service.kind)
        if kind is None or kind.renders == "gateway" or kind.api != "openai":
            continue
        found = target(fleet, here, name)
        if found.view.served_name is not None:
            yield found


def address(fleet: Fleet, here: str, runtime: str, found: Target) -> tuple[str, int]:
    """Host and port at which a gateway with this runtime on the machine here reaches a service.

    Raises FleetError (code USAGE) when it cannot.
    """
    view = found.view
    if view.port is None:
        raise FleetError(f"{found.id} has no port", "give it a port", code=USAGE)
    loopback = view.bind.startswith("127.") or view.bind == "::1"
    anywhere = view.bind in {"0.0.0.0", "::"}
    if found.machine == here:
        if runtime != "compose":
            return ("127.0.0.1" if anywhere else view.bind), view.port
        if view.runtime == "compose":
            # Inside the project's network a service's name is its host name.
            assert view.kind.compose is not None
            return view.name, view.kind.compose.port
        if loopback:
            raise FleetError(
                f"{found.id} listens on {view.bind}, which the gateway's container cannot reach",
                "run the gateway with runtime: systemd, or give the service bind: with an "
                "address of the machine",
                code=USAGE,
            )
    elif loopback:
        raise FleetError(
            f"{found.id} listens on {view.bind}, which only {found.machine} itself reaches",
            f"give it bind: with an address of {found.machine} that {here} reaches",
            code=USAGE,
        )
    if not anywhere:
        return view.bind, view.port
    machine = fleet.machines[found.machine]
    host = machine.site_address or machine.address
    if host is None:
        raise FleetError(
            f"{found.id} listens on {view.bind}, and {found.machine} has no address to reach it at",
            "give it bind: with an address of the machine",
            code=USAGE,
        )
    # A login or a port in it is ssh's. Loaded here because it takes long.
    from inferfleet.hosts import config

    return config.Target.parse(host).alias, view.port
