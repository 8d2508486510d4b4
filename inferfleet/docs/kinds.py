"""A reference page for each kind of service, out of its file in services/."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from inferfleet.docs.kindoptions import known, options
from inferfleet.docs.kindruns import environment, runtimes
from inferfleet.docs.text import NOTE, amount, block, part, span, spans, table, text, wrapped
from inferfleet.models.forms import WORDS
from inferfleet.schema.fleet import Fleet
from inferfleet.schema.kind import Kind, Wire

FOLDER = "kinds"
_APIS = {
    "openai": "OpenAI's, below /v1",
    "ollama": "Ollama's",
    "web": "pages for browsers",
    "http": "its own, over HTTP",
}
_PROBES = {
    "openai-chat": "one token of a chat",
    "openai-completion": "one token of a completion",
    "openai-embedding": "one embedding",
    "ollama-generate": "one token",
    "http": "the URLs above alone",
}
_BARE = {"hf": "a repository of the hub (`hf:`)", "ollama": "a model of Ollama (`ollama:`)"}
# A model in each form, for the examples.
_MODELS = {
    "directory": "hf:Qwen/Qwen3-8B-FP8",
    "gguf": "hf:Qwen/Qwen3-14B-GGUF/Qwen3-14B-Q4_K_M.gguf",
    "ollama": "ollama:qwen3:32b",
}
_NEEDS: Mapping[str, Any] = {"repository": {"detector": {"versions": {"1": "/srv/detector/1"}}}}


def kind_pages(fleet: Fleet) -> dict[str, str]:
    """FOLDER/NAME.md -> its text, for every kind."""
    return {f"{FOLDER}/{name}.md": _page(fleet, name) for name in sorted(fleet.kinds)}


def example(fleet: Fleet, name: str) -> str:
    """A machine file with one service of the kind, and little that could be left out."""
    kind = fleet.kinds[name]
    services = {name: _service(name, kind)}
    if kind.renders == "gateway":
        behind = next(n for n, k in sorted(fleet.kinds.items()) if k.model and k.api == kind.api)
        services = {behind: _service(behind, fleet.kinds[behind]), **services}
    machine: dict[str, Any] = {"address": "lab.example.org"}
    if needed := [secret for secret, use in kind.secrets.items() if use.required]:
        machine["secrets"] = {secret: {"env": secret} for secret in needed}
    found: str = yaml.safe_dump(
        {**machine, "services": services}, sort_keys=False, default_flow_style=None, width=96
    )
    return found


def _service(name: str, kind: Kind) -> dict[str, Any]:
    service: dict[str, Any] = {"kind": name}
    if kind.model:
        form = kind.model.takes[0] if kind.model.takes else "directory"
        model = _MODELS[form]
        service["model"] = model.removeprefix(f"{kind.model.bare}:")
    if kind.needs:
        section, _, option = kind.needs[0].partition(".")
        service[section] = {option: "/srv/data"} if option else _NEEDS[section]
    return service


def _page(fleet: Fleet, name: str) -> str:
    kind = fleet.kinds[name]
    lines = [f"# {name}", NOTE, "", *wrapped(f"{kind.summary}."), ""]
    if kind.notice:
        lines += [*wrapped(f"{kind.notice}."), ""]
    lines += [
        *wrapped(
            f"Written in `services/{name}.yaml`, whose keys are those of [the kind file]"
            "(../kind.md). A service of the kind has `kind: "
            f"{name}` and the keys of [a service](../machine.md#servicesname)."
        ),
        *part("Example", block("yaml", example(fleet, name))),
        *part("Facts", table(["what", "value"], list(_facts(kind)))),
        *part("Health and metrics", table(["what", "value"], list(_health(kind)))),
        *part("Secrets", _secrets(kind)),
        *part("Neighbours", _wires(kind)),
        *runtimes(kind),
        *part("Environment", environment(kind)),
        *part("Files", _files(kind)),
        *part("Options", options(kind)),
        *part("Parameters of a modelfile", _parameters(kind)),
        *part("Failures that are recognised", _failures(kind)),
        *part("Options that it knows", known(kind)),
    ]
    return text(lines)


def _facts(kind: Kind) -> Iterator[list[Any]]:
    yield ["API", _APIS[kind.api]]
    port = kind.default_port or "has to be set"
    yield ["port", f"{port}, unless `port:` says other; on 127.0.0.1, unless `bind:` does"]
    for name, more in (kind.compose.ports if kind.compose else {}).items():
        yield [f"port {name}", f"{more.default}, unless `ports:` says other"]
    yield ["runtimes", ", ".join(kind.runtimes)]
    if engine := getattr(kind, "engine", None):
        yield ["engine", f"{engine}, as `capacity` knows it"]
    if kind.model is None:
        yield ["model", "none"]
    else:
        forms = " or ".join(WORDS[form] for form in kind.model.takes) or "any form"
        yield ["model", f"{'required' if kind.model.required else 'optional'}: {forms}"]
        if kind.model.bare:
            yield ["a name without a scheme", _BARE[kind.model.bare]]
    if kind.needs:
        yield ["needs one of", spans(kind.needs)]
    yield ["sections of its own", spans(sorted(kind.sections)) or "none"]
    yield ["GPUs", "all of the machine, unless `gpus:` says other" if kind.gpu else "none"]
    if kind.memory_estimate:
        yield ["main memory", f"about {amount(kind.memory_estimate)}; an estimate"]
    if kind.login:
        yield ["accounts", "its own"]
    yield ["start-timeout", span(kind.start_timeout)]


def _health(kind: Kind) -> Iterator[list[Any]]:
    if health := kind.health:
        loading = f"; {', '.join(map(str, health.loading))}: not yet" if health.loading else ""
        yield ["health URL", f"`{health.path}`{loading}"]
        if health.page:
            yield ["also has to answer", f"`{health.page}`"]
    yield ["ready when there is", _PROBES[kind.probe]]
    for when in kind.probe_when:
        value = str(when.value).lower() if isinstance(when.value, bool) else when.value
        yield [f"ready with `{when.option}: {value}`", _PROBES[when.probe]]
    if kind.health and kind.probe != "http":
        yield ["deadline of one token", span(kind.health.deadline)]
    if metrics := kind.metrics:
        where = f" on the port {metrics.port}" if metrics.port else ""
        yield ["metrics", f"`{metrics.path}`{where}"]
        if metrics.tokens:
            yield ["counter of tokens", f"`{metrics.tokens}`"]
        if metrics.progress:
            yield ["grow while it works", spans(metrics.progress)]
        if metrics.running:
            yield ["requests at work or queued", spans(metrics.running)]


def _secrets(kind: Kind) -> list[str]:
    rows = []
    for name, use in kind.secrets.items():
        what = use.summary or ("key that clients send" if use.api_key else "-")
        rows.append([f"`{name}`", f"`{use.env}`", "yes" if use.required else "no", what])
    told = wrapped(
        "Where they come from stands in `secrets:` of the machine; `secrets:` of the service names "
        "those that it gets besides the required ones."
    )
    return [*told, *table(["name", "variable", "required", "what for"], rows)] if rows else []


def _wires(kind: Kind) -> list[str]:
    rows = [row for wire in kind.wires for row in _wire(wire)]
    if not rows:
        return []
    told = "Variables that tell it of the other services of its machine."
    return [told, *table(["variable", "holds"], rows)]


def _wire(wire: Wire) -> Iterator[list[str]]:
    which = f"of API {wire.api}" if wire.api else f"of kind {wire.kind}"
    end = f", each with `{wire.suffix}`" if wire.suffix else ""
    among = f" with `{wire.separator}` between"
    if wire.first:
        yield [f"`{wire.urls}`", f"address of the first {which}{end.replace('each ', '')}"]
    else:
        yield [f"`{wire.urls}`", f"addresses of all {which}{among}{end}"]
    if wire.keys:
        yield [f"`{wire.keys}`", "its API key" if wire.first else "their API keys, in this order"]
    if wire.enable:
        yield [f"`{wire.enable}`", "true or false: whether there are any"]


def _files(kind: Kind) -> list[str]:
    rows = [[f"`{name}`", f"`templates/{template}`"] for name, template in kind.files.items()]
    return table(["file of each service", "rendered from"], rows) if rows else []


def _parameters(kind: Kind) -> list[str]:
    rows = [[f"`{name}`", what] for name, what in (kind.parameters or {}).items()]
    return table(["parameter", "value"], rows) if rows else []


def _failures(kind: Kind) -> list[str]:
    rows = [[failure.says, failure.hint or "-"] for failure in kind.failures]
    told = "Of lines in its log; words in braces come out of the line."
    return [told, *table(["it says", "hint"], rows)] if rows else []
