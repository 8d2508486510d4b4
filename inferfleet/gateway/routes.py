"""Which models a gateway offers, its own routes or those of its machine; pure but for prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from inferfleet.errors import USAGE, FleetError
from inferfleet.gateway.targets import Target, adapters, check_model, neighbours, target
from inferfleet.names import name_hint
from inferfleet.schema.fleet import Fleet
from inferfleet.schema.gateway import Gateway, Route, SystemPrompt
from inferfleet.schema.unreadable import UnreadableError

PROMPT = "system_prompt.txt"
At = tuple[str | int, ...]


@dataclass(frozen=True)
class Offer:
    """A model that clients can ask for. at: the key of the gateway that says so."""

    name: str
    targets: tuple[Target, ...]
    aliases: tuple[str, ...] = ()
    system: str | None = None
    strategy: str = "least-busy"
    timeout: int = 600
    at: At = ()


@dataclass
class Offers:
    """What a gateway offers, and what of it cannot be: (key below gateway, mistake).

    unread: some of what it offers could not be read.
    """

    offers: list[Offer] = field(default_factory=list)
    problems: list[tuple[At, FleetError]] = field(default_factory=list)
    unread: bool = False


def offers(fleet: Fleet, here: str, gateway: Gateway) -> Offers:
    """The models of a gateway on the machine here, with every mistake in them."""
    found = Offers()
    if gateway.routes is None:
        _by_default(fleet, here, found)
    else:
        for name, route in gateway.routes.items():
            _routed(fleet, here, name, route, found)
    _names_once(found)
    return found


def _routed(fleet: Fleet, here: str, name: str, route: Route, found: Offers) -> None:
    targets: list[Target] = []
    at: At = ("routes", name)
    for index, wanted in enumerate(route.to):
        try:
            one = replace(target(fleet, here, wanted.service), model=wanted.model)
        except FleetError as error:
            found.problems.append(((*at, "to", index), error))
            continue
        except UnreadableError:
            found.unread = True
            continue
        if wanted.model is not None:
            try:
                check_model(one, wanted.model)
            except FleetError as error:
                found.problems.append(((*at, "to", index, "model"), error))
        if any(one.id == other.id for other in targets):
            twice = FleetError(f"{one.id} stands here twice", "name each service once", code=USAGE)
            found.problems.append(((*at, "to", index), twice))
        else:
            targets.append(one)
    system = None
    if route.system_prompt is not None:
        try:
            system = _prompt(fleet, route.system_prompt, targets)
        except FleetError as error:
            found.problems.append(((*at, "system-prompt"), error))
    if targets:
        found.offers.append(
            Offer(
                name,
                tuple(targets),
                tuple(route.aliases),
                system,
                route.strategy,
                route.timeout,
                at,
            )
        )


def _by_default(fleet: Fleet, here: str, found: Offers) -> None:
    by_name: dict[str, list[Target]] = {}
    aliases: dict[str, tuple[Target, str | None]] = {}
    tuned: dict[str, list[Target]] = {}
    try:
        for one in neighbours(fleet, here):
            assert one.view.served_name is not None
            by_name.setdefault(one.view.served_name, []).append(one)
            for alias, own in _alias_files(one).items():
                aliases.setdefault(alias, (one, own.get(PROMPT)))
            for adapter in adapters(one.view):
                tuned.setdefault(adapter, []).append(replace(one, model=adapter))
    except FleetError:
        return  # told where that service stands
    if not by_name:
        what = f"{here} has no OpenAI service to offer"
        found.problems.append(((), FleetError(what, "write routes:", code=USAGE)))
    for name, targets in by_name.items():
        found.offers.append(Offer(name, tuple(targets)))
    for alias, (one, system) in aliases.items():
        assert one.view.served_name is not None
        if alias not in by_name:
            same = tuple(by_name[one.view.served_name])
            found.offers.append(Offer(alias, same, system=system))
        elif not all(_same_model(one, other) for other in by_name[alias]):
            first = next(other for other in by_name[alias] if not _same_model(one, other))
            what = f"{alias} is an alias of {one.id}, and what {first.id} calls another model"
            hint = "give one of them another name, or write routes:"
            found.problems.append(((), FleetError(what, hint, code=USAGE)))
    _adapters(tuned, found)


def _adapters(tuned: Mapping[str, list[Target]], found: Offers) -> None:
    """LoRA adapters by their names, of services that have one model."""
    taken = {offer.name: offer.targets[0].id for offer in found.offers}
    for name, targets in tuned.items():
        first = targets[0]
        other = next((one for one in targets if not _same_model(first, one)), None)
        if name in taken:
            what = f"{name} is an adapter of {first.id}, and a model of {taken[name]}"
        elif other is not None:
            what = f"{name} is an adapter of {first.id} and of {other.id}, whose models differ"
        else:
            found.offers.append(Offer(name, tuple(targets)))
            continue
        hint = "give one of them another name, or write routes:"
        found.problems.append(((), FleetError(what, hint, code=USAGE)))


def _same_model(one: Target, other: Target) -> bool:
    first, second = one.view.need, other.view.need
    return first is not None and second is not None and first.key == second.key


def _names_once(found: Offers) -> None:
    taken: dict[str, Offer] = {}
    for offer in found.offers:
        for index, name in enumerate((offer.name, *offer.aliases)):
            other = taken.setdefault(name, offer)
            if index and name in offer.aliases[: index - 1]:
                twice = FleetError(f"{name} stands here twice", "name each alias once", code=USAGE)
                found.problems.append(((*offer.at, "aliases", index - 1), twice))
            elif index and (other is not offer or name == offer.name):
                what = f"{name} is also a name of {other.name}"
                at = (*offer.at, "aliases", index - 1)
                error = FleetError(what, "give each model names of its own", code=USAGE)
                found.problems.append((at, error))
    names = {offer.name: offer for offer in found.offers}
    for offer in found.offers:
        other = taken[offer.name]
        if other is not offer:
            # An alias of a route that stands before it.
            index = other.aliases.index(offer.name)
            what = f"{offer.name} is also a model of its own"
            error = FleetError(what, "give each model names of its own", code=USAGE)
            found.problems.append(((*names[other.name].at, "aliases", index), error))


def _prompt(fleet: Fleet, wanted: SystemPrompt, targets: list[Target]) -> str:
    if wanted.text is not None:
        return wanted.text
    if wanted.file is not None:
        return _file(fleet, wanted.file)
    known: dict[str, Mapping[str, str]] = {}
    for one in targets:
        known.update(_alias_files(one))
    assert wanted.alias is not None
    if wanted.alias not in known:
        what = f"no service of the route has the alias directory {wanted.alias}"
        raise FleetError(what, name_hint(wanted.alias, known, "aliases"), code=USAGE)
    if PROMPT not in known[wanted.alias]:
        hint = "write it beside the alias, where its model is described"
        raise FleetError(f"the alias {wanted.alias} has no {PROMPT}", hint, code=USAGE)
    return known[wanted.alias][PROMPT].rstrip("\n")


def _file(fleet: Fleet, name: str) -> str:
    for folder in fleet.inventory_dirs:
        path = folder / name
        if path.is_file():
            return _text(path)
    where = " or ".join(str(folder) for folder in fleet.inventory_dirs)
    raise FleetError(f"there is no file {name} in {where}", "write the prompt there", code=USAGE)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise FleetError(f"{path} cannot be read: {reason}", "", code=USAGE) from None


def _alias_files(one: Target) -> dict[str, Mapping[str, str]]:
    """The alias directories of a service's model, with the texts that only they have."""
    need = one.view.need
    if need is None:
        return {}
    return {path.removeprefix(f"{one.view.models}/"): files for path, files in need.aliases.items()}


def upstreams(found: Offers) -> Iterator[Target]:
    """Each service once, in the order of the routes."""
    seen: set[str] = set()
    for offer in found.offers:
        for one in offer.targets:
            if one.id not in seen:
                seen.add(one.id)
                yield one
