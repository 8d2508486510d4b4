"""The example machines: complete as they are, and what the systems behind them rely on."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import render_cases

from inferfleet.load.load import load_fleet
from inferfleet.paths import Roots
from inferfleet.release.release import Release
from inferfleet.schema.fleet import Fleet

EXAMPLES = render_cases.REPOSITORY / "inventory" / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.yaml"))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """All examples at once, as an overlay of somebody who has copied them."""
    folder = tmp_path_factory.mktemp("fleet")
    shutil.copytree(EXAMPLES, folder / "inventory")
    return load_fleet(Roots(render_cases.REPOSITORY, folder))


def rendered(fleet: Fleet, name: str) -> Release:
    return render_cases.render_fleet(fleet, name)


def test_there_are_some() -> None:
    assert {"h100-head", "h100-worker"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_listens_elsewhere_only_where_a_line_says_so(fleet: Fleet, name: str) -> None:
    release = rendered(fleet, name)
    assert release.units
    for unit in release.units.values():
        assert unit.address is not None
        bind = fleet.machines[name].services[unit.service].bind or "127.0.0.1"
        assert unit.address[0] == bind


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_units_are_confined(fleet: Fleet, name: str, tmp_path: Path) -> None:
    units = {
        Path(path).name: file
        for path, file in rendered(fleet, name).files.items()
        if path.startswith("systemd/")
    }
    for unit, file in units.items():
        (tmp_path / unit).write_bytes(file.content)
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=yes", "--threshold=25", tmp_path / unit],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


def test_two_h100_nodes(fleet: Fleet) -> None:
    head, worker = rendered(fleet, "h100-head"), rendered(fleet, "h100-worker")
    addresses = {unit.service: unit.address for unit in head.units.values()}
    assert addresses == {
        "vllm": ("127.0.0.1", 5005),
        "gateway": ("10.0.0.4", 8000),
        "jupyter": ("127.0.0.1", 8889),
        "node": ("127.0.0.1", 9100),
    }
    assert worker.units["vllm"].address == ("10.0.0.5", 5005)
    unit = head.files["systemd/inference-vllm.service"].content.decode()
    assert "/mnt/models/huddle-ai/language/hl/chat_template.jinja" in unit
    assert "trust-remote-code" not in unit
    assert "NCCL_SOCKET_IFNAME=eth0" in unit
    routes = json.loads(head.files["files/gateway/gateway.json"].content)
    assert routes["aliases"] == {"hl": "llama-3.2-3b-instruct"}
    assert routes["routes"]["llama-3.2-3b-instruct"]["system"].startswith("You are HL")
    jupyter = head.files["systemd/inference-jupyter.service"].content.decode()
    assert "--ServerApp.root_dir=/mnt/models" in jupyter
    assert "OPENAI_BASE_URL=http://127.0.0.1:5005/v1" in jupyter
