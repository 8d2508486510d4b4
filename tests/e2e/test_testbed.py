"""The testbed is what it claims to be; without this no other end-to-end test proves anything."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from testbed import images
from testbed.machine import MODEL, TestMachine
from testbed.session import Testbed

COMPOSE = f"""
services:
  llama:
    image: {images.LLAMA}
    command: [--model, /model.gguf, --port, "8080", --ctx-size, "512", --threads, "1"]
    user: "65534:65534"
    read_only: true
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    ulimits: {{memlock: -1}}
    ports: ["127.0.0.1:8080:8080"]
    volumes: ["{MODEL}:/model.gguf:ro"]
    restart: unless-stopped
    healthcheck: {{interval: 1s}}
"""
QUESTION = {
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is the capital of France?"},
    ],
    "temperature": 0,
    "max_tokens": 16,
}
Machines = Callable[..., list[TestMachine]]


def test_ssh_verifies_the_host_key(testbed: Testbed, machine: TestMachine) -> None:
    """The ssh binary gets in with the known key, and not with an unknown or a changed one."""
    assert machine.ssh("hostname; id -un").out.split() == [machine.name, "ops"]

    testbed.forget_host_key(machine)
    unknown = machine.ssh("true")
    assert unknown.rc == 255
    assert "Host key verification failed" in unknown.out

    testbed.change_host_key(machine, trust=True)
    assert machine.ssh("true").rc == 0
    testbed.change_host_key(machine)
    changed = machine.ssh("true")
    assert changed.rc == 255
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in changed.out


def test_host_keys_are_unique(machines: Machines) -> None:
    first, second = machines(2)
    assert first.host_key != second.host_key
    assert first.address != second.address


def test_users_have_the_rights_they_claim(shared_machine: TestMachine) -> None:
    """ops drives Docker and owns the root; admin has sudo; pwadmin has it with the password."""
    assert shared_machine.ssh("docker ps -q && test -w /opt/inference").rc == 0
    assert shared_machine.ssh("sudo -n true").rc != 0
    assert shared_machine.ssh("sudo -n id -u", user="admin").out.strip() == "0"
    assert shared_machine.ssh("docker ps", user="admin").rc != 0
    assert "password is required" in shared_machine.ssh("sudo -n true", user="pwadmin").out
    password = shared_machine.sudo_password.encode() + b"\n"
    asked = shared_machine.ssh("sudo -S -p '' id -u", user="pwadmin", stdin=password)
    assert asked.out.strip() == "0"


def test_target_has_systemd_and_compose_but_no_python(shared_machine: TestMachine) -> None:
    assert shared_machine.ssh("cat /proc/1/comm").out.strip() == "systemd"
    assert shared_machine.check("systemctl is-system-running").strip() == "running"
    assert shared_machine.ssh("docker compose version --short").out.startswith("2.")
    assert shared_machine.ssh("python3 -c 'import json'").rc == 127


def test_llama_serves_the_real_model_hardened_and_survives_a_reboot(
    machine: TestMachine, gguf: Path
) -> None:
    """The real server answers from a read-only, unprivileged container, before and after."""
    machine.write("/opt/inference/compose.yaml", COMPOSE, owner="ops")
    up = machine.ssh("cd /opt/inference && docker compose up -d --wait")
    assert up.rc == 0, up.out
    assert _answer(machine) == "The capital of France is Paris."

    host = json.loads(machine.check("docker inspect inference-llama-1"))[0]["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]

    before = machine.started_at()
    machine.reboot()
    assert machine.started_at() != before
    machine.check(
        "timeout 60 sh -c 'until curl -sf http://127.0.0.1:8080/health; do sleep 0.1; done'"
    )
    assert _answer(machine) == "The capital of France is Paris."


def _answer(machine: TestMachine) -> str:
    request = json.dumps(QUESTION)
    reply = machine.check(
        "curl -sS --fail-with-body http://127.0.0.1:8080/v1/chat/completions "
        "-H 'Content-Type: application/json' -d @-",
        stdin=request.encode(),
    )
    text: str = json.loads(reply)["choices"][0]["message"]["content"]
    return text.strip()


def test_machine_loses_power_and_comes_back(machine: TestMachine) -> None:
    machine.check("echo kept > /opt/inference/kept && sync")
    machine.lose_power()
    assert machine.run("true").rc != 0
    machine.start()
    assert machine.ssh("cat /opt/inference/kept").out == "kept\n"


def test_network_can_be_cut(shared_machine: TestMachine) -> None:
    shared_machine.cut()
    probe = [
        "ssh",
        "-F",
        str(shared_machine.ssh_config),
        "-o",
        "ConnectTimeout=1",
        shared_machine.name,
        "true",
    ]
    lost = subprocess.run(probe, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    assert lost.returncode == 255
    assert shared_machine.run("true").rc == 0
    shared_machine.uncut()
    assert shared_machine.ssh("true").rc == 0


def test_small_disk_fills(machines: Machines) -> None:
    machine = machines(1, tmpfs={"/opt/inference": 2})[0]
    full = machine.ssh("head -c 3000000 /dev/zero > /opt/inference/big")
    assert full.rc != 0
    assert "No space left on device" in full.out


def test_jump_host_is_the_only_way_in(testbed: Testbed, machines: Machines) -> None:
    jump, inner = machines(2)
    inner.accept_ssh_only_from(jump.address)
    config = str(inner.ssh_config)
    direct = ["ssh", "-F", config, "-o", "ConnectTimeout=1", inner.name, "hostname"]
    assert subprocess.run(direct, stdin=subprocess.DEVNULL, check=False).returncode == 255
    through = f"ssh -F {config} -W %h:%p {jump.name}"
    hop = ["ssh", "-F", config, "-o", f"ProxyCommand={through}", inner.name, "hostname"]
    assert subprocess.check_output(hop, stdin=subprocess.DEVNULL, text=True).strip() == inner.name


@pytest.mark.parametrize("way", ["up", "down"])
def test_proxy_cuts_at_the_byte(testbed: Testbed, shared_machine: TestMachine, way: str) -> None:
    """A transfer through the proxy breaks where it should, and the next one goes through."""
    proxy = testbed.proxy(shared_machine)
    command = "cat > /tmp/received" if way == "up" else "head -c 1000000 /dev/zero"
    payload = b"x" * 1_000_000 if way == "up" else b""
    argv = ["ssh", "-F", str(shared_machine.ssh_config), f"{shared_machine.name}-proxied", command]

    done = subprocess.run(argv, input=payload, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    counted = proxy.up if way == "up" else proxy.down
    assert counted > 1_000_000

    proxy.cut_after(**{way: 200_000})
    lost = subprocess.run(argv, input=payload, capture_output=True, check=False)
    assert lost.returncode == 255
    assert (proxy.up if way == "up" else proxy.down) - counted == 200_000
    assert proxy.cuts == 1
    assert subprocess.run(argv, input=payload, capture_output=True, check=False).returncode == 0


def test_proxy_adds_latency(testbed: Testbed, shared_machine: TestMachine) -> None:
    """A byte through a slow proxy arrives, and not before its time."""
    proxy = testbed.proxy(shared_machine, latency_s=0.05)
    argv = [
        "ssh",
        "-F",
        str(shared_machine.ssh_config),
        f"{shared_machine.name}-proxied",
        "hostname",
    ]
    reply = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert reply.stdout.decode().strip() == shared_machine.name
    assert proxy.slept_s >= 0.05


def test_frozen_machine_goes_on_after_thaw(shared_machine: TestMachine) -> None:
    shared_machine.freeze()
    waiting = subprocess.Popen(
        ["ssh", "-F", str(shared_machine.ssh_config), shared_machine.name, "echo thawed"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=0.5)
    shared_machine.thaw()
    assert waiting.communicate()[0] == "thawed\n"
