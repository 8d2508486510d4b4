"""GPUs of a machine with a stub of nvidia-smi: shown, set, set again by a reboot, undone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from e2e.fleet import Fleet, Ran
from testbed.machine import TestMachine
from testbed.session import Testbed

STUB = Path(__file__).with_name("nvidia-smi")
REPORT = Path(__file__).parents[1] / "cases" / "gpu" / "rtx-5090.xml"
HELPER = "/usr/local/lib/inferbase/gpu.sh"
STATE = "/run/smi"


class Card:
    """A test machine with the stub, and the fleet that names it."""

    def __init__(self, machine: TestMachine, fleet: Fleet) -> None:
        self.machine, self.fleet = machine, fleet
        machine.write("/usr/local/bin/nvidia-smi", STUB.read_text(), mode="755")
        machine.write("/usr/local/share/nvidia-smi.xml", REPORT.read_text())

    def wants(self, **gpu: Any) -> None:
        # What profiles say that it costs; a machine file accepts it by name.
        accept = ["gpu.memory-clocks"] if "memory-clocks" in gpu else []
        hostprep = {"hostprep": {"gpu": gpu, "accept": accept}} if gpu else {}
        self.fleet.host(self.machine, {}, hardware="rtx-5090", user="admin", sudo=True, **hostprep)

    def invoke(self, task: str, *words: str) -> Ran:
        return self.fleet.invoke(task, "--host", self.machine.name, *words)

    def verdicts(self) -> dict[str, tuple[str, str]]:
        rows = self.invoke("hostprep.check", "--format", "json").data
        return {row["setting"]: (row["verdict"], row["live"]) for row in rows}

    def locked(self) -> str:
        return self.machine.run(f"cat {STATE}/lgc {STATE}/pl").out.strip()


@pytest.fixture
def card(machine: TestMachine, testbed: Testbed, tmp_path: Path) -> Card:
    return Card(machine, Fleet(tmp_path, testbed.home))


def test_a_card_from_end_to_end(card: Card) -> None:
    """One machine for all of it: each step begins where the one before has left it."""
    card.wants()
    shown = card.invoke("gpu", "--format", "json").data
    assert shown[0]["gpus"][0]["name"] == "NVIDIA GeForce RTX 5090"
    assert {p["owner"] for p in shown[0]["gpus"][0]["processes"]} == {"foreign"}
    assert shown[0]["xids"] is not None
    table = card.invoke("gpu").out
    assert "561 of 575 W (400-600)" in table
    assert "/usr/lib/xorg/Xorg" in table
    status = card.invoke("status").out
    assert "27.5 of 31.8 GiB, 97 % busy, 63 C" in status

    # The card refuses with exit 0, and nothing of the run stays.
    card.wants(**{"clocks": "2400-2550", "memory-clocks": "14001", "power-limit": 600})
    refused = card.invoke("hostprep.apply", "--yes")
    assert refused.rc == 1
    assert "not supported" in refused.err
    assert card.machine.run(f"cat {STATE}/lgc").rc != 0
    assert not card.machine.exists(HELPER)

    card.wants(**{"clocks": "2400-2550", "power-limit": 600})
    done = card.invoke("hostprep.apply", "--yes")
    assert done.rc == 0, done
    want = {"gpu.clocks": ("ok", "2400-2550 MHz"), "gpu.power-limit": ("ok", "600 W")}
    assert card.verdicts() == want
    assert card.locked() == "2400,2550\n600"
    assert card.invoke("hostprep.apply", "--yes").rc == 0
    assert card.machine.check("systemd-analyze verify inferbase-hostprep.service 2>&1") == ""

    card.machine.reboot()
    card.machine.check("systemctl is-active --wait inferbase-hostprep.service")
    assert card.locked() == "2400,2550\n600"
    assert card.verdicts() == want

    card.machine.write(
        "/etc/smi-fails", "Failed to initialize NVML: Driver/library version mismatch"
    )
    assert {verdict for verdict, _ in card.verdicts().values()} == {"absent"}
    failed = card.invoke("gpu")
    assert failed.rc == 1
    assert "newer than its kernel module" in failed.err
    assert "reboot" in failed.err
    card.machine.check("rm /etc/smi-fails")

    back = card.invoke("hostprep.rollback", "--yes")
    assert back.rc == 0, back
    assert card.machine.check(f"cat {STATE}/pl").strip() == "575"
    assert card.machine.run(f"test -e {STATE}/lgc").rc != 0
    assert not card.machine.exists(HELPER)
    assert card.machine.run("systemctl cat inferbase-hostprep.service").rc != 0
