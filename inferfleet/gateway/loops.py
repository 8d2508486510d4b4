"""Routes that lead back to the gateway they belong to, over any number of machines; pure."""

from __future__ import annotations

from collections.abc import Iterator

from inferfleet.schema.fleet import Fleet
from inferfleet.schema.unreadable import known

# A machine and one of its gateways.
Place = tuple[str, str]


def way_back(fleet: Fleet, own: Place, first: Place) -> list[str] | None:
    """MACHINE/SERVICE of every gateway on the shortest way from own over first to own."""
    ways: list[list[Place]] = [[own, first]]
    seen = {first}
    while ways:
        way = ways.pop(0)
        if way[-1] == own:
            return ["/".join(place) for place in way]
        for following in routed(fleet, way[-1]):
            if following == own or following not in seen:
                seen.add(following)
                ways.append([*way, following])
    return None


def routed(fleet: Fleet, place: Place) -> Iterator[Place]:
    """The gateways that a gateway routes to, as far as its file can be read."""
    for ref in known(_refs, fleet, place) or ():
        machine, _, service = ref.rpartition("/")
        following = (machine or place[0], service)
        if known(is_gateway, fleet, following):
            yield following


def is_gateway(fleet: Fleet, place: Place) -> bool:
    """Whether there is a service of this name that is a gateway."""
    machine = fleet.machines.get(place[0])
    service = machine.services.get(place[1]) if machine else None
    kind = fleet.kinds.get(service.kind) if service else None
    return kind is not None and kind.renders == "gateway"


def _refs(fleet: Fleet, place: Place) -> list[str]:
    # Without routes it offers the services of its machine, never a gateway.
    gateway = fleet.machines[place[0]].services[place[1]].gateway
    routes = gateway.routes if gateway else None
    return [one.service for route in (routes or {}).values() for one in route.to]
