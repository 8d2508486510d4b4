"""A service that stands in no file, of which `capacity` is asked: its model, kind and options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inferfleet.errors import USAGE, FleetError
from inferfleet.load.yaml12 import scalar
from inferfleet.models.forms import WORDS, forms
from inferfleet.models.need import ModelNeed, Source
from inferfleet.models.needs import model_need
from inferfleet.models.sources.source import source_text
from inferfleet.names import name_hint
from inferfleet.services.argv import merge_options
from inferfleet.services.named import wrong_option
from inferfleet.services.parameters import wrong_parameter
from inferfleet.services.uses import takers_of, wrong_form
from inferfleet.services.values import wrong_value

if TYPE_CHECKING:
    from inferfleet.run.run import Run
    from inferfleet.schema.kind import Kind

# A comma ends an option only where another begins: JSON has commas of its own.
_COMMA = re.compile(r",(?=\s*[A-Za-z0-9][A-Za-z0-9._-]*(?:=|,|$))")
# Of several kinds for a model the one that is meant unless --kind says otherwise.
_USUAL = ("vllm", "llama-cpp", "ollama")


@dataclass(frozen=True)
class Asked:
    """What --model, --kind and --options say."""

    model: str
    kind: str = ""
    options: str = ""


def make_asked(
    run: Run, machine: str, asked: Asked, hardware: Mapping[str, Any]
) -> tuple[dict[str, Any], ModelNeed]:
    """The demand as make_budget would have it, and the model. Raises FleetError (code USAGE).

    Everything is checked that a machine file would be refused for.
    """
    kinds = run.fleet.kinds
    if asked.kind and asked.kind not in kinds:
        raise FleetError(
            f"--kind {asked.kind}: there is no such kind",
            hint=name_hint(asked.kind, kinds, "kinds"),
            code=USAGE,
        )
    models = run.brief(machine).models
    scheme = (kinds[asked.kind].model_scheme if asked.kind else None) or "hf"
    need = model_need(asked.model, asked.model, scheme, models, run.fleet.models)
    assert need is not None
    name = asked.kind or _kind_of(kinds, need.source)
    if told := wrong_form(kinds, name, need.source):
        raise FleetError(*told, code=USAGE)
    kind = kinds[name]
    runtime = run.fleet.machines[machine].runtime or kind.runtimes[0]
    own = _options(asked.options, name, kind, runtime == "compose")
    demand: dict[str, Any] = {
        "kind": name,
        "engine": kind.engine,
        "options": dict(merge_options(kind.options.defaults, own)),
        "env": {},
        "split": kind.options.gpus.model_dump() if kind.options.gpus else None,
        "memory": None,
        "estimate": kind.memory_estimate,
        "gpus": "all" if kind.gpu and hardware.get("gpus") else "none",
        "cpuset": None,
        "evict": "allowed",
        "admission": "refuse",
        "autostart": True,
        "volumes": [],
    }
    return demand, need


def _kind_of(kinds: Mapping[str, Kind], source: Source) -> str:
    """The kind that usually serves a model of such a source."""
    found = forms(source)
    takers = takers_of(kinds, found)
    if not takers:
        what = f"no kind takes {source_text(source)}, which is {WORDS[min(found)]}"
        raise FleetError(what, "name a directory of model files, or a GGUF file", code=USAGE)
    return min(takers, key=lambda name: _USUAL.index(name) if name in _USUAL else len(_USUAL))


def _options(text: str, name: str, kind: Kind, image: bool) -> dict[str, Any]:
    """'max-model-len=4096,enforce-eager' -> values as a machine file would have them."""
    found: dict[str, Any] = {}
    for word in filter(None, map(str.strip, _COMMA.split(text))):
        key, equals, value = word.partition("=")
        found[key] = scalar(value) if equals else True
        if told := _wrong(name, kind, key, found[key], image):
            raise FleetError(f"--options {key}: {told[0]}", told[1], code=USAGE)
    return found


def _wrong(name: str, kind: Kind, key: str, value: Any, image: bool) -> tuple[str, str] | None:
    """What is wrong with an option, or with a parameter of the Modelfile where it is one."""
    options, parameters, bare = kind.options, kind.parameters, kind.options.style == "none"
    if parameters is not None and (bare or key in parameters):
        return wrong_parameter(name, parameters, key, value)
    if bare:
        taken = "modelfile" in kind.sections
        return None if taken else (f"kind {name} takes no options", "leave --options out")
    if told := wrong_option(name, options, key, image):
        own = "leave it out; in a machine file " if key in options.managed else ""
        return told[0], own + told[1]
    rule = options.values.get(key.replace("_", "-"))
    wrong = wrong_value(value, rule) if rule is not None and value is not None else ""
    return (wrong, "correct it") if wrong else None
