"""Refused, evicted, brought back: services that do not fit at once on a real machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.fleet import Fleet, Place, tree
from testbed.machine import TestMachine
from testbed.session import Testbed

IMAGE = "ghcr.io/ggml-org/llama.cpp:server-b11459"


def kind(command: str, **more: Any) -> dict[str, Any]:
    """A kind that inferbase knows nothing of: its services count with their memory limits."""
    return {
        "summary": "a process that does nothing",
        "api": "http",
        "compose": {
            "image": IMAGE,
            "entrypoint": ["/bin/sh", "-c"],
            "command": [command],
            "port": 8080,
            "user": "65534:65534",
            "healthcheck": {"test": ["CMD", "true"]},
            "stop-timeout": 1,
            "volumes": {"data": "/data"},
        },
        **more,
    }


KINDS = {
    "steady": kind("exec sleep 1000"),
    "crash": kind("echo I cannot; exit 7", health={"path": "/health"}),
    "silent": kind("exec sleep 1000", health={"path": "/health"}),
}


class Box(Place):
    """A place with services of half a machine and more."""

    def __init__(self, machine: TestMachine, fleet: Fleet) -> None:
        super().__init__(machine, fleet)
        services = fleet.overlay / "services"
        services.mkdir()
        for name, body in KINDS.items():
            (services / f"{name}.yaml").write_text(yaml.safe_dump(body))
        lines = dict(line.split()[:2] for line in machine.check("cat /proc/meminfo").splitlines())
        self.ports = 20000 + 20 * (self.port - 9000)
        self.total = int(lines["MemTotal:"]) // 1024
        self.free = int(lines["MemAvailable:"]) // 1024
        self.services: dict[str, dict[str, Any]] = {
            "small": self.service("steady", 0.6),
            "keep": self.service("steady", 0.01, evict="never"),
            "big": self.service("steady", 0.7, autostart=False),
        }
        self.put()

    def service(self, name: str, share: float, **more: Any) -> dict[str, Any]:
        self.ports += 1
        memory = f"{int(self.free * share)}M"
        return {"kind": name, "memory": memory, "port": self.ports, **more}

    def put(self, **more: dict[str, Any]) -> None:
        self.services |= more
        self.fleet.host(self.machine, self.services, root=self.root)

    def up(self) -> set[str]:
        """The services that run."""
        prefix = self.container.removesuffix("llama")
        names = self.machine.check(f"docker ps --filter name=^{prefix} --format '{{{{.Names}}}}'")
        return {name.removeprefix(prefix) for name in names.split()}


def verdicts(box: Box) -> tuple[int, dict[str, str]]:
    """What `health` says, and how it ends."""
    done = box.invoke("health", "--format", "json")
    return done.rc, {row["service"]: row["verdict"] for row in done.data}


@pytest.fixture
def box(shared_machine: TestMachine, tmp_path: Path, testbed: Testbed) -> Box:
    return Box(shared_machine, Fleet(tmp_path, testbed.home))


def test_one_in_place_of_another(box: Box) -> None:
    """One machine for all of it: each step begins where the one before has left it."""
    assert box.invoke("up").rc == 0
    assert box.up() == {"small", "keep"}
    before = tree(box.machine, box.root)

    # Refused before anything changes, with the sum and the one who could go; plan says the same.
    refused = box.invoke("up", "--service", "big")
    assert refused.rc == 1, refused
    assert "big does not fit: it needs " in refused.err
    assert "of small" in refused.err
    assert "is its memory limit]" in refused.err
    assert "hint: --evict stops small (" in refused.err
    assert box.invoke("plan", "--service", "big").rc == 1
    assert tree(box.machine, box.root) == before
    assert box.up() == {"small", "keep"}

    planned = box.invoke("plan", "--service", "big", "--evict")
    assert planned.rc == 2, planned
    assert "- evict small  (makes room for big: " in planned.out
    assert box.up() == {"small", "keep"}
    done = box.invoke("up", "--service", "big", "--evict")
    assert done.rc == 0, done
    assert box.up() == {"big", "keep"}
    assert verdicts(box) == (0, {"small": "evicted", "keep": "healthy", "big": "healthy"})
    assert box.invoke("up", "--service", "big", "--evict").out.split()[-3:-1] == ["unchanged", "1"]

    # The one that is protected stays, whatever the newcomer wants.
    box.put(huge=box.service("steady", box.total / box.free, autostart=False))
    stuck = box.invoke("up", "--service", "huge", "--evict")
    assert stuck.rc == 1
    assert "evict: never protects keep" in stuck.err
    assert box.up() == {"big", "keep"}

    # A newcomer that fails: who was stopped for it runs again.
    box.put(bad=box.service("crash", 0.7, autostart=False))
    failed = box.invoke("up", "--service", "bad", "--evict", "--format", "json")
    assert failed.rc == 1, failed
    assert failed.data[0]["result"] == "rolled back"
    assert "I cannot" in failed.err
    assert "note: big, which had made room, runs again" in failed.err
    assert box.up() == {"big", "keep"}
    assert verdicts(box)[1] == {"small": "evicted", "keep": "healthy", "big": "healthy"}


def test_cut_in_the_middle(box: Box) -> None:
    """The operator dies when one is stopped and the other is not ready: the next run converges."""
    slow = box.service("silent", 0.7, autostart=False)
    box.put(slow={**slow, "start-timeout": 120})
    assert box.invoke("up").rc == 0

    def cut() -> None:
        running = box.fleet.start("up", "--host", box.machine.name, "--service", "slow", "--evict")
        deadline = time.monotonic() + 60
        while box.up() != {"slow", "keep"} and time.monotonic() < deadline:
            time.sleep(0.2)
        running.kill()
        running.communicate()
        box.machine.check(f"timeout 30 sh -c 'while [ -L {box.root}/.inferbase/lock ]; do "
                          "sleep .1; done'")  # fmt: skip
        assert box.up() == {"slow", "keep"}

    cut()
    seen = box.invoke("plan", "--service", "slow")
    assert "was interrupted" in seen.out
    # It fails again, and what the first run stopped comes back.
    box.put(slow={**slow, "start-timeout": 2})
    failed = box.invoke("up", "--service", "slow", "--evict", "--format", "json")
    assert failed.rc == 1, failed
    assert failed.data[0]["result"] == "rolled back"
    assert box.up() == {"small", "keep"}
    assert not box.machine.exists(f"{box.root}/.inferbase/journal")

    # Or something else is wanted after all.
    box.put(slow={**slow, "start-timeout": 120})
    cut()
    done = box.invoke("up", "--service", "small", "--evict")
    assert done.rc == 0, done
    assert box.up() == {"small", "keep"}


@pytest.mark.usefixtures("gguf")
def test_a_real_model_that_is_too_large(box: Box) -> None:
    """The arithmetic is read from the model's own file on the machine."""
    place = Place(box.machine, box.fleet)
    place.write(options={"ctx-size": 900_000_000})
    refused = place.invoke("up")
    assert refused.rc == 1, refused
    assert "llama does not fit: it needs " in refused.err
    assert "KV cache" in refused.err
    assert not place.machine.exists(f"{place.root}/current")

    told = place.invoke("capacity", "--live", "--format", "json")
    assert told.rc == 2, told
    service = told.data[0]["services"][0]
    assert service["fits"] is False
    assert service["model_read"] == f"on {box.machine.name}"
    terms = {term["name"]: term for term in service["terms"]}
    # SmolLM2-135M: 30 layers, 3 KV heads of 64, keys and values of 16 bits.
    assert terms["KV per token"]["amount"] == 2 * 30 * 3 * 64 * 2
    place.write()
    table = place.invoke("capacity", "--live")
    assert table.rc == 0, table
    assert "llama fits: it needs " in table.out
    blind = place.invoke("capacity")
    assert blind.rc == 0, blind
    assert "it lies on the machine, which was not asked" in blind.out


