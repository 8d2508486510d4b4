"""Kinds with real programs: the node exporter as a unit, own files in a container."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from e2e.fleet import REPOSITORY, Fleet, Place, inspect
from testbed import exporter
from testbed.machine import TestMachine
from testbed.session import Testbed

TEMPLATE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}[go]"


@pytest.fixture
def fleet(tmp_path: Path, testbed: Testbed) -> Fleet:
    return Fleet(tmp_path, testbed.home)


def test_node_exporter_reports_the_whole_machine(shared_machine: TestMachine, fleet: Fleet) -> None:
    machine = shared_machine
    machine.check(
        "cat >/usr/bin/prometheus-node-exporter && chmod 755 /usr/bin/prometheus-node-exporter",
        stdin=exporter.program().read_bytes(),
    )
    machine.write("/home/ops/metrics/own.prom", "own_figure 7\n", mode="644")
    machine.check("chmod 755 /home/ops")
    fleet.host(
        machine,
        {
            "node": {
                "kind": "node-exporter",
                "options": {
                    "collector.arp": False,
                    "collector.textfile.directory": "/home/ops/metrics",
                },
            }
        },
        root="/opt/inference/watch",
        runtime="systemd",
        user="admin",
        sudo=True,
    )
    up = fleet.invoke("up", "--host", machine.name)
    assert up.rc == 0, up
    assert "ready after" in up.err

    found = machine.check("curl -sSf http://127.0.0.1:9100/metrics")
    for name in (
        'node_cpu_seconds_total{cpu="0"',
        "node_filesystem_size_bytes{",
        "node_memory_MemTotal_bytes",
    ):
        assert name in found
    assert "own_figure 7" in found
    assert "node_arp_entries" not in found
    network = machine.check("ls /sys/class/net").split()
    assert all(f'device="{name}"' in found for name in network if name != "lo")
    assert machine.run(f"curl -s -m 5 http://{machine.address}:9100/").rc != 0

    pid = machine.check("systemctl show --value -p MainPID watch-node").strip()
    status = machine.check(f"cat /proc/{pid}/status")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(facts["Uid"].split()[0]) > 1000
    assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0
    assert facts["NoNewPrivs"].strip() == "1"

    machine.check("systemctl kill --signal KILL watch-node")
    health = fleet.invoke("health", "--host", machine.name, "--wait", "30", "--format", "json")
    assert health.rc == 0, health
    assert machine.check("systemctl show --value -p NRestarts watch-node").strip() == "1"
    plan = fleet.invoke("plan", "--host", machine.name)
    assert plan.rc == 0, plan
    assert fleet.invoke("down", "--host", machine.name, "--yes").rc == 0


def test_node_exporter_sees_the_machine_from_its_container(
    shared_machine: TestMachine, fleet: Fleet
) -> None:
    machine = shared_machine
    image = yaml.safe_load((REPOSITORY / "services" / "node-exporter.yaml").read_text())["compose"]
    # The program and what it loads, under the name of the real image.
    machine.check(
        "cat >/tmp/node_exporter && chmod 755 /tmp/node_exporter && "
        "tar -chf - -C / tmp/node_exporter lib64/ld-linux-x86-64.so.2 "
        "lib/x86_64-linux-gnu/libc.so.6 usr/bin/true etc/passwd | docker import "
        f"--change 'ENTRYPOINT [\"/tmp/node_exporter\"]' - {image['image']}",
        stdin=exporter.program().read_bytes(),
    )
    machine.check("mkdir -p /srv/later")
    fleet.host(
        machine,
        {"node": {"kind": "node-exporter", "port": 9101}},
        root="/opt/inference/seen",
    )
    up = fleet.invoke("up", "--host", machine.name)
    assert up.rc == 0, up

    found = machine.check("curl -sSf http://127.0.0.1:9101/metrics")
    assert f'nodename="{machine.name}"' in found
    assert 'device="eth0"' in found
    # The machine's processes, not the one of the container.
    count = int(machine.check("ls -d /proc/[0-9]* | wc -l"))
    running = re.search(r"^node_procs_running (\d+)", found, re.M)
    assert running is not None
    assert count > 5
    # A disk that is mounted later on is seen, and the machine's files cannot be written.
    machine.check("mount -t tmpfs -o size=3m later /srv/later")
    try:
        found = machine.check("curl -sSf http://127.0.0.1:9101/metrics")
        assert 'mountpoint="/srv/later"} 3.145728e+06' in found
    finally:
        machine.check("umount /srv/later")
    facts = inspect(machine, "seen-node")
    host = facts["HostConfig"]
    assert (host["ReadonlyRootfs"], host["Privileged"]) == (True, False)
    assert (host["NetworkMode"], host["PidMode"]) == ("host", "host")
    assert [(m["Source"], m["RW"]) for m in facts["Mounts"]] == [("/", False)]
    status = machine.check(f"cat /proc/{facts['State']['Pid']}/status")
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert lines["Uid"].split() == ["65534"] * 4
    assert int(lines["CapEff"], 16) == int(lines["CapBnd"], 16) == 0
    assert machine.run(f"curl -s -m 5 http://{machine.address}:9101/").rc != 0
    assert fleet.invoke("down", "--host", machine.name).rc == 0


@pytest.mark.usefixtures("gguf")
def test_a_file_of_the_service_reaches_its_container(
    shared_machine: TestMachine, fleet: Fleet
) -> None:
    place = Place(shared_machine, fleet)
    options = {"chat-template-file": "files/chat.jinja", "jinja": True}
    place.write(files={"chat.jinja": TEMPLATE}, options=options)
    up = place.invoke("up")
    assert up.rc == 0, up
    body = json.dumps({"messages": [{"role": "user", "content": "Hi $HOME"}]})
    asked = f"curl -sSf http://127.0.0.1:{place.port}/apply-template -d @-"
    said = json.loads(shared_machine.check(asked, stdin=body.encode()))
    assert said["prompt"] == "<user>Hi $HOME[go]"

    # Another text is another service: it is replaced, not left with what it has read.
    place.write(files={"chat.jinja": TEMPLATE + "!"}, options=options)
    edited = place.invoke("up")
    assert edited.rc == 0, edited
    assert "~ replace llama" in edited.err
    said = json.loads(shared_machine.check(asked, stdin=body.encode()))
    assert said["prompt"] == "<user>Hi $HOME[go]!"
    assert place.invoke("down").rc == 0


@pytest.mark.usefixtures("gguf")
def test_an_embedding_proves_an_embedding_service(
    shared_machine: TestMachine, fleet: Fleet
) -> None:
    place = Place(shared_machine, fleet)
    place.write(options={"embeddings": True, "pooling": "mean"})
    up = place.invoke("up")
    assert up.rc == 0, up
    health = place.invoke("health", "--format", "json")
    assert health.rc == 0, health
    assert "made an embedding" in str(health.data)
    assert place.invoke("down").rc == 0
