"""What the files of a gateway say: nginx.conf, gateway.json and its secrets; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from inferfleet.errors import USAGE, FleetError
from inferfleet.gateway.routes import Offer, offers, upstreams
from inferfleet.gateway.targets import Target, address
from inferfleet.release.draft import SecretLine
from inferfleet.schema.fleet import Fleet
from inferfleet.schema.gateway import Gateway
from inferfleet.schema.nodes import dotted
from inferfleet.services.resolve import Resolved

KEYS = "GATEWAY_KEYS"
# The one directory of the image in which anybody may write, and with it of a new volume there.
STATE = "/var/tmp"
# nginx loads these beside its own modules folder; in OpenResty they are built in.
MODULES = ("modules/ndk_http_module.so", "modules/ngx_http_lua_module.so")


def data(fleet: Fleet, here: str, view: Resolved, state: str) -> dict[str, Any]:
    """What stands in gateway.json: nothing secret. Raises FleetError (code USAGE)."""
    gateway = view.service.gateway or Gateway()
    found = offers(fleet, here, gateway)
    for at, error in found.problems:
        path = dotted(("services", view.name, "gateway", *at))
        raise FleetError(f"{here}: {path}: {error.what}", error.hint, code=USAGE)
    secrets = upstream_secrets(gateway, list(upstreams(found)))
    return {
        "state": state,
        "workers": gateway.workers,
        "routes": {
            offer.name: {
                "to": [one.id for one in offer.targets],
                **({"models": models} if (models := _models(offer)) else {}),
                "strategy": offer.strategy,
                "timeout": offer.timeout,
                **({"system": offer.system} if offer.system else {}),
            }
            for offer in found.offers
        },
        "aliases": {alias: offer.name for offer in found.offers for alias in offer.aliases},
        "upstreams": {
            one.id: _upstream(fleet, here, view.runtime, one, secrets) for one in upstreams(found)
        },
        "keys": [
            {
                "name": name,
                **({"rpm": key.rpm} if key.rpm else {}),
                **({"tpm": key.tpm} if key.tpm else {}),
                **({"budget": key.budget.model_dump()} if key.budget else {}),
                **(
                    {"models": _plain_names(found.offers, key.models)}
                    if key.models is not None
                    else {}
                ),
            }
            for name, key in gateway.keys.items()
        ],
    }


def _models(offer: Offer) -> dict[str, str]:
    """What services are asked for that is not the name they serve their model under."""
    return {one.id: one.model for one in offer.targets if one.model is not None}


def _plain_names(offered: list[Offer], models: list[str]) -> list[str]:
    """Models by their own names, where a key gives aliases."""
    plain = {name: offer.name for offer in offered for name in (offer.name, *offer.aliases)}
    return sorted({plain[name] for name in models if name in plain})


def _upstream(
    fleet: Fleet, here: str, runtime: str, one: Target, secrets: Mapping[str, str]
) -> dict[str, Any]:
    host, port = address(fleet, here, runtime, one)
    view = one.view
    found: dict[str, Any] = {
        "host": host,
        "port": port,
        "health": view.kind.health.path if view.kind.health else "/",
        "loading": view.service.start_timeout or view.kind.start_timeout,
    }
    if view.served_name is not None:
        found["model"] = view.served_name
    if one.id in secrets:
        found["key"] = _variable(secrets, one.id)
    return found


def upstream_secrets(gateway: Gateway, targets: list[Target]) -> dict[str, str]:
    """Service -> the secret of the gateway's machine that holds the key which it asks for."""
    found = {}
    for one in targets:
        name = gateway.service_keys.get(one.id) or one.view.key
        if name is not None:
            found[one.id] = name
    return found


def _variable(secrets: Mapping[str, str], one: str) -> str:
    return f"GATEWAY_SERVICE_KEY_{sorted(set(secrets.values())).index(secrets[one]) + 1}"


def gateway_secrets(fleet: Fleet, here: str, view: Resolved) -> list[SecretLine]:
    """The secrets of a gateway as variables: clients' keys as hashes only, services' as they are.

    None for a service of another kind.
    """
    if view.kind.renders != "gateway":
        return []
    gateway = view.service.gateway or Gateway()
    lines = []
    if gateway.keys:
        names = tuple(key.secret for key in gateway.keys.values())
        lines.append(SecretLine(KEYS, names, ",", hashed=True))
    secrets = upstream_secrets(gateway, list(upstreams(offers(fleet, here, gateway))))
    variables = {_variable(secrets, one): name for one, name in secrets.items()}
    lines += [SecretLine(variable, (variables[variable],)) for variable in sorted(variables)]
    return lines


def gateway_values(fleet: Fleet, here: str, view: Resolved) -> dict[str, Any]:
    """What the templates of a gateway's files print; nothing for a service of another kind.

    Raises FleetError (code USAGE).
    """
    if view.kind.renders != "gateway":
        return {}
    gateway = view.service.gateway or Gateway()
    container = view.runtime == "compose"
    # A process has one folder of its own, in which its supervisor keeps its notes too.
    own = f"{view.root}/.inferbase/run/{view.name}"
    state = {"compose": STATE, "systemd": f"/var/lib/{view.unit}"}.get(view.runtime, own)
    host, port = view.bind, view.port
    if container:
        assert view.kind.compose is not None
        host, port = "0.0.0.0", view.kind.compose.port
    return {
        "modules": () if container else MODULES,
        "process": view.runtime == "process",
        "workers": gateway.workers,
        "largest": gateway.largest_request,
        "files": view.inside.files,
        "temporary": own if view.runtime == "process" else "/tmp",
        "listen": f"{f'[{host}]' if ':' in host else host}:{port}",
        "data": json.dumps(data(fleet, here, view, state), indent=1) + "\n",
    }
