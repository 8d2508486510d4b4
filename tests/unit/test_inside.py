"""Where a path of the machine file is for the program."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
import render_cases

from inferfleet.errors import FleetError
from inferfleet.render.render import render
from inferfleet.schema.fields import Option
from inferfleet.schema.machine import Volume
from inferfleet.services.resolve import Resolved, resolve

ROOT, MODELS = "/opt/x", "/mnt/models"


def view(options: Mapping[str, Option], service: str = "chat", **changes: object) -> Resolved:
    """The service chat of the case engines with other options."""
    over = render_cases.with_service(
        render_cases.fleet("engines"), "case-engines", service, options=dict(options), **changes
    )
    return resolve(over, over.machines["case-engines"], service, ROOT, MODELS)


def template(text: str, **changes: object) -> tuple[str, Resolved]:
    """What vLLM's --chat-template says when the machine file says this."""
    found = view({"chat-template": text}, **changes)
    return found.options[found.options.index("--chat-template") + 1], found


@pytest.mark.parametrize(
    ("text", "inside", "mounts"),
    [
        ("/mnt/models/a b.jinja", "/models/a b.jinja", {}),
        ("/srv/t.jinja", "/srv/t.jinja", {"/srv/t.jinja": "/srv/t.jinja"}),
        ("files/chat.jinja", "/etc/inferbase/files/chat.jinja", {}),
        ("./t.jinja", "/models/hf/meta--Llama-3.2-3B-Instruct/main/t.jinja", {}),
        # Already the container's: a user who knows it may say so.
        ("/models/t.jinja", "/models/t.jinja", {}),
        ("/home/vllm/t.jinja", "/home/vllm/t.jinja", {}),
        # A template itself, and a name that the engine knows.
        ("{{ messages }}", "{{ messages }}", {}),
        ("chatml", "chatml", {}),
        ("a=/b", "a=/b", {"/b": "/b"}),
    ],
)
def test_in_a_container(text: str, inside: str, mounts: Mapping[str, str]) -> None:
    said, found = template(text)
    if text == "./t.jinja":
        assert found.need is not None
        inside = found.need.path.replace(MODELS, "/models", 1) + "/t.jinja"
    assert said == inside
    assert found.inside.mounts == mounts


def test_through_a_volume_and_beside_a_model_elsewhere() -> None:
    said, found = template(
        "/data/templates/x.jinja", volumes=[Volume(source="/data", target="/inside")]
    )
    assert (said, found.inside.mounts) == ("/inside/templates/x.jinja", {})
    said, found = template("./x.jinja", model="/elsewhere/model")
    assert (said, found.inside.mounts) == ("/model/x.jinja", {})


def test_without_a_container_paths_stay() -> None:
    for text, said in [
        ("/srv/t.jinja", "/srv/t.jinja"),
        ("files/chat.jinja", "/opt/x/current/files/chat/chat.jinja"),
        ("./t.jinja", "/elsewhere/model/t.jinja"),
    ]:
        found, _ = template(text, runtime="systemd", model="/elsewhere/model")
        assert found == said


def test_names_in_front_of_paths() -> None:
    found = view({"lora-modules": ["sql=/mnt/models/sql", "law=/srv/law"]})
    assert found.options == ("--lora-modules", "sql=/models/sql", "law=/srv/law")
    assert found.inside.sees_models
    found = view({"lora-modules": {"name": "sql", "path": "/mnt/models/sql"}})
    assert found.options == ("--lora-modules", '{"name":"sql","path":"/models/sql"}')


def test_other_options_are_left_alone() -> None:
    found = view({"seed": 1, "download-dir": "/srv/x"})
    assert "/srv/x" in found.options
    assert found.inside.mounts == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [("files/other.jinja", "not one of its files"), ("files/../env/x", "not one of its files")],
)
def test_refused(text: str, words: str) -> None:
    with pytest.raises(FleetError, match=words):
        template(text)


def test_beside_no_model() -> None:
    over = render_cases.with_service(
        render_cases.fleet("lab"), "case-lab", "jupyter", options={"ServerApp.root_dir": "./x"}
    )
    with pytest.raises(FleetError, match="lies beside its model"):
        resolve(over, over.machines["case-lab"], "jupyter", ROOT, MODELS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cpuset": "0-3,8"}, ["--threads", "5"]),
        ({"cpus": 2.5}, ["--threads", "3"]),
        ({"cpuset": "0-3", "cpus": 1.0}, ["--threads", "4"]),
        ({}, []),
        ({"cpuset": "0-3", "options": {"threads": 2}}, ["--threads", "2"]),
        ({"cpuset": "0-3", "options": {"threads": None}}, []),
    ],
)
def test_threads_follow_the_cpus(changes: dict[str, object], words: list[str]) -> None:
    changes = {"cpuset": None, "cpus": None, **changes}
    options = changes.pop("options", {})
    assert isinstance(options, dict)
    said = list(view(options, "cpu", **changes).options)
    at = said.index("--threads") if "--threads" in said else len(said)
    assert said[at : at + 2] == words


def test_a_changed_file_replaces_the_service() -> None:
    over = render_cases.fleet("engines")
    digests = {}
    for text in ("a", "b", "a"):
        changed = render_cases.with_service(
            over, "case-engines", "chat", files={"chat.jinja": text}
        )
        release = render_cases.render_fleet(changed, "case-engines")
        assert release.files["files/chat/chat.jinja"].content.decode() == text
        digests.setdefault(text, set()).add(release.units["chat"].digest)
    assert [len(found) for found in digests.values()] == [1, 1]
    assert digests["a"] != digests["b"]


def test_probes_follow_options() -> None:
    release = render_cases.render_case("engines")
    asked = {name: unit.probe.request for name, unit in release.units.items() if unit.probe}
    assert asked == {
        "sglang": "openai-completion",
        "tgi": "openai-completion",
        "embedder": "openai-embedding",
        "chat": "openai-completion",
        "cpu": "http",
        "pinned": "openai-chat",
    }


def test_metrics_on_another_port() -> None:
    units = render_cases.render_case("lab").units
    assert (units["triton"].metrics, units["triton"].metrics_port) == ("/metrics", 8002)
    assert units["node"].metrics_port is None
    probe = units["triton"].probe
    assert probe is not None
    assert probe.counters is None


def test_neighbours_of_a_native_service() -> None:
    over = render_cases.fleet("notebooks")
    machine = over.machines["case-notebooks"]
    without = dataclasses.replace(
        over,
        machines={
            "case-notebooks": machine.model_copy(
                update={"services": {"jupyter": machine.services["jupyter"]}}
            )
        },
    )
    unit = render(without, "case-notebooks", render_cases.secrets(machine)).files[
        "systemd/inference-jupyter.service"
    ]
    assert b"OPENAI_BASE_URL" not in unit.content
    assert b"MLFLOW_TRACKING_URI" not in unit.content
