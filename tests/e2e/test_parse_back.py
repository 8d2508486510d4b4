"""Every shipped machine, rendered by the command line, read back by the programs it is for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from e2e.fleet import INVOKE, REPOSITORY
from tools import needs

SHIPPED = sorted(path.stem for path in (REPOSITORY / "inventory").glob("*.yaml"))
COMPOSED = [name for name in SHIPPED if name != "local"]
# Native units of both engines, with a secret, a volume, a GPU and none.
NATIVE = {
    "address": "native.example",
    "hardware": "h100-nvl",
    "root": "/opt/native",
    "runtime": "systemd",
    "secrets": {"LLAMA_API_KEY": {"env": "LLAMA_API_KEY"}, "HF_TOKEN": {"env": "HF_TOKEN"}},
    "services": {
        "llama": {
            "kind": "llama-cpp",
            "model": "/srv/models/a.gguf",
            "program": "/bin/true",
            "port": 8001,
            "gpus": "none",
            "secrets": ["LLAMA_API_KEY"],
            "volumes": [{"source": "/srv/extra", "target": "/srv/extra"}],
            "options": {"ctx-size": 4096},
        },
        "vllm": {
            "kind": "vllm",
            "model": "hf:Qwen/Qwen3-8B",
            "program": "/bin/true",
            "port": 8002,
            "gpus": "all",
            "secrets": ["HF_TOKEN"],
        },
    },
}


def render(folder: Path, *machines: str) -> dict[str, Path]:
    """`invoke render` of these machines with the example overlay; folder by machine."""
    overlay = folder / "fleet" / "inventory"
    overlay.mkdir(parents=True)
    (overlay / "native.yaml").write_text(yaml.safe_dump(NATIVE))
    hosts = [word for name in machines for word in ("--host", name)]
    secrets = ("HF_TOKEN", "WEBUI_SECRET_KEY", "LLAMA_API_KEY")
    done = subprocess.run(
        [INVOKE, "render", "--out", str(folder / "out"), *hosts],
        cwd=REPOSITORY,
        env={
            **os.environ,
            **{name: f"canary {name} $x" for name in secrets},
            "INFERBASE_OVERLAY": str(folder / "fleet"),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "canary" not in done.stderr
    return {name: folder / "out" / name for name in machines}


def silent(*argv: str | Path) -> str:
    """Standard output of a program that must succeed with nothing on standard error."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


@needs("docker")
@pytest.mark.parametrize("name", COMPOSED)
def test_compose_reads_every_shipped_machine(name: str, tmp_path: Path) -> None:
    folder = render(tmp_path, name)[name]
    text = silent("docker", "compose", "-f", folder / "compose.yaml", "config", "--format", "json")
    services = json.loads(text)["services"]
    wanted = yaml.safe_load((REPOSITORY / "inventory" / f"{name}.yaml").read_text())["services"]
    assert services.keys() == wanted.keys()
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert {port["host_ip"] for port in service["ports"]} == {"127.0.0.1"}
        assert "HF_TOKEN" not in " ".join(service.get("command") or [])
    assert silent("docker", "compose", "-f", folder / "compose.yaml", "config", "-q") == ""


@needs("systemd-analyze")
def test_systemd_reads_the_units(tmp_path: Path) -> None:
    folder = render(tmp_path, "native")["native"]
    units = sorted((folder / "systemd").glob("*.service"))
    assert [unit.name for unit in units] == ["native-llama.service", "native-vllm.service"]
    silent("systemd-analyze", "verify", *units)
    for unit in units:
        silent("systemd-analyze", "security", "--offline=yes", "--threshold=25", unit)
        assert "canary" not in unit.read_text()


@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
def test_shells_read_every_script(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    folders = render(tmp_path, *SHIPPED, "native")
    scripts = [
        path
        for folder in folders.values()
        for path in folder.rglob("*")
        if path.is_file() and path.read_bytes().startswith(b"#!/bin/sh")
    ]
    assert len(scripts) >= len(folders)
    scripts += [*(REPOSITORY / "inferfleet").rglob("*.sh")]
    for script in scripts:
        silent(shell, "-n", script)


def test_rendered_secrets_are_for_their_owner_only(tmp_path: Path) -> None:
    folders = render(tmp_path, *SHIPPED, "native")
    holding = [
        path
        for folder in folders.values()
        for path in folder.rglob("*")
        if path.is_file() and b"canary" in path.read_bytes()
    ]
    assert len(holding) >= 3
    assert {f"{path.stat().st_mode & 0o777:o}" for path in holding} == {"600"}
