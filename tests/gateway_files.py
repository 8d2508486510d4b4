"""Machine files with a gateway, and what they render to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from inferfleet.load.load import load
from inferfleet.paths import Roots
from inferfleet.release.release import Release
from inferfleet.render.render import render
from inferfleet.secrets import Secret

REPOSITORY = Path(__file__).resolve().parent.parent
SECRETS = {"ALPHA": "sk-alpha", "BETA": "sk-beta", "VLLM_API_KEY": "vk"}
VLLM = {"kind": "vllm", "model": "hf:Qwen/Qwen3-8B", "port": 8000}
LLAMA = {"kind": "llama-cpp", "model": "/models/q.gguf", "served-name": "small", "port": 8001}

# Where mistakes in the settings of the gateway are.
G = "services.gate.gateway"


def machine(gateway: Any = None, **more: Any) -> dict[str, Any]:
    own = {"kind": "gateway", **({} if gateway is None else {"gateway": gateway})}
    services = more.pop("services", {"big": VLLM, "little": LLAMA})
    return {
        "address": "here.example",
        "secrets": more.pop("secrets", {name: {"env": name} for name in SECRETS}),
        "services": {**services, "gate": {**own, **more.pop("gate", {})}},
        **more,
    }


FAR = {
    "address": "far.example",
    "secrets": {"VLLM_API_KEY": {"env": "X"}, "WEBUI_SECRET_KEY": {"env": "X"}},
    "services": {
        "loop": VLLM,
        "lan": {**VLLM, "port": 8002, "bind": "10.0.0.7"},
        "any": {**VLLM, "port": 8003, "bind": "0.0.0.0"},
        "six": {**VLLM, "port": 8004, "bind": "fd00::7"},
        "locked": {**VLLM, "port": 8005, "bind": "10.0.0.7", "secrets": ["VLLM_API_KEY"]},
        "page": {"kind": "open-webui", "bind": "10.0.0.7"},
    },
}


# Addresses as ssh takes them, of which only the host counts for a gateway.
LOGIN = {**FAR, "address": "ada@login.example:2222"}
SITE = {**FAR, "address": "x.example", "site-address": "ada@[fd00::9]:22"}


def folders(text: str, root: Path) -> Roots:
    """Our templates and the kinds that are needed, which load in no time."""
    inventory = root / "fleet" / "inventory"
    inventory.mkdir(parents=True, exist_ok=True)
    (root / "services").mkdir(exist_ok=True)
    for kind in ("vllm", "llama-cpp", "open-webui", "gateway"):
        link = root / "services" / f"{kind}.yaml"
        link.exists() or link.symlink_to(REPOSITORY / "services" / link.name)
    link = root / "templates"
    link.exists() or link.symlink_to(REPOSITORY / "templates")
    (inventory / "prompts").mkdir(exist_ok=True)
    (inventory / "prompts" / "p.txt").write_text("Be kind.\n")
    (inventory / "m.yaml").write_text(text)
    for name, one in (("far", FAR), ("login", LOGIN), ("site", SITE)):
        (inventory / f"{name}.yaml").write_text(json.dumps(one))
    (inventory / "models").mkdir(exist_ok=True)
    declared = {
        "source": "hf:Qwen/Qwen3-8B",
        "aliases": {"team/hl": {"system_prompt.txt": "As hl.\n"}, "team/bare": {}},
    }
    (inventory / "models" / "qwen.yaml").write_text(json.dumps(declared))
    return Roots(root, root / "fleet")


def release(root: Path, found: dict[str, Any]) -> Release:
    loaded = load(folders(json.dumps(found), root))
    assert not loaded.errors, [str(error) for error in loaded.errors]
    return render(loaded.fleet, "m", {name: Secret(value) for name, value in SECRETS.items()})


def data(made: Release) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(made.files["files/gate/gateway.json"].content)
    return found
