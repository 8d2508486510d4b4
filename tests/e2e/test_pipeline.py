"""One true pipeline: the command line against a real machine, its Docker and a real model."""

from __future__ import annotations

import itertools
import json
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.fleet import ANSWER, QUESTION, Fleet, ask, inspect, llama, tree
from testbed.machine import MODEL, TestMachine
from testbed.session import Testbed

pytestmark = pytest.mark.usefixtures("gguf")
_NUMBERS = itertools.count(1)
Machines = Callable[..., list[TestMachine]]

# A kind whose server runs but never answers, made of the same image.
SLEEPER = {
    "summary": "runs and never answers",
    "api": "openai",
    "default-port": 8080,
    "health": {"path": "/health"},
    "probe": "openai-chat",
    "compose": {
        "image": "ghcr.io/ggml-org/llama.cpp:server-b11206",
        "entrypoint": ["/bin/sh", "-c"],
        "command": ["echo still thinking; exec sleep 600"],
        "port": 8080,
        "user": "65534:65534",
        "healthcheck": {"test": ["CMD", "true"]},
    },
}


class Place:
    """A root of its own on the shared machine, so that tests do not meet."""

    def __init__(self, machine: TestMachine, fleet: Fleet) -> None:
        number = next(_NUMBERS)
        self.machine, self.fleet = machine, fleet
        self.root, self.port = f"/opt/inference/r{number}", 9000 + number
        self.container = f"r{number}-llama"

    def write(self, **changes: Any) -> None:
        """The machine file, with one llama service and some changes to it."""
        service = llama(**{"port": self.port, **changes})
        self.fleet.host(self.machine, {"llama": service}, root=self.root)

    def invoke(self, task: str, *words: str, timeout: float = 180) -> Any:
        return self.fleet.invoke(task, "--host", self.machine.name, *words, timeout=timeout)

    def ask(self) -> str:
        return ask(self.machine, self.port)


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
    assert health.data[0]["stage"] == "ready"
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


def test_a_release_that_does_not_become_ready_is_rolled_back(place: Place) -> None:
    place.write()
    assert place.invoke("up").rc == 0
    before = tree(place.machine, f"{place.root}/.inferbase/generations")

    # The server ends at once: this adapter does not exist.
    place.write(options={"lora": "/nowhere.gguf"})
    ended = place.invoke("up", "--format", "json")
    assert ended.rc == 1, ended
    assert ended.data[0]["result"] == "rolled back"
    assert "last lines of its log:" in ended.err
    assert "/nowhere.gguf" in ended.err.split("last lines of its log:")[1]
    assert place.ask() == ANSWER
    assert place.invoke("health").rc == 0
    assert tree(place.machine, f"{place.root}/.inferbase/generations") == before

    # The server runs and never answers.
    services = place.fleet.overlay / "services"
    services.mkdir()
    (services / "sleeper.yaml").write_text(yaml.safe_dump(SLEEPER))
    slow = {"kind": "sleeper", "port": place.port, "start-timeout": 4}
    place.fleet.host(place.machine, {"llama": slow}, root=place.root)
    silent = place.invoke("up", "--format", "json")
    assert silent.rc == 1, silent
    assert silent.data[0]["result"] == "rolled back"
    assert "not ready after 4 s" in silent.data[0]["detail"]
    assert "still thinking" in silent.err.split("last lines of its log:")[1]
    assert place.ask() == ANSWER
    assert tree(place.machine, f"{place.root}/.inferbase/generations") == before
    place.write()
    assert place.invoke("plan").rc == 0

    rows = place.invoke("history", "--format", "json").data
    assert [row["event"] for row in rows] == ["up", "rolled-back", "rolled-back"]


def test_a_first_release_that_fails_leaves_nothing_running(place: Place) -> None:
    place.write(options={"lora": "/nowhere.gguf"})
    failed = place.invoke("up", "--format", "json")
    assert failed.rc == 1, failed
    assert failed.data[0]["result"] == "rolled back"
    assert place.machine.run(f"docker inspect {place.container}").rc != 0
    assert not place.machine.exists(f"{place.root}/current")
    place.write()
    assert place.invoke("up").rc == 0
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


