"""What a service says of its model, with the model file that it names laid underneath; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from inferfleet.errors import USAGE, FleetError
from inferfleet.models.need import Source
from inferfleet.models.sources.source import parse_source, source_text
from inferfleet.names import name_hint

if TYPE_CHECKING:
    from inferfleet.schema.machine import ModelSpec
    from inferfleet.schema.model import DeclaredModel

_NAME = re.compile("[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True)
class Wanted:
    """declared: name of the model file, "" for a model that the service itself describes.
    aliases: by directory below the models directory, the texts of files of their own. loads:
    the alias that the engine is given, None for the model's own directory. shape: its config and
    weights, as the model file has them."""

    source: Source
    declared: str = ""
    sha256: str | None = None
    checksums: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    aliases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    loads: str | None = None
    served_name: str | None = None
    shape: Mapping[str, Any] | None = None


def wanted(
    spec: str | ModelSpec,
    default_scheme: str | None,
    declared: Mapping[str, DeclaredModel] | None = None,
) -> Wanted:
    """The model that a service means. Raises FleetError (code USAGE).

    A name of a model file comes before a source of the default scheme.
    """
    text = spec if isinstance(spec, str) else spec.source
    known = declared or {}
    if text in known:
        found = declared_model(text, known[text])
        return found if isinstance(spec, str) else _aliased(found, spec)
    if _NAME.fullmatch(text) and default_scheme != "ollama":
        raise FleetError(
            f"there is no model {text} in inventory/models",
            name_hint(text, known, "models") if known else "write a source such as hf:ORG/NAME",
            code=USAGE,
        )
    source = parse_source(text, default_scheme)
    if isinstance(spec, str):
        return Wanted(source)
    aliases = {} if spec.alias is None else {spec.alias: dict(spec.extra)}
    if spec.extra and spec.alias is None:
        raise refuse(source, "extra", "needs an alias, the directory these files stand in")
    files = tuple(spec.files or ())
    return Wanted(source, "", spec.sha256, {}, files, aliases, loads=spec.alias)


def declared_model(name: str, model: DeclaredModel) -> Wanted:
    """What a model file says; a source without a scheme is a repository of the hub."""
    source = parse_source(model.source, "hf")
    if model.revision is not None:
        if source.scheme != "hf":
            raise refuse(source, "revision", "is for a repository of the hub (hf:ORG/NAME)")
        if source.revision:
            raise refuse(source, "revision", "is in source already")
        source = replace(source, revision=model.revision)
    return Wanted(
        source,
        name,
        model.sha256,
        dict(model.checksums),
        tuple(model.files or ()),
        {alias: dict(own) for alias, own in model.aliases.items()},
        served_name=model.served_name,
        shape=model.shape.model_dump() if model.shape else None,
    )


def refuse(source: Source, key: str, why: str) -> FleetError:
    """A key that does not go with the rest of what is said of a model."""
    return FleetError(f"model {source_text(source)}: {key} {why}", f"remove {key}", code=USAGE)


def _aliased(found: Wanted, spec: ModelSpec) -> Wanted:
    """The declared model under one of its aliases."""
    for key in ("sha256", "files", "extra"):
        if getattr(spec, key):
            raise FleetError(
                f"model {found.declared}: {key} stands in inventory/models/{found.declared}.yaml",
                f"remove {key} here",
                code=USAGE,
            )
    if spec.alias is not None and spec.alias not in found.aliases:
        raise FleetError(
            f"model {found.declared} has no alias {spec.alias}",
            name_hint(spec.alias, found.aliases, "aliases"),
            code=USAGE,
        )
    return replace(found, loads=spec.alias)
