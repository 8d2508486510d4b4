"""What load accepts is rendered: nothing that only the files can be blamed for shows later."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import render_cases
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from inferfleet.errors import FleetError
from inferfleet.load import yaml12
from inferfleet.load.check import check
from inferfleet.render.render import draft
from inferfleet.schema.fleet import Fleet
from inferfleet.schema.machine import Machine
from inferfleet.schema.nodes import Node

FLEET = render_cases.fleet("workstation")
KINDS = sorted(FLEET.kinds)
ENGINES = ("vllm", "llama-cpp", "ollama", "sglang", "gateway")

# Values that some destination cannot hold, beside ordinary ones.
WORDS = st.sampled_from(
    [
        "a",
        "--x",
        "-1",
        "a b",
        "$(id)",
        "\u2603",
        "a\x07b",
        "a\x85b",
        'say """\nmore',
        "{model}",
        "x\ny",
    ]
)
PATHS = st.sampled_from(
    ["/m", "/m/a.gguf", "/m/it's", "/m/a\x85b", "./beside.jinja", "files/own", "files/none", "own"]
)
MODELS = st.sampled_from(
    ["/m/a.gguf", "/m/dir", "/m/a.safetensors", "Qwen/Qwen3-8B", "hf:org/x/y.gguf", "ollama:a:b",
     "hf:org/x", "file:/x/y.gguf", "file:/x/dir/", "https://h.example/x.gguf", "s3://b/k", "none"]
)  # fmt: skip
OPTION_VALUES = st.one_of(
    WORDS, PATHS, st.booleans(), st.integers(-2, 9), st.lists(WORDS, max_size=2),
    st.dictionaries(st.sampled_from(["path", "name"]), WORDS, max_size=2),
)  # fmt: skip
SPECS = st.one_of(
    MODELS,
    st.fixed_dictionaries(
        {"source": MODELS}, optional={"alias": st.sampled_from(["team/a", "served"])}
    ),
)
REFS = st.sampled_from(["s0", "s1", "gate", "m/gate", "far/gate", "far/e", "no/e"])
ROUTES = st.fixed_dictionaries(
    {"to": st.lists(REFS, min_size=1, max_size=2)},
    optional={
        "aliases": st.lists(st.sampled_from(["r", "q", "z"]), max_size=2),
        "system-prompt": st.sampled_from(["Be kind.", {"file": "no.txt"}, {"alias": "team/a"}]),
    },
)
GATEWAYS = st.fixed_dictionaries(
    {},
    optional={
        "routes": st.dictionaries(st.sampled_from(["r", "q"]), ROUTES, max_size=2),
        "keys": st.just({"a": {"secret": "KEY", "models": ["r"]}})
        | st.just({"a": {"secret": "X"}}),
        "service-keys": st.just({"s0": "KEY"}),
    },
)
REPOSITORIES = st.sampled_from(
    [
        {"m": {"versions": {"1": "/x"}}},
        {"m": {"versions": {"1": "/x"}, "config": {"Bad Field": 1}}},
        {"m": {"versions": {"1": "/x"}, "config": {"a": None}}},
        {"m": {"versions": {"1": "/x"}, "config": "text", "extra": {"labels.txt": "a\n"}}},
    ]
)
MODELFILES = st.fixed_dictionaries(
    {},
    optional={
        "parameters": st.dictionaries(st.sampled_from(["num_ctx", "stop", "x"]), WORDS, max_size=2),
        "system": WORDS,
        "template": WORDS,
    },
)
VOLUMES = st.fixed_dictionaries(
    {
        "source": st.sampled_from(["/srv", "named", "/s\x85"]),
        "target": st.sampled_from(["/t", "/m"]),
    }
)


RIGHT = {
    "vllm": "Qwen/Qwen3-8B", "sglang": "/m/dir", "tgi": "hf:org/x", "llama-cpp": "/m/a.gguf",
    "ollama": "ollama:a:b",
}  # fmt: skip