def test_one_machine_that_fails_does_not_stop_the_other(
    place: Place, fleet: Fleet, machine: TestMachine
) -> None:
    """One works, one lacks Docker, one refuses: a table of all three, exit 1."""
    root = place.root
    machine.check("mv /usr/bin/docker /usr/bin/docker.away")
    fleet.host(place.machine, {"llama": llama(port=place.port)}, root=root, groups=["lab"])
    fleet.host(machine, {"llama": llama(port=place.port)}, groups=["lab", "old"])
    fleet.machine("gone", address="127.0.0.1", port=1, groups=["lab"], root="/opt/x")
    done = fleet.invoke("up", "--group", "lab", "--format", "json")
    assert done.rc == 1, done
    rows = {row["machine"]: row for row in done.data}
    assert rows[place.machine.name]["result"] == "changed"
    assert (rows[machine.name]["result"], rows["gone"]["result"]) == ("refused", "failed")
    assert "docker" in rows[machine.name]["detail"]
    assert "refused the connection" in rows["gone"]["detail"]
    assert place.ask() == ANSWER

    table = fleet.invoke("up", "--group", "lab")
    assert table.rc == 1
    assert {tuple(line.split()[:2]) for line in table.out.splitlines()[1:]} == {
        ("gone", "failed"),
        (place.machine.name, "unchanged"),
        (machine.name, "refused"),
    }
    only = fleet.invoke("status", "--group", "old", "--format", "json")
    assert {row["machine"] for row in only.data} == {machine.name}
    nearest = fleet.invoke("status", "--group", "lub")
    assert nearest.rc == 64
    assert "did you mean lab?" in nearest.err


def test_what_is_missing_is_found_before_anything_is_written(
    fleet: Fleet, machines: Machines
) -> None:
    machine = machines(1, tmpfs={"/srv/small": 1})[0]
    name, service = machine.name, {"llama": llama()}
    empty = tree(machine)

    def refused(*words: str) -> str:
        """up refuses, plan says the same, and the machine stays as it was."""
        done = fleet.invoke("up", "--host", name)
        assert done.rc == 1, done
        assert "refused" in done.out
        assert all(word in done.err for word in (*words, "hint: ")), done
        assert tree(machine) == empty
        return done.err

    fleet.host(machine, service)
    machine.check("mv /usr/bin/docker /usr/bin/docker.away")
    refused("docker: is not installed", "install Docker Engine")
    assert fleet.invoke("plan", "--host", name).rc == 1
    machine.check("mv /usr/bin/docker.away /usr/bin/docker")

    plugin = "/usr/libexec/docker/cli-plugins/docker-compose"
    machine.check(f"mv {plugin} {plugin}.away")
    refused("compose: is not installed", "install the Docker Compose plugin")
    machine.check(f"mv {plugin}.away {plugin}")

    machine.check("systemctl stop docker.socket docker.service")
    refused("docker: ", "start it")
    machine.check("systemctl start docker.service")

    fleet.host(machine, service, root="/srv/small/inference")
    refused("/srv/small has", "MiB free", "free some space")
    assert machine.check("ls /srv/small") == ""

    fleet.host(machine, service, root="/srv/inference")
    refused("ops may not write to /srv", "sudo: true")

    # A foreign process and a foreign container hold the port.
    fleet.host(machine, service)
    machine.check(
        "systemd-run --unit squatter --uid ops systemd-socket-activate -l 127.0.0.1:8080 cat"
    )
    machine.check("timeout 10 sh -c 'until ss -Hltn sport = :8080 | grep -q .; do sleep .1; done'")
    said = refused("port 8080 of service llama is already taken", "give the service another `port`")
    assert "systemd-socket-activate -l 127.0.0.1:8080 cat" in said
    machine.check("systemctl stop squatter")
    image = "ghcr.io/ggml-org/llama.cpp:server-b11206"
    machine.check(
        f"docker run -d --name squatter -p 127.0.0.1:8080:8080 -v {MODEL}:/m:ro {image} -m /m"
    )
    refused("port 8080 of service llama is already taken", "container squatter")
    machine.check("docker rm -f squatter")
    assert fleet.invoke("up", "--host", name).rc == 0
