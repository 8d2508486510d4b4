"""One true pipeline: the command line against a real machine, its Docker and a real model."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.fleet import ANSWER, QUESTION, Fleet, Place, inspect
from testbed.machine import TestMachine
from testbed.session import Testbed

pytestmark = pytest.mark.usefixtures("gguf")
Machines = Callable[..., list[TestMachine]]


@pytest.fixture
def fleet(tmp_path: Path, testbed: Testbed) -> Fleet:
    return Fleet(tmp_path, testbed.home)


@pytest.fixture
def place(shared_machine: TestMachine, fleet: Fleet) -> Place:
    return Place(shared_machine, fleet)


def test_fresh_up_then_nothing_then_an_edit_then_back(place: Place) -> None:
    place.write()
    planned = place.invoke("plan")
    assert planned.rc == 2, planned
    assert "+ create compose.yaml" in planned.out
    assert "+++ b/compose.yaml" in planned.out
    assert "+ start llama  (is new)" in planned.out
    assert not place.machine.exists(place.root)

    fresh = place.invoke("up")
    assert fresh.rc == 0, fresh
    assert "+ start llama  (is new)" in fresh.err
    assert "ready after" in fresh.err
    assert fresh.out.split("\n")[1].split()[:3] == [place.machine.name, "changed", "1"]
    assert place.ask() == ANSWER

    before = inspect(place.machine, place.container)["State"]["StartedAt"]
    again = place.invoke("up", "--format", "json")
    assert again.rc == 0, again
    assert again.data == [
        {"machine": place.machine.name, "result": "unchanged", "generation": 1, "changes": 0}
    ]
    assert "nothing to change" in again.err
    assert inspect(place.machine, place.container)["State"]["StartedAt"] == before
    same = place.invoke("plan", "--format", "json")
    assert same.rc == 0, same
    assert same.data[0]["changes"] is False
    assert same.data[0]["steps"] == []

    place.write(options={"ctx-size": 768})
    edited = place.invoke("plan")
    assert edited.rc == 2, edited
    assert '-      - "512"' in edited.out
    assert '+      - "768"' in edited.out
    assert "~ replace llama  (command" in edited.out
    as_data = place.invoke("plan", "--format", "json")
    assert as_data.rc == 2, as_data
    steps = {step["action"]: step for step in as_data.data[0]["steps"]}
    assert steps.keys() == {"update", "replace"}
    assert '+      - "768"' in steps["update"]["diff"]
    assert steps["replace"]["target"] == "llama"
    assert "command" in steps["replace"]["reason"]
    assert as_data.data[0]["generation"] == {"from": 1, "to": 2}

    applied = place.invoke("up", "--format", "json")
    assert applied.rc == 0, applied
    assert (applied.data[0]["result"], applied.data[0]["generation"]) == ("changed", 2)
    assert "768" in inspect(place.machine, place.container)["Args"]

    back = place.invoke("rollback", "--format", "json")
    assert back.rc == 0, back
    assert back.data[0]["generation"] == 1
    assert "512" in inspect(place.machine, place.container)["Args"]
    assert place.ask() == ANSWER

    rows = place.invoke("history", "--format", "json").data
    assert [(row["event"], row["from"], row["generation"]) for row in rows] == [
        ("up", 0, 1),
        ("up", 1, 2),
        ("rollback", 2, 1),
    ]
    assert place.invoke("plan").rc == 2


def test_the_container_is_confined(place: Place) -> None:
    place.write()
    assert place.invoke("up").rc == 0
    found = inspect(place.machine, place.container)
    host = found["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["PidsLimit"] == 1024
    assert host["Privileged"] is False
    assert found["Config"]["User"] == "65534:65534"
    assert host["PortBindings"] == {
        "8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(place.port)}]
    }
    assert all(mount["RW"] is False for mount in found["Mounts"])
    status = place.machine.check(f"cat /proc/{found['State']['Pid']}/status")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["Uid"].split() == ["65534"] * 4
    assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0
    assert facts["NoNewPrivs"].strip() == "1"
    # From the network nothing answers; on the machine itself it does.
    outside = f"http://{place.machine.address}:{place.port}/health"
    assert subprocess.run(["curl", "-s", "-m", "5", outside], check=False).returncode != 0


def test_looking_at_it_and_using_it(place: Place, tmp_path: Path) -> None:
    place.write()
    assert place.invoke("up").rc == 0
    name = place.machine.name

    status = place.invoke("status", "--format", "json")
    assert status.rc == 0, status
    assert [(row["service"], row["address"]) for row in status.data] == [
        ("llama", f"127.0.0.1:{place.port}")
    ]
    # Docker's own health check has its first turn five seconds after the start.
    assert status.data[0]["state"] in {"starting", "running"}
    health = place.invoke("health", "--format", "json")
    assert health.rc == 0, health
    assert health.data[0]["verdict"] == "healthy"
    logs = place.invoke("logs", "--lines", "5")
    assert logs.rc == 0, logs
    assert 1 <= len(logs.out.splitlines()) <= 5
    restarted = place.invoke("restart", "--format", "json")
    assert restarted.rc == 0, restarted
    assert "~ replace llama  (was asked to restart)" in restarted.err
    assert restarted.data[0]["generation"] == 1
    ends = place.invoke("endpoints", "--format", "json")
    assert ends.data == [
        {
            "service": "llama",
            "machine": name,
            "kind": "llama-cpp",
            "api": "openai",
            "url": f"http://127.0.0.1:{place.port}",
            "base_url": f"http://127.0.0.1:{place.port}/v1",
            "model": "smol",
            "reach": "tunnel",
        }
    ]

    tunnel = place.fleet.start("tunnel", "--host", name, "--seconds", "20", "--format", "json")
    assert tunnel.stdout is not None
    lines = []
    for line in tunnel.stdout:
        lines.append(line)
        if line == "]\n":
            break
    url = json.loads("".join(lines))[0]["base_url"]
    request = urllib.request.Request(
        f"{url}/chat/completions",
        json.dumps(QUESTION).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        text = json.load(reply)["choices"][0]["message"]["content"]
    tunnel.terminate()
    tunnel.wait(30)
    assert text.strip() == ANSWER

    shell = place.fleet.invoke("shell", "--host", name, input="echo at $(hostname); exit 5\n")
    assert (shell.rc, shell.out.split()) == (5, ["at", name])
    inside = place.fleet.invoke(
        "shell", "--host", name, "--service", "llama", input="id -u; ls -d /model*\n"
    )
    assert inside.rc == 0, inside
    assert inside.out.split() == ["65534", "/model", "/models"]


def test_rendered_files_work_without_inferbase(place: Place, tmp_path: Path) -> None:
    """A person with the folder, Docker and sh can start, see and stop the service."""
    place.write()
    rendered = place.invoke("render", "--out", str(tmp_path / "out"))
    assert rendered.rc == 0, rendered
    folder = tmp_path / "out" / place.machine.name
    packed = subprocess.check_output(["tar", "-C", folder, "-cf", "-", "."])
    current = f"{place.root}/current"
    place.machine.check(f"mkdir -p {current} && tar -xf - -C {current}", user="ops", stdin=packed)
    place.machine.check(f"docker compose -f {current}/compose.yaml up -d", user="ops")
    place.machine.check(
        f"timeout 60 sh -c 'until curl -sf http://127.0.0.1:{place.port}/health; "
        "do sleep 0.1; done'"
    )
    assert place.ask() == ANSWER
    state = place.machine.check(f"sh {current}/control state", user="ops")
    assert state.split("\t")[:2] == ["unit", "llama"], state
    place.machine.check(f"sh {current}/control remove", user="ops")
    assert place.machine.run(f"docker inspect {place.container}").rc != 0


def test_down_stays_down_until_up(place: Place) -> None:
    place.write()
    assert place.invoke("up").rc == 0
    down = place.invoke("down", "--format", "json")
    assert down.rc == 0, down
    assert "- remove llama  (is " in down.err
    assert place.machine.run(f"docker inspect {place.container}").rc != 0
    assert place.invoke("status", "--format", "json").data[0]["state"] == "absent"
    assert place.invoke("health").rc == 3

    for task in ("apply", "down"):
        still = place.invoke(task)
        assert still.rc == 0, still
        assert "nothing to change" in still.err
    place.write(options={"ctx-size": 640})
    edited = place.invoke("apply", "--format", "json")
    assert edited.rc == 0, edited
    assert edited.data[0]["result"] == "changed"
    assert place.machine.run(f"docker inspect {place.container}").rc != 0

    again = place.invoke("up")
    assert again.rc == 0, again
    assert "640" in inspect(place.machine, place.container)["Args"]
    assert place.ask() == ANSWER


def test_reboot_brings_the_service_back(fleet: Fleet, machine: TestMachine) -> None:
    place = Place(machine, fleet)
    place.write()
    assert place.invoke("up").rc == 0
    machine.reboot()
    healthy = place.invoke("health", "--wait", "60", "--format", "json")
    assert healthy.rc == 0, healthy
    assert place.ask() == ANSWER
    planned = place.invoke("plan")
    assert planned.rc == 0, planned

    # What was taken down stays down over a reboot.
    assert place.invoke("down").rc == 0
    machine.reboot()
    assert place.invoke("status", "--format", "json").data[0]["state"] == "absent"
