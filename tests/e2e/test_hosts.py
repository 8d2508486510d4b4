"""The ways in: host keys, jump hosts, sudo; and native units on a machine's own systemd."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from e2e.fleet import ANSWER, Fleet, ask, inspect, llama, tree
from testbed.machine import TestMachine
from testbed.session import Testbed

pytestmark = pytest.mark.usefixtures("gguf")
Machines = Callable[..., list[TestMachine]]

# The server and its libraries out of the image, as a program of the machine: started by its
# own loader, because the machine's C library is older.
TAKE_OUT = """
set -e
mkdir -p /srv/llama
id=$(docker create ghcr.io/ggml-org/llama.cpp:server-b11459)
docker export "$id" | tar -xf - -C /srv/llama
docker rm "$id" >/dev/null
libraries=/usr/lib/$(uname -m)-linux-gnu
ln -s "/srv/llama$libraries/ggml" "$libraries/ggml"
cat >/srv/llama-server <<SCRIPT
#!/bin/sh
here=/srv/llama$libraries
exec \\$here/ld-linux-*.so.* --library-path \\$here:\\$here/llama \\
  /srv/llama/usr/bin/llama-server "\\$@"
SCRIPT
chmod 755 /srv/llama-server
"""
UNIT = "native-llama.service"


@pytest.fixture
def fleet(tmp_path: Path, testbed: Testbed) -> Fleet:
    return Fleet(tmp_path, testbed.home)


def fingerprint(machine: TestMachine) -> str:
    """As ssh-keygen -l prints it."""
    blob = base64.b64decode(machine.host_key.split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def refused(fleet: Fleet, target: TestMachine, *words: str) -> str:
    """plan and up fail with these words, and the target stays as it was."""
    before = tree(target)
    said = ""
    for task in ("plan", "up"):
        done = fleet.invoke(task, "--host", target.name)
        assert done.rc == 1, done
        assert all(word in done.err for word in words), done
        assert "Traceback" not in done.err
        said = done.err
    assert tree(target) == before
    return said


def test_host_keys_and_jump_hosts(testbed: Testbed, machines: Machines, fleet: Fleet) -> None:
    """Through a hop; then every host key unknown or changed, on the target and on the hop."""
    hop, target = machines(2)
    target.accept_ssh_only_from(hop.address)
    fleet.host(hop, {})
    fleet.host(target, {"llama": llama()}, jump=hop.name)
    done = fleet.invoke("up", "--host", target.name)
    assert done.rc == 0, done
    assert ask(target) == ANSWER
    tunnelled = fleet.invoke("health", "--host", target.name)
    assert tunnelled.rc == 0, tunnelled
    fleet.host(target, {"llama": llama(options={"ctx-size": 768})}, jump=hop.name)

    known = hop.known_hosts.read_text()
    for machine in (target, hop):
        testbed.forget_host_key(machine)
        print_ = fingerprint(machine)
        said = refused(
            fleet,
            target,
            f"host key of {machine.address} is not known: ssh-ed25519 {print_}",
            "compare the fingerprint",
            "ssh_host_ed25519_key.pub",
        )
        accept = said.split("accept it: ")[1].splitlines()[0]
        # The command in the hint, run as it stands, is what makes it known.
        ran = fleet.shell(accept)
        assert ran.rc == 0, ran
        assert fleet.invoke("plan", "--host", target.name).rc == 2
        hop.known_hosts.write_text(known)

        old = print_
        testbed.change_host_key(machine)
        said = refused(
            fleet,
            target,
            f"host key of {machine.address} has changed: known ssh-ed25519 {old}",
            f"offered ssh-ed25519 {fingerprint(machine)}",
            f"ssh-keygen -R {machine.address}",
        )
        remove = said.split("remove the old key: ")[1].splitlines()[0]
        assert fleet.shell(remove).rc == 0
        refused(fleet, target, f"host key of {machine.address} is not known")
        testbed.trust_all()
        known = hop.known_hosts.read_text()

    gone = fleet.invoke("plan", "--host", target.name, "--format", "json")
    assert gone.rc == 2, gone
    assert gone.data[0]["generation"] == {"from": 1, "to": 2}


def test_sudo_with_and_without_a_password(machine: TestMachine, fleet: Fleet) -> None:
    """A root-owned root directory; the password is asked for once and shown nowhere."""
    root = "/srv/inference"
    service = {"llama": llama()}
    fleet.host(machine, service, root=root, user="admin", sudo=True)
    done = fleet.invoke("up", "--host", machine.name)
    assert done.rc == 0, done
    assert machine.check(f"stat -c '%U %a' {root}").split() == ["root", "755"]
    assert ask(machine) == ANSWER

    service = {"llama": llama(options={"ctx-size": 768})}
    fleet.host(machine, service, root=root, user="pwadmin", sudo=True)
    before = tree(machine, root)
    blind = fleet.invoke("up", "--host", machine.name)
    assert blind.rc == 1, blind
    assert "sudo" in blind.err
    assert "there is no terminal to ask on" in blind.err
    assert tree(machine, root) == before

    words = ("up", "--host", machine.name, "--yes")
    code, shown = fleet.on_terminal(*words, replies=[("password: ", "not the password")])
    assert code == 1, shown
    assert "the password was refused" in shown
    assert tree(machine, root) == before

    words = ("up", "--host", machine.name)
    replies = [("password: ", machine.sudo_password), ("[y/N] ", "n")]
    code, shown = fleet.on_terminal(*words, replies=replies)
    assert code == 1, shown
    assert "nothing was changed" in shown
    assert tree(machine, root) == before

    replies = [("password: ", machine.sudo_password), ("[y/N] ", "y")]
    code, shown = fleet.on_terminal(*words, replies=replies)
    assert code == 0, shown
    assert shown.count("password: ") == 1
    assert machine.sudo_password not in shown
    assert "768" in inspect(machine, "inference-llama")["Args"]
    assert machine.sudo_password not in machine.check(f"grep -r correct {root} || true")


def test_native_units(machine: TestMachine, fleet: Fleet, tmp_path: Path) -> None:
    """A hardened unit with a secret: runs, restarts, survives a reboot, rolls back, goes down."""
    key = "canary-7d1f $HOME \"quoted\" 'too' \\ %n"
    machine.check(TAKE_OUT)
    (tmp_path / "key").write_text(key + "\n")

    def write(**options: Any) -> None:
        service = llama(program="/srv/llama-server", secrets=["LLAMA_API_KEY"], options=options)
        fleet.host(
            machine,
            {"llama": service},
            root="/opt/native",
            user="admin",
            sudo=True,
            runtime="systemd",
            secrets={"LLAMA_API_KEY": {"file": str(tmp_path / "key")}},
        )

    def invoke(task: str, *words: str) -> Any:
        done = fleet.invoke(task, "--host", machine.name, *words)
        assert "canary-7d1f" not in done.out + done.err
        return done

    write()
    done = invoke("up")
    assert done.rc == 0, done
    assert ask(machine, key=key) == ANSWER
    assert machine.run("curl -sf http://127.0.0.1:8080/v1/models").rc != 0
    assert invoke("health").rc == 0
    assert invoke("plan").rc == 0

    verified = machine.check(f"systemd-analyze verify {UNIT} 2>&1 | grep -v SysV || true")
    assert verified == ""
    exposure = machine.check(f"systemd-analyze security --no-pager {UNIT} | tail -n 1")
    assert float(exposure.split("level for")[1].split(":")[1].split()[0]) <= 2.5, exposure
    pid = machine.check(f"systemctl show -p MainPID --value {UNIT}").strip()
    uid = machine.check(f"stat -c %u /proc/{pid}").strip()
    assert int(uid) >= 61184  # systemd.exec(5), DynamicUser
    status = machine.check(f"cat /proc/{pid}/status")
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    # The secret is in no command line and in no file that others can read.
    assert "canary" not in machine.check("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    holding = machine.check(
        "grep -rl canary-7d1f /opt/native /etc/systemd /srv/llama-server"
    ).split()
    assert {machine.check(f"stat -c '%U %a' {path}").strip() for path in holding} == {"root 600"}

    restarted = invoke("restart")
    assert restarted.rc == 0, restarted
    assert machine.check(f"systemctl show -p MainPID --value {UNIT}").strip() != pid

    write(**{"ctx-size": 768})
    edited = invoke("up")
    assert edited.rc == 0, edited
    assert "768" in machine.check(f"systemctl show -p ExecStart {UNIT}")
    (tmp_path / "key").write_text("canary-7d1f-other\n")
    planned = invoke("plan")
    assert planned.rc == 2, planned
    assert "secret, content not shown" in planned.out
    assert "replace llama" in planned.out
    (tmp_path / "key").write_text(key + "\n")

    machine.reboot()
    waited = invoke("health", "--wait", "60")
    assert waited.rc == 0, waited
    assert invoke("plan").rc == 0

    back = invoke("rollback")
    assert back.rc == 0, back
    assert "512" in machine.check(f"systemctl show -p ExecStart {UNIT}")
    assert ask(machine, key=key) == ANSWER

    write(lora="/nowhere.gguf")
    failed = invoke("up")
    assert failed.rc == 1, failed
    assert "the LoRA adapter /nowhere.gguf cannot be loaded" in failed.err
    assert "/nowhere.gguf" in failed.err.split("in its own words:")[1]
    assert ask(machine, key=key) == ANSWER

    write()
    down = invoke("down")
    assert down.rc == 0, down
    assert machine.run(f"systemctl is-active {UNIT}").out.strip() == "inactive"
    still = invoke("apply")
    assert still.rc == 0, still
    machine.reboot()
    assert machine.run(f"systemctl is-active {UNIT}").out.strip() == "inactive"
    assert invoke("up").rc == 0
    assert ask(machine, key=key) == ANSWER
