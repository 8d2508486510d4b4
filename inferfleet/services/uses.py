"""What of a service its kind has a use for: a model in the right form, and sections; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from inferfleet.errors import FleetError
from inferfleet.models.forms import WORDS, forms
from inferfleet.models.need import ModelNeed, Source
from inferfleet.models.needs import model_need
from inferfleet.models.ollama import full_name
from inferfleet.models.sources.source import source_text
from inferfleet.names import nearest
from inferfleet.schema.kind import Kind, ModelUse
from inferfleet.schema.machine import ModelSpec, Service
from inferfleet.schema.unreadable import known
from inferfleet.schema.view import View

_ANYWHERE = "/models"


def check_uses(view: View, name: str, service: Service, kind: Kind) -> Iterator[FleetError]:
    """Keys that the kind would ignore in silence, and a model that it cannot load."""
    path = ("services", name)
    if kind.model is None:
        for key in ("model", "served_name"):
            if getattr(service, key) is not None:
                yield _no_model(view, (*path, key.replace("_", "-")), service, kind)
    elif service.model is None:
        if kind.model.required:
            what = f"has no model, and kind {service.kind} needs one"
            hint = f"add model: {' or '.join(WORDS[form] for form in kind.model.takes)}"
            yield view.error(path, what, hint.removesuffix(": "), key=True)
        elif service.modelfile is not None and "modelfile" in kind.sections:
            what = "changes a model, and the service names none"
            yield view.error((*path, "modelfile"), what, "add model", key=True)
        if service.served_name is not None and not kind.model.required:
            what = "names a model, and the service has none"
            yield view.error((*path, "served-name"), what, "add model", key=True)
    else:
        yield from _form(view, name, service, kind.model)
    for section in ("modelfile", "repository", "gateway", "options"):
        if getattr(service, section) and section not in kind.sections:
            what = f"kind {service.kind} has no use for it"
            yield view.error((*path, section), what, _for_section(view, section), key=True)
    if kind.needs and not any(
        _has(service, key) or _meant(service, kind, key) for key in kind.needs
    ):
        what = f"kind {service.kind} needs one of {', '.join(kind.needs)}"
        yield view.error(path, what, f"add {kind.needs[0]}", key=True)


def _no_model(view: View, path: tuple[str, ...], service: Service, kind: Kind) -> FleetError:
    what = f"kind {service.kind} serves no model of its own"
    if kind.needs:
        return view.error(path, what, f"use {' or '.join(kind.needs)}", key=True)
    kinds = view.fleet.kinds
    takers = sorted(_kinds(kinds, lambda other: other.model is not None and other.api == kind.api))
    hint = f"remove it; kinds with a model: {', '.join(takers)}" if takers else "remove it"
    return view.error(path, what, hint, key=True)


def _form(view: View, name: str, service: Service, use: ModelUse) -> Iterator[FleetError]:
    try:
        need = model_need(name, service.model, use.bare, _ANYWHERE, view.fleet.models)
    except FleetError:
        return  # told where the model is checked
    assert need is not None
    yield from _own_name(view, name, service, need)
    told = wrong_form(view.fleet.kinds, service.kind, need.source)
    if told:
        spec = isinstance(service.model, ModelSpec)
        yield view.error(("services", name, "model", *(("source",) if spec else ())), *told)


def wrong_form(kinds: Mapping[str, Kind], name: str, source: Source) -> tuple[str, str] | None:
    """Why a kind cannot load a model of this source, and which can; None: it can."""
    kind, found = kinds[name], forms(source)
    if kind.model is None:
        return f"kind {name} serves no model of its own", _other_kind(kinds, kind, source, found)
    takes = kind.model.takes
    if not takes or found & set(takes):
        return None
    wanted = " or ".join(WORDS[form] for form in takes)
    what = f"kind {name} takes {wanted}, and {source_text(source)} is {WORDS[min(found)]}"
    return what, _other_kind(kinds, kind, source, found)


def _own_name(view: View, name: str, service: Service, need: ModelNeed) -> Iterator[FleetError]:
    """What a Modelfile changes is another model for Ollama, with another name."""
    changes = service.modelfile
    if changes is None or need.source.scheme != "ollama":
        return
    called = service.served_name or need.served_name
    same = called is None or full_name(called) == full_name(need.source.name)
    if same and (changes.parameters or changes.system or changes.template):
        what = "makes a model of its own, which needs a name of its own"
        hint = f"add served-name, a name other than {need.source.name}"
        yield view.error(("services", name, "modelfile"), what, hint, key=True)


def _other_kind(
    kinds: Mapping[str, Kind], kind: Kind, source: Source, found: frozenset[str]
) -> str:
    """How to name the right thing of the same source, and which kinds take this one."""
    takers = takers_of(kinds, found, kind.api)
    hints = []
    if source.scheme == "hf" and not source.member and kind.model and "gguf" in kind.model.takes:
        hints.append(f"name one file of it, as {source_text(source)}/NAME.gguf")
    if takers:
        hints.append(f"it is for kind {' or '.join(takers)}")
    return "; ".join(hints)


def takers_of(kinds: Mapping[str, Kind], found: frozenset[str], api: str = "") -> list[str]:
    """The best kinds for such a model: those whose own form it is first, then those of the API."""

    def rank(name: str) -> tuple[bool, bool, bool]:
        other = kinds[name]
        assert other.model is not None
        return (other.notice is not None, other.model.takes[0] not in found, other.api != api)

    names = _kinds(kinds, lambda o: o.model is not None and bool(found & set(o.model.takes)))
    best = min((rank(name) for name in names), default=None)
    return sorted(name for name in names if rank(name) == best)


def _for_section(view: View, section: str) -> str:
    if section == "options":
        return "its settings are environment variables: use env"
    takers = sorted(_kinds(view.fleet.kinds, lambda kind: section in kind.sections))
    return f"remove it; it is for kind {' and '.join(takers)}" if takers else "remove it"


def _kinds(kinds: Mapping[str, Kind], fits: Callable[[Kind], bool]) -> list[str]:
    """The kinds that fit, as far as their files can be read."""
    return [name for name, kind in kinds.items() if known(fits, kind)]


def _has(service: Service, key: str) -> bool:
    section, _, name = key.partition(".")
    value = getattr(service, section.replace("-", "_"))
    return name in value if name else bool(value)


def _meant(service: Service, kind: Kind, key: str) -> bool:
    """Whether an unknown option is written that is most like this, which is told where it is."""
    section, _, name = key.partition(".")
    known = set(kind.options_known or ())
    free = known - set(kind.options_managed)
    return section == "options" and any(
        flag not in known and nearest(flag, free) == name for flag in service.options
    )
