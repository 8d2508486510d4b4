"""Mistakes about models that show before any connection, each with its place; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from inferfleet.errors import USAGE, FleetError, Where
from inferfleet.models.need import ModelNeed
from inferfleet.models.needs import model_need
from inferfleet.schema.fleet import Fleet
from inferfleet.schema.machine import ModelSpec, Service
from inferfleet.schema.nodes import dotted
from inferfleet.schema.unreadable import readable
from inferfleet.schema.view import Locate, View

# Any absolute path does: only what is said of models is checked here.
_ANYWHERE = "/models"


def check_models(fleet: Fleet, locate: Locate) -> Iterator[FleetError]:
    """What is wrong inside a model file, also of one that no service names."""
    for name in fleet.models:
        yield from readable(_model(fleet, name, locate))


def check_service_models(view: View) -> Iterator[FleetError]:
    """What is wrong with the models of one machine's services."""
    claims: dict[str, _Claim] = {}
    for name, service in view.machine.services.items():
        yield from readable(_service(view, name, service, claims))


def _model(fleet: Fleet, name: str, locate: Locate) -> Iterator[FleetError]:
    model = fleet.models[name]
    try:
        model_need(name, name, None, _ANYWHERE, {name: model})
    except FleetError as error:
        path = _at(error, model.model_fields_set)
        yield _placed(error, path, locate("model", name, *path))


def _service(
    view: View, name: str, service: Service, claims: dict[str, _Claim]
) -> Iterator[FleetError]:
    source = _source(service)
    if source is None or (source in view.fleet.models and _broken(view.fleet, source)):
        return
    try:
        need = model_need(name, service.model, _scheme(view, service), _ANYWHERE,
                          view.fleet.models)  # fmt: skip
    except FleetError as error:
        path: tuple[str, ...] = ("services", name, "model")
        keys = service.model.model_fields_set if isinstance(service.model, ModelSpec) else ()
        path = (*path, *_at(error, keys))
        yield _placed(error, path, view.locate("machine", view.name, *path))
        return
    assert need is not None
    yield from _claimed(view, name, need, claims)


@dataclass(frozen=True)
class _Claim:
    """Who has an alias first: the model and the alias' own files, and where that stands."""

    what: tuple[str, str, Mapping[str, str]]
    service: str
    where: Where


def _claimed(
    view: View, service: str, need: ModelNeed, claims: dict[str, _Claim]
) -> Iterator[FleetError]:
    for directory, own in need.aliases.items():
        alias = directory.removeprefix(f"{_ANYWHERE}/")
        where = _alias_place(view, service, need, alias)
        what = (need.key, need.source.name if not need.directory else "", own)
        first = claims.setdefault(alias, _Claim(what, service, where))
        if first.what == what:
            continue
        why = "for another model" if first.what[:2] != what[:2] else "with other files of its own"
        yield FleetError(
            f"services.{service}.model: the alias {alias} is also claimed by {first.service} "
            f"{why} ({first.where})",
            "give one of them another alias",
            where,
            USAGE,
        )


def _alias_place(view: View, service: str, need: ModelNeed, alias: str) -> Where:
    if need.declared:
        return view.locate("model", need.declared, "aliases", alias, key=True)
    return view.locate("machine", view.name, "services", service, "model", "alias")


def _placed(error: FleetError, path: tuple[str, ...], where: Where) -> FleetError:
    return FleetError(f"{dotted(path)}: {error.what}", error.hint, where, USAGE)


def _at(error: FleetError, keys: object) -> tuple[str, ...]:
    """The key that an error speaks of, if it was written."""
    written = keys if isinstance(keys, set) else set()
    words = error.what.replace(":", " ").replace("'", " ").split()
    for key in ("revision", "files", "sha256", "checksums", "aliases", "alias", "extra"):
        if key in words and key in written:
            return (key,)
    if "alias" in words and "aliases" in written:
        return ("aliases",)
    return ("source",) if "source" in written else ()


def _source(service: Service) -> str | None:
    spec = service.model
    return spec.source if isinstance(spec, ModelSpec) else spec


def _scheme(view: View, service: Service) -> str | None:
    kind = view.kind(service)
    return kind.model_scheme if kind else None


def _broken(fleet: Fleet, name: str) -> bool:
    """Whether the model file itself is wrong, which is told where it stands."""
    try:
        model_need(name, name, None, _ANYWHERE, fleet.models)
    except FleetError:
        return True
    return False
