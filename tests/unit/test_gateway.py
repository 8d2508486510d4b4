"""What a gateway's files say for a machine file, and the mistakes that they can hold."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from gateway_files import LLAMA, SECRETS, VLLM, G, data, folders, machine, release

from inferfleet.errors import FleetError
from inferfleet.load.load import load
from inferfleet.render.render import render
from inferfleet.secrets import Secret


def test_without_routes_every_openai_service_is_offered(tmp_path: Path) -> None:
    found = data(release(tmp_path, machine()))
    assert {name: route["to"] for name, route in found["routes"].items()} == {
        "Qwen/Qwen3-8B": ["big"],
        "small": ["little"],
    }
    assert found["upstreams"]["little"] == {
        "host": "little",
        "port": 8080,
        "health": "/health",
        "loading": 600,
        "model": "small",
    }
    assert (found["aliases"], found["keys"]) == ({}, [])


def test_replicas_share_a_name(tmp_path: Path) -> None:
    services = {"one": VLLM, "two": {**VLLM, "port": 8001}}
    found = data(release(tmp_path, machine(services=services)))
    assert found["routes"]["Qwen/Qwen3-8B"]["to"] == ["one", "two"]


def test_alias_directories_are_models_with_their_own_prompt(tmp_path: Path) -> None:
    found = data(release(tmp_path, machine(services={"big": {**VLLM, "model": "qwen"}})))
    prompts = {name: route.get("system") for name, route in found["routes"].items()}
    assert prompts == {"Qwen/Qwen3-8B": None, "team/hl": "As hl.\n", "team/bare": None}


@pytest.mark.parametrize(
    ("runtime", "ref", "host", "port"),
    [
        ("compose", "big", "big", 8000),
        ("compose", "far/lan", "10.0.0.7", 8002),
        ("compose", "far/any", "far.example", 8003),
        ("compose", "far/six", "fd00::7", 8004),
        ("systemd", "big", "127.0.0.1", 8000),
        ("systemd", "m/big", "127.0.0.1", 8000),
        ("systemd", "far/any", "far.example", 8003),
        ("compose", "login/any", "login.example", 8003),
        ("compose", "site/any", "fd00::9", 8003),
    ],
)
def test_addresses(tmp_path: Path, runtime: str, ref: str, host: str, port: int) -> None:
    found = machine({"routes": {"x": {"to": [ref]}}}, gate={"runtime": runtime})
    [upstream] = data(release(tmp_path, found))["upstreams"].values()
    assert (upstream["host"], upstream["port"]) == (host, port)


def test_keys_and_routes(tmp_path: Path) -> None:
    gateway = {
        "routes": {
            "q": {
                "to": ["big", "far/locked"],
                "aliases": ["quick"],
                "system-prompt": {"file": "prompts/p.txt"},
                "strategy": "round-robin",
                "timeout": "2m",
            }
        },
        "keys": {
            "alpha": {
                "secret": "ALPHA",
                "rpm": 5,
                "tpm": 6,
                "models": ["quick"],
                "budget": {"tokens": 7, "per": "day"},
            },
            "beta": {"secret": "BETA"},
        },
    }
    made = release(tmp_path, machine(gateway))
    found = data(made)
    assert found["routes"]["q"] == {
        "to": ["big", "far/locked"],
        "strategy": "round-robin",
        "timeout": 120,
        "system": "Be kind.",
    }
    assert found["aliases"] == {"quick": "q"}
    budget = {"tokens": 7, "per": "day"}
    assert found["keys"] == [
        {"name": "alpha", "rpm": 5, "tpm": 6, "budget": budget, "models": ["q"]},
        {"name": "beta"},
    ]
    assert found["upstreams"]["far/locked"]["key"] == "GATEWAY_SERVICE_KEY_1"
    hashes = ",".join(
        hashlib.sha256(SECRETS[name].encode()).hexdigest() for name in ("ALPHA", "BETA")
    )
    env = made.files["env/gate.env"]
    assert env.content.decode() == f'GATEWAY_KEYS="{hashes}"\nGATEWAY_SERVICE_KEY_1="vk"\n'
    assert (env.mode, env.secret) == (0o600, True)


def test_a_container(tmp_path: Path) -> None:
    made = release(tmp_path, machine({"keys": {"alpha": {"secret": "ALPHA"}}}))
    service = yaml.safe_load(made.files["compose.yaml"].content)["services"]["gate"]
    assert service["user"] == "65534:65534"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["env_file"] == ["./env/gate.env"]
    mounts = {mount["target"]: mount for mount in service["volumes"]}
    assert mounts["/var/tmp"]["type"] == "volume"
    files = service["command"][-1].rpartition("/")[0]
    assert mounts[files]["source"] == "./files/gate"
    assert mounts[files]["read_only"] is True
    conf = made.files["files/gate/nginx.conf"].content.decode()
    assert "load_module" not in conf
    assert 'listen "0.0.0.0:4000"' in conf
    assert f'lua_package_path "{files}/?.lua;;"' in conf
    assert data(made)["state"] == "/var/tmp"
    assert list(made.units)[-1] == "gate"


def test_a_unit(tmp_path: Path) -> None:
    gateway = {"keys": {"alpha": {"secret": "ALPHA"}}}
    made = release(tmp_path, machine(gateway, runtime="systemd", bind="::1"))
    unit = made.files["systemd/inferbase-gate.service"].content.decode()
    assert "StateDirectory=inferbase-gate\n" in unit
    secret = "/opt/inferbase/current/secrets/gate/GATEWAY_KEYS"
    assert f"LoadCredential=GATEWAY_KEYS:{secret}\n" in unit
    assert "DynamicUser=yes" in unit
    conf = made.files["files/gate/nginx.conf"].content.decode()
    assert 'load_module "modules/ngx_http_lua_module.so"' in conf
    assert 'listen "[::1]:4000"' in conf
    assert data(made)["state"] == "/var/lib/inferbase-gate"
    kept = made.files["secrets/gate/GATEWAY_KEYS"]
    assert kept.content == hashlib.sha256(b"sk-alpha").hexdigest().encode()


def test_a_changed_prompt_restarts_the_gateway_alone(tmp_path: Path) -> None:
    def digests(text: str) -> dict[str, str]:
        gateway = {"routes": {"x": {"to": ["big"], "system-prompt": text}}}
        made = release(tmp_path / text, machine(gateway))
        return {name: unit.digest for name, unit in made.units.items()}

    one, two = digests("a"), digests("b")
    assert [name for name in one if one[name] != two[name]] == ["gate"]


ROUTE = {"to": ["big"]}

# (settings of the gateway, changes of the machine, the errors without their places)
MISTAKES: list[tuple[Any, dict[str, Any], str]] = [
    (
        {"routes": {"x": {"to": ["bigg"]}}},
        {},
        f"{G}.routes.x.to[0]: m has no service bigg\nhint: did you mean big?",
    ),
    (
        {"routes": {"x": {"to": ["fat/any"]}}},
        {},
        f"{G}.routes.x.to[0]: there is no machine fat\nhint: did you mean far?",
    ),
    (
        {"routes": {"x": {"to": ["far/loop"]}}},
        {},
        (
            f"{G}.routes.x.to[0]: far/loop listens on 127.0.0.1, which only far itself reaches\n"
            "hint: give it bind: with an address of far that m reaches"
        ),
    ),
    (
        {"routes": {"x": {"to": ["far/page"]}}},
        {},
        (
            f"{G}.routes.x.to[0]: far/page speaks web, and a gateway needs OpenAI's API\n"
            "hint: route to an engine, such as one of kind vllm"
        ),
    ),
    (
        {"routes": {"x": {"to": ["big", "m/big"]}}},
        {},
        f"{G}.routes.x.to[1]: big stands here twice\nhint: name each service once",
    ),
    (
        {"routes": {"x": {"to": ["little"]}}},
        {"services": {"little": {**LLAMA, "runtime": "systemd"}}},
        (
            f"{G}.routes.x.to[0]: little listens on 127.0.0.1, which the gateway's container "
            "cannot reach\nhint: run the gateway with runtime: systemd, or give the service "
            "bind: with an address of the machine"
        ),
    ),
    (
        {"routes": {"x": ROUTE, "y": {**ROUTE, "aliases": ["x"]}}},
        {},
        f"{G}.routes.y.aliases[0]: x is also a name of x\nhint: give each model names of its own",
    ),
    (
        {"routes": {"x": {**ROUTE, "aliases": ["y"]}, "y": ROUTE}},
        {},
        (
            f"{G}.routes.x.aliases[0]: y is also a model of its own\n"
            "hint: give each model names of its own"
        ),
    ),
    (
        {"routes": {"x": {**ROUTE, "aliases": ["z"]}, "y": {**ROUTE, "aliases": ["z"]}}},
        {},
        f"{G}.routes.y.aliases[0]: z is also a name of x\nhint: give each model names of its own",
    ),
    (
        {"routes": {"x": {**ROUTE, "system-prompt": {"alias": "team/hx"}}}},
        {"services": {"big": {**VLLM, "model": "qwen"}}},
        (
            f"{G}.routes.x.system-prompt: no service of the route has the alias directory team/hx\n"
            "hint: did you mean team/hl?"
        ),
    ),
    (
        {"routes": {"x": {**ROUTE, "system-prompt": {"alias": "team/bare"}}}},
        {"services": {"big": {**VLLM, "model": "qwen"}}},
        (
            f"{G}.routes.x.system-prompt: the alias team/bare has no system_prompt.txt\n"
            "hint: write it beside the alias, where its model is described"
        ),
    ),
    (
        {"routes": {"x": {**ROUTE, "system-prompt": {"text": "a", "file": "b"}}}},
        {},
        f"{G}.routes.x.system-prompt: needs exactly one of text, file, alias",
    ),
    (
        {"keys": {"a": {"secret": "ALPH"}}},
        {},
        f"{G}.keys.a.secret: the machine has no secret ALPH\nhint: did you mean ALPHA?",
    ),
    (
        {"keys": {"a": {"secret": "ALPHA"}, "b": {"secret": "ALPHA"}}},
        {},
        f"{G}.keys.b.secret: ALPHA is also the key of a\nhint: give each a key of its own",
    ),
    (
        {"keys": {"a": {"secret": "ALPHA", "models": ["smal"]}}},
        {},
        f"{G}.keys.a.models[0]: the gateway offers no model smal\nhint: did you mean small?",
    ),
    (
        {"routes": {"x": {"to": ["far/locked"]}}},
        {"secrets": {}},
        (
            f"{G}.routes.x.to[0]: far/locked asks for the key VLLM_API_KEY, which this machine "
            "has no secret for\nhint: add VLLM_API_KEY to the machine's secrets, or name another "
            "under service-keys"
        ),
    ),
    (
        {"routes": {"x": ROUTE}, "service-keys": {"far/lan": "ALPHA"}},
        {},
        f"{G}.service-keys.far/lan: no route leads to this service\nhint: services: big",
    ),
    (
        {"routes": {"x": {"to": ["gate"]}}},
        {},
        (
            f"{G}.routes.x.to[0]: leads back to this gateway: m/gate -> m/gate\n"
            "hint: route to an engine, or to a gateway further on"
        ),
    ),
    (
        {"routes": {"x": {"to": ["other"]}}},
        {
            "services": {
                "other": {
                    "kind": "gateway",
                    "port": 1,
                    "gateway": {"routes": {"y": {"to": ["far/any", "m/third"]}}},
                },
                "third": {
                    "kind": "gateway",
                    "port": 2,
                    "gateway": {"routes": {"z": {"to": ["gate"]}}},
                },
            }
        },
        "\n".join(
            f"services.{one}.gateway.routes.{at}: leads back to this gateway: {way}\n"
            "hint: route to an engine, or to a gateway further on"
            for one, at, way in (
                ("other", "y.to[1]", "m/other -> m/third -> m/gate -> m/other"),
                ("third", "z.to[0]", "m/third -> m/gate -> m/other -> m/third"),
                ("gate", "x.to[0]", "m/gate -> m/other -> m/third -> m/gate"),
            )
        ),
    ),
    (
        {"routes": {}},
        {},
        (
            f"{G}.routes: is empty\n"
            "hint: name a model, or remove the key to offer the machine's services"
        ),
    ),
    (
        {"routes": {"x": {**ROUTE, "aliases": ["y", "y"]}}},
        {},
        f"{G}.routes.x.aliases[1]: y stands here twice\nhint: name each alias once",
    ),
    (
        None,
        {
            "services": {
                "a": {**LLAMA, "served-name": "team/hl"},
                "b": {**VLLM, "model": "qwen", "served-name": "b"},
            }
        },
        (
            f"{G}: team/hl is an alias of b, and what a calls another model\n"
            "hint: give one of them another name, or write routes:"
        ),
    ),
    (None, {"services": {}}, f"{G}: m has no OpenAI service to offer\nhint: write routes:"),
    (
        None,
        {"services": {"a": {**VLLM, "served-name": "x"}, "b": {**LLAMA, "served-name": "x"}}},
        (
            "services.b.served-name: x is also what a calls another model\n"
            "hint: give one of them another served-name"
        ),
    ),
    (
        None,
        {"services": {"big": {**VLLM, "gateway": {}}}},
        (
            "services.big.gateway: kind vllm has no use for it\n"
            "hint: remove it; it is for kind gateway"
        ),
    ),
]


def test_no_models_are_not_all_of_them(tmp_path: Path) -> None:
    gateway = {"keys": {"a": {"secret": "ALPHA", "models": []}}}
    [error] = load(folders(json.dumps(machine(gateway)), tmp_path / "refused")).errors
    assert f"{G}.keys.a.models" in error.what
    # Nor where such a list comes about in another way.
    gateway["keys"]["a"]["models"] = ["small"]
    fleet = load(folders(json.dumps(machine(gateway)), tmp_path / "emptied")).fleet
    settings = fleet.machines["m"].services["gate"].gateway
    assert settings is not None
    assert settings.keys["a"].models is not None
    settings.keys["a"].models.clear()
    made = render(fleet, "m", {name: Secret(value) for name, value in SECRETS.items()})
    assert data(made)["keys"] == [{"name": "a", "models": []}]


@pytest.mark.parametrize(("gateway", "changes", "wanted"), MISTAKES)
def test_mistakes(tmp_path: Path, gateway: Any, changes: dict[str, Any], wanted: str) -> None:
    loaded = load(folders(json.dumps(machine(gateway, **changes)), tmp_path))
    told = [f"{error.what}\nhint: {error.hint}".removesuffix("\nhint: ") for error in loaded.errors]
    assert "\n".join(told) == wanted
    assert all(str(error.where).startswith(str(tmp_path)) for error in loaded.errors)


def test_a_prompt_that_is_not_there(tmp_path: Path) -> None:
    gateway = {"routes": {"x": {**ROUTE, "system-prompt": {"file": "prompts/q.txt"}}}}
    [error] = load(folders(json.dumps(machine(gateway)), tmp_path)).errors
    assert "there is no file prompts/q.txt in" in error.what


def test_another_served_name_ends_the_quarrel(tmp_path: Path) -> None:
    services = {"a": {**VLLM, "served-name": "x"}, "b": {**VLLM, "served-name": "x", "port": 8001}}
    assert not load(folders(json.dumps(machine(services=services)), tmp_path)).errors


def test_a_chat_page_talks_to_the_engines_themselves(tmp_path: Path) -> None:
    services = {"big": VLLM, "page": {"kind": "open-webui"}}
    secrets = {"WEBUI_SECRET_KEY": {"env": "X"}, "ALPHA": {"env": "X"}}
    found = machine({"keys": {"a": {"secret": "ALPHA"}}}, services=services, secrets=secrets)
    loaded = load(folders(json.dumps(found), tmp_path))
    assert not loaded.errors
    values = {name: Secret("x") for name in secrets}
    made = render(loaded.fleet, "m", values)
    page = yaml.safe_load(made.files["compose.yaml"].content)["services"]["page"]
    assert page["environment"]["OPENAI_API_BASE_URLS"] == "http://big:8000/v1"


def test_a_gateway_needs_no_model_to_be_tried(tmp_path: Path) -> None:
    from inferfleet.operations.endpoints import try_lines
    from inferfleet.run.brief import make_brief

    loaded = load(folders(json.dumps(machine()), tmp_path))
    told = try_lines(make_brief(loaded.fleet, "m"), frozenset({"gate"}))
    assert "gate: http://127.0.0.1:4000/v1  model -" in told
    assert not any("None" in line for line in told)
    assert not any("Authorization" in line for line in told)


def test_what_to_try_names_the_variable_of_the_key(tmp_path: Path) -> None:
    """Of the operator where there is one, else the secret; and only of what runs."""
    from inferfleet.operations.endpoints import try_lines
    from inferfleet.run.brief import make_brief

    secrets = {"ALPHA": {"env": "MY_KEY"}, "VLLM_API_KEY": {"command": ["pass", "vllm"]}}
    services = {"big": {**VLLM, "secrets": ["VLLM_API_KEY"]}, "little": LLAMA}
    keys = {"keys": {"a": {"secret": "ALPHA"}}}
    loaded = load(folders(json.dumps(machine(keys, secrets=secrets, services=services)), tmp_path))
    assert not loaded.errors
    brief = make_brief(loaded.fleet, "m")
    told = "\n".join(try_lines(brief, frozenset({"gate", "big"})))
    assert 'curl http://127.0.0.1:4000/v1/models -H "Authorization: Bearer $MY_KEY"' in told
    assert ':8000/v1/chat/completions -H "Authorization: Bearer $VLLM_API_KEY" -H \'Con' in told
    assert "little" not in told
    assert try_lines(brief, frozenset()) == []


@pytest.mark.parametrize("root", ["/opt/a$b", '/opt/a"b', "/opt/a\\b", "/opt/a{b"])
def test_paths_that_nginx_would_read_as_more(tmp_path: Path, root: str) -> None:
    found = machine(root=root, gate={"runtime": "systemd"})
    loaded = load(folders(json.dumps(found), tmp_path))
    [error] = loaded.errors
    assert error.what == f"root: {root!r} cannot stand in nginx's configuration"
    # What load refuses is never written either.
    with pytest.raises(FleetError, match="cannot stand in nginx's configuration"):
        render(loaded.fleet, "m", {name: Secret("x") for name in SECRETS})