def test_owners_of_what_is_taken(box: Box) -> None:
    """A container's name, a volume, CPUs and a port, each with the one who has it."""
    prefix = box.container.removesuffix("llama")
    project = prefix.rstrip("-")
    shared = f"{project}_web-data"
    box.put(web=box.service("steady", 0.01, cpuset="0", port=box.port))
    box.machine.check(f"docker create --name {prefix}web --entrypoint sleep {IMAGE} 9")
    box.machine.check(
        f"docker run -d --name other --cpuset-cpus 0 -v {shared}:/x --entrypoint sleep {IMAGE} 99"
    )
    box.machine.check(
        f"systemd-run --unit squat --uid ops systemd-socket-activate -l 127.0.0.1:{box.port} cat"
    )
    box.machine.check(
        f"timeout 10 sh -c 'until ss -Hltn sport = :{box.port} | grep -q .; do sleep .1; done'"
    )
    try:
        refused = box.invoke("up", "--service", "web")
        assert refused.rc == 1, refused
        taken = f"the container name {prefix}web of service web is taken by a stopped container"
        assert f"{taken} of nobody's project ({IMAGE})" in refused.err
        assert f"the volume {shared} of service web is in use by container other" in refused.err
        assert f"container other ({IMAGE}) are both pinned to CPU 0" in refused.err
        assert "of squat.service (" in refused.err
    finally:
        box.machine.check(f"docker rm -f other {prefix}web; systemctl stop squat")
