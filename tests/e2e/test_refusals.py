"""What cannot work: rolled back by itself, or refused before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from e2e.fleet import ANSWER, Fleet, Place, llama, tree
from testbed.machine import MODEL, TestMachine
from testbed.session import Testbed

pytestmark = pytest.mark.usefixtures("gguf")
Machines = Callable[..., list[TestMachine]]

# A kind whose server runs but never answers, made of the same image.
SLEEPER = {
    "summary": "runs and never answers",
    "api": "openai",
    "default-port": 8080,
    "health": {"path": "/health"},
    "probe": "openai-chat",
    "compose": {
        "image": "ghcr.io/ggml-org/llama.cpp:server-b11459",
        "entrypoint": ["/bin/sh", "-c"],
        "command": ["echo still thinking; exec sleep 600"],
        "port": 8080,
        "user": "65534:65534",
        "healthcheck": {"test": ["CMD", "true"]},
    },
}


@pytest.fixture
def fleet(tmp_path: Path, testbed: Testbed) -> Fleet:
    return Fleet(tmp_path, testbed.home)


@pytest.fixture
def place(shared_machine: TestMachine, fleet: Fleet) -> Place:
    return Place(shared_machine, fleet)


def test_a_release_that_does_not_become_ready_is_rolled_back(place: Place) -> None:
    place.write()
    assert place.invoke("up").rc == 0
    before = tree(place.machine, f"{place.root}/.inferbase/generations")

    # The container is not even made: this adapter does not exist. What is told is not the log of
    # the server before.
    place.write(options={"lora": "/nowhere.gguf"})
    ended = place.invoke("up", "--format", "json")
    assert ended.rc == 1, ended
    assert ended.data[0]["result"] == "rolled back"
    assert "/nowhere.gguf" in ended.data[0]["detail"]
    assert "slot " not in ended.err
    assert "/nowhere.gguf" in ended.err.split("last lines of its log:")[1]
    assert place.ask() == ANSWER
    assert place.invoke("health").rc == 0
    assert tree(place.machine, f"{place.root}/.inferbase/generations") == before

    # The server runs and never answers.
    services = place.fleet.overlay / "services"
    services.mkdir()
    (services / "sleeper.yaml").write_text(yaml.safe_dump(SLEEPER))
    slow = {"kind": "sleeper", "port": place.port, "start-timeout": 3}
    place.fleet.host(place.machine, {"llama": slow}, root=place.root)
    silent = place.invoke("up", "--format", "json")
    assert silent.rc == 1, silent
    assert silent.data[0]["result"] == "rolled back"
    assert "not ready after 3 s" in silent.data[0]["detail"]
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

    # Ground that is missing: no GPU at all, and a disk that is not mounted.
    fleet.host(machine, {"llama": llama(gpus="all")})
    refused("llama needs a GPU, and this machine has no NVIDIA device", "NVIDIA's driver")
    storage = {"storage": {"/srv/nvme": {"mount": True}}}
    fleet.host(machine, service, models="/srv/nvme/models", hostprep=storage)
    refused("/srv/nvme is not mounted, and llama would lie on the root disk", "mount the disk")
    assert not machine.exists("/srv/nvme")
    assert fleet.invoke("status", "--host", name).rc == 0

    # A foreign process and a foreign container hold the port.
    fleet.host(machine, service)
    machine.check(
        "systemd-run --unit squatter --uid ops systemd-socket-activate -l 127.0.0.1:8080 cat"
    )
    machine.check("timeout 10 sh -c 'until ss -Hltn sport = :8080 | grep -q .; do sleep .1; done'")
    said = refused("port 8080 of service llama is already taken", "give the service another `port`")
    assert "systemd-socket-activate -l 127.0.0.1:8080 cat" in said
    machine.check("systemctl stop squatter")
    image = "ghcr.io/ggml-org/llama.cpp:server-b11459"
    machine.check(
        f"docker run -d --name squatter -p 127.0.0.1:8080:8080 -v {MODEL}:/m:ro {image} -m /m"
    )
    refused("port 8080 of service llama is already taken", "container squatter")
    machine.check("docker rm -f squatter")
    assert fleet.invoke("up", "--host", name).rc == 0
