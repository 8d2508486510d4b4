"""What cannot be in a gateway's settings, each mistake with its place; pure but for prompts."""

from __future__ import annotations

from collections.abc import Iterator

from inferfleet.errors import FleetError
from inferfleet.gateway.files import upstream_secrets
from inferfleet.gateway.loops import is_gateway, way_back
from inferfleet.gateway.routes import At, Offers, offers, upstreams
from inferfleet.gateway.targets import address
from inferfleet.models.need import ModelNeed
from inferfleet.models.needs import model_need
from inferfleet.names import name_hint
from inferfleet.schema.gateway import Gateway
from inferfleet.schema.machine import Service
from inferfleet.schema.unreadable import known, readable
from inferfleet.schema.view import View
from inferfleet.services.resolve import served_name

_MODELS = "/models"  # any absolute path does


def check_gateways(view: View) -> Iterator[FleetError]:
    """The gateways of a machine, and names that two of its services claim."""
    yield from _served_names(view)
    for name, service in view.machine.services.items():
        if known(is_gateway, view.fleet, (view.name, name)):
            yield from readable(_loops(view, name))
            yield from readable(_gateway(view, name, service))


def _loops(view: View, name: str) -> Iterator[FleetError]:
    """Routes over which a request would come back."""
    gateway = view.machine.services[name].gateway
    for model, route in ((gateway and gateway.routes) or {}).items():
        for index, one in enumerate(route.to):
            machine, _, service = one.service.rpartition("/")
            first = (machine or view.name, service)
            if not known(is_gateway, view.fleet, first):
                continue
            if way := way_back(view.fleet, (view.name, name), first):
                path = ("services", name, "gateway", "routes", model, "to", index)
                what = f"leads back to this gateway: {' -> '.join(way)}"
                yield view.error(path, what, "route to an engine, or to a gateway further on")


def _gateway(view: View, name: str, service: Service) -> Iterator[FleetError]:
    base = ("services", name, "gateway")
    gateway = service.gateway or Gateway()
    found = offers(view.fleet, view.name, gateway)
    for at, error in found.problems:
        yield view.error((*base, *at), error.what, error.hint)
    yield from _reached(view, base, service, found)
    yield from _keys(view, base, gateway, found)
    ids = [one.id for one in upstreams(found)]
    for ref in gateway.service_keys:
        if ref not in ids and not found.unread:
            what = "no route leads to this service"
            at = (*base, "service-keys", ref)
            yield view.error(at, what, name_hint(ref, ids, "services"), key=True)
    for one, secret in upstream_secrets(gateway, list(upstreams(found))).items():
        if secret not in view.machine.secrets:
            what = f"{one} asks for the key {secret}, which this machine has no secret for"
            hint = f"add {secret} to the machine's secrets, or name another under service-keys"
            yield view.error((*base, *_at(found, one)), what, hint)


def _at(found: Offers, service: str) -> At:
    """The place of the route that leads to a service first."""
    for offer in found.offers:
        for index, one in enumerate(offer.targets):
            if one.id == service:
                return (*offer.at, "to", index) if offer.at else ()
    return ()


def _reached(view: View, base: At, service: Service, found: Offers) -> Iterator[FleetError]:
    runtime = view.runtime(service)
    for one in upstreams(found):
        try:
            address(view.fleet, view.name, runtime or "", one)
        except FleetError as error:
            yield view.error((*base, *_at(found, one.id)), error.what, error.hint)


def _keys(view: View, base: At, gateway: Gateway, found: Offers) -> Iterator[FleetError]:
    models = {name for offer in found.offers for name in (offer.name, *offer.aliases)}
    users: dict[str, str] = {}
    for name, key in gateway.keys.items():
        at = (*base, "keys", name)
        if key.secret not in view.machine.secrets:
            what = f"the machine has no secret {key.secret}"
            hint = name_hint(key.secret, view.machine.secrets, "secrets")
            yield view.error((*at, "secret"), what, hint)
        elif key.secret in users:
            what = f"{key.secret} is also the key of {users[key.secret]}"
            yield view.error((*at, "secret"), what, "give each a key of its own")
        users.setdefault(key.secret, name)
        for index, model in enumerate(key.models or ()):
            if model not in models and not found.problems and not found.unread:
                what = f"the gateway offers no model {model}"
                hint = name_hint(model, models, "models")
                yield view.error((*at, "models", index), what, hint)


def _served_names(view: View) -> Iterator[FleetError]:
    """Two services of one API that give clients different models under one name."""
    first: dict[tuple[str, str], tuple[str, ModelNeed]] = {}
    for name, service in view.machine.services.items():
        found = known(_called, view, name, service)
        if found is None:
            continue
        api, called, model = found
        other, need = first.setdefault((api, called), (name, model))
        if _identity(need) != _identity(model):
            what = f"{called} is also what {other} calls another model"
            at = ("services", name, "served-name")
            yield view.error(at, what, "give one of them another served-name")


def _called(view: View, name: str, service: Service) -> tuple[str, str, ModelNeed] | None:
    """A service's API, the name that clients ask there for, and the model they get."""
    kind = view.kind(service)
    if kind is None:
        return None
    try:
        need = model_need(name, service.model, kind.model_scheme, _MODELS, view.fleet.models)
    except FleetError:
        return None  # told where it is wrong
    called = served_name(service, need)
    return (kind.api, called, need) if need and called else None


def _identity(need: ModelNeed) -> tuple[str, str]:
    return need.key, need.source.name
