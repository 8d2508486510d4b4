"""GPUs of a machine with a stub of nvidia-smi: shown, set, set again by a reboot, undone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from e2e.fleet import Fleet, Ran
from testbed.images import LLAMA
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

    def sets(self, **settings: Any) -> None:
        self.fleet.host(self.machine, {}, user="admin", sudo=True, hostprep=settings)

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


# In a container: its GPU is there until systemd reads its units anew, and again after a start.
CONTAINER_SMI = """#!/bin/sh
if [ -e /smi/lost ]; then echo 'Failed to initialize NVML: Unknown Error'; exit 255; fi
echo 'GPU 0: NVIDIA GeForce RTX 5090 (UUID: GPU-1)'
"""
# systemd runs it whenever it reads its units.
GENERATOR = """#!/bin/sh
for folder in /var/smi/*/; do : >"$folder/lost"; done
"""
PLAIN = "/etc/inferbase-test.conf"


def test_containers_that_lose_their_gpu(card: Card) -> None:
    """Ours is started anew; another's is told of; one without a GPU or a probe is left alone."""
    machine = card.machine
    runtimes = json.loads(machine.read("/etc/docker/daemon.json"))
    runtimes["runtimes"]["nvidia"] = runtimes["runtimes"]["inferbase-test"]
    machine.write("/etc/docker/daemon.json", json.dumps(runtimes))
    machine.write("/usr/local/share/container-smi", CONTAINER_SMI, mode="755")
    machine.write("/etc/systemd/system-generators/lose-gpus", GENERATOR, mode="755")
    start = "docker run -d --stop-timeout 1 --entrypoint sh -v /var/smi/$name:/smi"
    stub = "-v /usr/local/share/container-smi:/usr/bin/nvidia-smi:ro"
    wait = f"{LLAMA} -c 'rm -f /smi/lost; sleep 1000'"
    machine.check(
        f"""set -e; systemctl reload docker; cd /var; mkdir -p smi
        for name in ours theirs without bare; do mkdir -p smi/$name; done
        name=ours; {start} --runtime nvidia --label inferbase.service=llm {stub} --name $name {wait}
        name=theirs; {start} --runtime nvidia {stub} --name $name {wait}
        name=without; {start} --runtime nvidia --name $name {wait}
        name=bare; {start} {stub} --name $name {wait}"""
    )
    began = "docker inspect --format '{{.State.StartedAt}}' theirs without bare"
    before = machine.check(began)
    # What has nothing to do with systemd's units asks no container.
    card.sets(files={PLAIN: {"content": "a\n"}})
    quiet = card.invoke("hostprep.apply", "--yes", "--format", "json")
    assert quiet.data[0] == {"machine": machine.name, "result": "changed", "detail": ""}, quiet

    card.sets(files={PLAIN: {"content": "b\n", "after": ["systemctl", "daemon-reload"]}})
    for task, result in (("apply", "changed"), ("rollback", "undone")):
        done = card.invoke(f"hostprep.{task}", "--yes", "--format", "json")
        assert (done.rc, done.data[0]["result"]) == (0, result), done
        notes = done.data[0]["detail"].split("; ")
        lost = "lost its GPU when systemd read its units anew"
        remedy = f"`docker restart theirs` on {machine.name}"
        assert sorted(notes) == [
            f"a container that is not ours {lost} (theirs): {remedy}",
            f"llm {lost} (ours) and was restarted",
        ]
        assert machine.check("docker exec ours nvidia-smi -L").startswith("GPU 0:")
        assert machine.run("docker exec theirs nvidia-smi -L").rc != 0
    assert machine.check(began) == before

    # A start that does not give it back is no cure: a person has to look.
    machine.check("sed -i s,-e.*lost,1, /usr/local/share/container-smi")
    machine.check("docker restart --time 0 ours theirs; rm -f /var/smi/*/lost")
    broken = card.invoke("hostprep.apply", "--yes", "--format", "json")
    assert broken.rc == 0, broken
    assert f"`invoke restart --host {machine.name} --service llm`" in broken.data[0]["detail"]

    # When the driver itself does not answer, it was not the reload.
    machine.write("/etc/smi-fails", "Failed to initialize NVML: Driver/library version mismatch")
    assert card.invoke("hostprep.rollback", "--yes", "--format", "json").data[0]["detail"] == ""