@st.composite
def services(draw: st.DrawFn) -> dict[str, Any]:
    """A service that is right, with some keys of which most fit its kind and runtime."""
    kind = FLEET.kinds[name := draw(st.sampled_from(KINDS))]
    runtime = draw(st.sampled_from(kind.runtimes))
    found: dict[str, Any] = {"kind": name, "runtime": runtime}
    if kind.model is not None:
        found["model"] = RIGHT[name]
    if kind.needs:
        found["repository"] = {"m": {"versions": {"1": "/x"}}}
    if runtime == "process":
        found["program"] = "/opt/x"
    chosen = sorted({*kind.options.paths, *kind.options.on_off}) or sorted(kind.options_known or ())
    fitting: dict[str, Any] = {
        "port": st.sampled_from([8000, 8001]),
        "bind": st.sampled_from(["127.0.0.1", "0.0.0.0", "::1", "fd00::1", "10.0.0.1"]),
        "env": st.dictionaries(st.sampled_from(["A", "HOME"]), WORDS | st.integers(), max_size=1),
        "secrets": st.just(["KEY", *list(kind.secrets)[:1]]),
        "files": st.just({"own": "text\n"}),
        "gpus": st.sampled_from(["all", "none", [0], [7]]),
        "cpuset": st.sampled_from(["0-3", "0-999"]),
    }
    if chosen:
        fitting["options"] = st.dictionaries(st.sampled_from(chosen), OPTION_VALUES, max_size=2)
    if kind.model is not None:
        fitting |= {"model": SPECS, "served-name": st.sampled_from(["served", "a b", "r", "a\x07"])}
    if runtime != "compose":
        fitting["program"] = st.sampled_from(["/opt/x", "relative", "~/x", "/opt/it's \x85"])
    if runtime != "process":
        fitting["volumes"] = st.lists(VOLUMES, max_size=1)
    if runtime == "compose":
        fitting |= {
            "image": st.just("x/y:1"),
            "build": st.just({"context": "/srv/b"}),
            "ports": st.sampled_from([{"grpc": 9001}, {"x": 1}]),
            "capabilities": st.just(["SYS_ADMIN"]),
        }
    sections = {"modelfile": MODELFILES, "repository": REPOSITORIES, "gateway": GATEWAYS}
    fitting |= {key: sections[key] for key in kind.sections & set(sections)}
    keys = draw(st.lists(st.sampled_from(sorted(fitting)), max_size=3, unique=True))
    found |= {key: draw(fitting[key]) for key in keys}
    if draw(st.integers(0, 9)) == 9:
        key = draw(st.sampled_from(["runtime", "modelfile", "repository", "gateway", "model"]))
        any_of = {**sections, "model": SPECS, "runtime": st.sampled_from(["compose", "process"])}
        found[key] = draw(any_of[key])
    return found


@st.composite
def machines(draw: st.DrawFn) -> dict[str, Any]:
    needed = {name for kind in FLEET.kinds.values() for name in kind.secrets}
    return draw(
        st.fixed_dictionaries(
            {
                "services": st.fixed_dictionaries(
                    {"s0": services()}, optional={"s1": services(), "gate": services()}
                ),
                "secrets": st.just({name: {"env": name} for name in ("KEY", *sorted(needed))}),
            },
            optional={
                "address": st.just("m.example"),
                "root": st.sampled_from(["~/x", "/opt/a$b", "/opt/it's here"]),
                "models": st.just("/m"),
                "bind": st.sampled_from(["0.0.0.0", "10.0.0.4"]),
                "hardware": st.just("rtx-5090"),
                "network": st.just({"name": "net"}),
            },
        )
    )


FAR = Machine.model_validate(
    {
        "address": "far.example",
        "bind": "10.0.0.9",
        "services": {
            "gate": {"kind": "gateway", "gateway": {"routes": {"r": {"to": ["m/gate"]}}}},
            "e": {"kind": "vllm", "model": "a/b"},
        },
    }
)


def read(machine: dict[str, Any]) -> tuple[Fleet, list[FleetError]] | None:
    """The fleet with this machine beside another, checked; None when its form is wrong."""
    text = yaml.safe_dump(machine, allow_unicode=False)
    document = yaml12.read(text.encode(), "inventory/m.yaml")
    assert document.root is not None
    assert not document.errors
    try:
        made = Machine.model_validate(document.root.plain(), by_alias=True, by_name=False)
    except ValidationError:
        return None
    fleet = replace(FLEET, machines={"m": made, "far": FAR})
    nodes = {
        ("machine", "m"): document.root,
        ("machine", "far"): Node({}, "inventory/far.yaml", (1, 1)),
    }
    found = check(
        fleet, lambda kind, name, *path, key=False: nodes[kind, name].where(path, key=key)
    )
    return fleet, found


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(machines())
def test_what_is_accepted_is_rendered(machine: dict[str, Any]) -> None:
    found = read(machine)
    if found is None:
        return
    fleet, errors = found
    for error in errors:
        assert error.where is not None
        assert error.where.line, error
    if not any(error.where and error.where.file == "inventory/m.yaml" for error in errors):
        draft(fleet, "m", home="/home/u", python="/usr/bin/python3")


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(service=services())
def test_one_service_alone(service: dict[str, Any]) -> None:
    needed = {name for kind in FLEET.kinds.values() for name in kind.secrets}
    secrets = {name: {"env": name} for name in ("KEY", *sorted(needed))}
    found = read({"address": "m", "models": "/m", "secrets": secrets, "services": {"s0": service}})
    if found and not any("far" not in str(error.where) for error in found[1]):
        draft(found[0], "m")
