"""What rendering a service would refuse for reasons of the files alone, told at its place; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ParamSpec

from inferfleet.errors import FleetError
from inferfleet.escape import modelfile_value, nginx_value, systemd_environment, systemd_mount
from inferfleet.models.needs import model_need
from inferfleet.schema.fields import Option
from inferfleet.schema.kind import Kind
from inferfleet.schema.machine import Service
from inferfleet.schema.nodes import dotted
from inferfleet.schema.unreadable import readable
from inferfleet.schema.view import View
from inferfleet.services.argv import flags, merge_options, text
from inferfleet.services.inside import Inside, inside_of, placed
from inferfleet.services.pbtxt import message

_ANYWHERE = "/opt/inferbase"
At = tuple[str | int, ...]
P = ParamSpec("P")


def check_refused(view: View, name: str, service: Service, kind: Kind) -> Iterator[FleetError]:
    """Every value of a service that cannot be written where it must stand."""
    runtime = view.runtime(service)
    yield from readable(_options(view, name, service, kind))
    if runtime == "systemd":
        yield from readable(_unit(view, name, service, kind))
    if service.modelfile is not None:
        yield from readable(_modelfile(view, name, service))
    for model, entry in service.repository.items():
        at: At = ("repository", model, "config")
        if not isinstance(entry.config, str):
            yield from _tried(view, name, at, message, entry.config, dotted(at))
    if kind.renders == "gateway" and runtime != "compose":
        try:
            nginx_value(view.machine.root)
        except FleetError as error:
            yield view.error(("root",), error.what, error.hint)


def _options(view: View, name: str, service: Service, kind: Kind) -> Iterator[FleetError]:
    runtime = view.runtime(service)
    if not service.options or runtime not in kind.runtimes:
        return
    models = f"{_ANYWHERE}/models"
    try:
        need = model_need(name, service.model, kind.model_scheme, models, view.fleet.models)
    except FleetError:
        return  # told where it is wrong
    if need is None and kind.model_required:
        return
    inside = inside_of(name, service, kind, runtime, need, _ANYWHERE, models)
    for option, value in service.options.items():
        chosen = merge_options({}, {option: value})
        yield from _tried(view, name, ("options", option), _words, inside, chosen, kind)


def _words(inside: Inside, chosen: dict[str, Option], kind: Kind) -> None:
    """The words of some options, as resolve would make them."""
    flags(placed(chosen, kind, inside), kind.options)


def _unit(view: View, name: str, service: Service, kind: Kind) -> Iterator[FleetError]:
    if service.program is not None and not service.program.startswith("/"):
        what = "is not an absolute path, which a systemd unit needs"
        yield view.error(("services", name, "program"), what)
    for variable, value in service.env.items():
        said = text(value)
        yield from _tried(view, name, ("env", variable), systemd_environment, variable, said)
    for index, volume in enumerate(service.volumes):
        source, target = volume.source, volume.target
        yield from _tried(view, name, ("volumes", index), systemd_mount, source, target)


def _modelfile(view: View, name: str, service: Service) -> Iterator[FleetError]:
    assert service.modelfile is not None
    for key in ("system", "template"):
        value = getattr(service.modelfile, key)
        if value is not None:
            yield from _tried(view, name, ("modelfile", key), modelfile_value, value)
    for parameter, given in service.modelfile.parameters.items():
        at: At = ("modelfile", "parameters", parameter)
        for one in given if isinstance(given, list) else [given]:
            yield from _tried(view, name, at, modelfile_value, one)


def _tried(
    view: View, name: str, at: At, act: Callable[P, object], *args: P.args, **kwargs: P.kwargs
) -> Iterator[FleetError]:
    """What act refuses, as a mistake at this place of the service."""
    try:
        act(*args, **kwargs)
    except FleetError as error:
        what = error.what.removeprefix(f"{name}: ")
        yield view.error(("services", name, *at), what, error.hint)
