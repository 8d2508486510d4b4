"""Faults for real: after each the machine is wholly old or wholly new, says which, converges."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.fault_fleet import (
    STATE,
    FaultFleet,
    Gate,
    answers,
    converged,
    in_force,
    leftovers,
    running,
    settle,
    transactions,
    wanted,
)
from e2e.fleet import REPOSITORY, ROOT, inspect, llama, tree
from testbed.machine import TestMachine
from testbed.session import Testbed

BEGINNING = ["prepare", "lock", "upload", "stage", "link"]
END = ["switch", "start", "confirm", "unlock"]


class Bench:
    """One machine, its fleet, and a way to change what is wanted."""

    def __init__(self, testbed: Testbed, machine: TestMachine, folder: Path) -> None:
        self.machine = machine
        self.name = machine.name
        self.fleet = FaultFleet(folder, testbed.home)
        self.proxy = testbed.proxy(machine)
        self._edits = 0
        self.edit()

    def edit(self, **changes: Any) -> None:
        """Want something else than before; `proxied` is the same machine behind the proxy."""
        self._edits += 1
        service = llama(env={"EDIT": str(self._edits)}, **changes)
        self.fleet.host(self.machine, {"llama": service})
        self.fleet.machine(
            "proxied", address=f"{self.name}-proxied", root=ROOT, runtime="compose",
            services={"llama": service},
        )  # fmt: skip

    def kind(self, name: str, script: str, **changes: Any) -> None:
        """A kind of service like llama-cpp, with a shell script before (or for) the server."""
        kind = yaml.safe_load((REPOSITORY / "services/llama-cpp.yaml").read_text())
        kind["compose"]["entrypoint"] = ["/bin/sh", "-c", script, "sh"]
        folder = self.fleet.overlay / "services"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**kind, **changes}))

    def up(self) -> None:
        self.fleet.up(self.name)

    def says(self) -> str:
        """What `status` and `plan` tell of an interrupted run: old, new or nothing."""
        status = self.fleet.cli("status", "--host", self.name)
        plan = self.fleet.cli("plan", "--host", self.name)
        assert (status.rc, plan.rc) in {(0, 0), (0, 2)}, (status, plan)
        for word in ("old", "new"):
            if f"wholly {word}" in status.out:
                assert plan.rc == 2
                assert f"wholly {word}" in plan.out, plan
                return word
        assert "interrupted" not in status.out + plan.out, (status, plan)
        return ""


@pytest.fixture(scope="module")
def made(testbed: Testbed, gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    machine = testbed.machine()
    bench = Bench(testbed, machine, tmp_path_factory.mktemp("faults"))
    bench.up()
    yield bench
    testbed.destroy(machine)


@pytest.fixture
def bench(made: Bench) -> Bench:
    """A machine that is up and converged with what its file says."""
    try:
        made.up()
    except AssertionError:  # a test before this one has failed half way
        made.edit()
        made.up()
    return made


@pytest.mark.parametrize("steps", [BEGINNING, END], ids=["beginning", "end"])
def test_operator_killed_at_every_step(bench: Bench, steps: list[str]) -> None:
    """Each run starts from what the one before has left; the service answers all the time."""
    for step in steps:
        before = in_force(bench.machine)
        bench.edit()
        run = bench.fleet.begin("up", "--host", bench.name, "--yes", stop_at=("step", step))
        run.reached().kill()
        settle(bench.machine)
        now = in_force(bench.machine)
        said = bench.says()
        if step in {"confirm", "unlock"}:
            assert (now > before, said) == (True, "")
        elif now == before:
            assert said in {"", "old"}
        else:
            assert said == "new"
        assert transactions(bench.machine) == []
    answers(bench.machine)
    converged(bench.fleet, bench.machine)


def test_connection_cut_while_sending(bench: Bench) -> None:
    """Cut after a share of all that a whole run sends, from observation to verdict."""
    sizes = []
    for _ in range(2):  # the first asks more, such as what the model takes of memory
        sent = bench.proxy.up
        bench.edit()
        assert bench.fleet.cli("up", "--host", "proxied", "--yes").rc == 0
        sizes.append(bench.proxy.up - sent)
    total, cut = min(sizes), 0
    for share in (0.2, 0.4, 0.6, 0.8, 0.95):
        before, cuts = in_force(bench.machine), bench.proxy.cuts
        bench.edit()
        bench.proxy.cut_after(up=int(total * share))
        done = bench.fleet.cli("up", "--host", "proxied", "--yes")
        if bench.proxy.cuts == cuts:
            # How often it asks whether the service is ready is different each time.
            bench.proxy.cut_after()
            assert done.rc == 0, done
            continue
        cut += 1
        assert done.rc == 1, done
        assert "proxied" in done.err
        assert "Traceback" not in done.err
        settle(bench.machine)
        now = in_force(bench.machine)
        said = bench.says()
        assert said == "new" if now > before else said in {"", "old"}
    assert cut >= 3
    answers(bench.machine)
    converged(bench.fleet, bench.machine)


def test_connection_cut_between_switch_and_start(bench: Bench) -> None:
    """The machine goes on alone to the end of its step; the new release runs, unconfirmed."""
    before = in_force(bench.machine)
    bench.edit()
    gate = Gate(bench.machine, "docker", '*" up "*')
    run = bench.fleet.begin("up", "--host", "proxied", "--yes")
    gate.reached()
    bench.proxy.cut()
    done = run.ended()
    assert done.rc == 1, done
    assert "connection to proxied lost" in done.err
    held = bench.fleet.cli("up", "--host", bench.name, "--yes")
    assert held.rc == 4, held
    gate.open()
    settle(bench.machine)
    assert (in_force(bench.machine), bench.says()) == (before + 1, "new")
    assert running(bench.machine) == wanted(bench.machine)
    converged(bench.fleet, bench.machine)


def test_connection_cut_while_waiting_for_readiness(bench: Bench) -> None:
    before = in_force(bench.machine)
    bench.kind("slow", 'sleep 2; exec /app/llama-server "$@"')
    bench.edit(kind="slow")
    run = bench.fleet.begin("up", "--host", "proxied", "--yes", stop_at=("wait", ""))
    run.reached()
    bench.proxy.cut()
    done = run.go_on().ended()
    assert done.rc == 1, done
    assert "connection to proxied lost" in done.err, done
    settle(bench.machine)
    assert (in_force(bench.machine), bench.says()) == (before + 1, "new")
    converged(bench.fleet, bench.machine)


def test_network_that_falls_silent(bench: Bench) -> None:
    """No end of the connection is ever seen there; the machine gives the run up all the same."""
    before = in_force(bench.machine)
    bench.kind("slow", 'sleep 2; exec /app/llama-server "$@"')
    bench.edit(kind="slow")
    words = ("up", "--host", "proxied", "--yes")
    run = bench.fleet.begin(*words, stop_at=("wait", ""), silence=2)
    run.reached()
    bench.machine.check("sleep 3")
    held = bench.fleet.cli("up", "--host", bench.name, "--yes")
    assert held.rc == 4, held  # the operator is there, so its run goes on
    bench.proxy.stall()
    try:
        settle(bench.machine)
        assert (in_force(bench.machine), bench.says()) == (before + 1, "new")
        assert transactions(bench.machine) == []
    finally:
        run.kill()
        bench.proxy.cut()
        bench.proxy.resume()
    converged(bench.fleet, bench.machine)


def test_operator_killed_while_rolling_back(bench: Bench) -> None:
    before = in_force(bench.machine)
    bench.kind("broken", "echo no such device; exit 3")
    bench.edit(kind="broken")
    run = bench.fleet.begin("up", "--host", bench.name, "--yes", stop_at=("step", "revert"))
    run.reached().kill()
    settle(bench.machine)
    now = in_force(bench.machine)
    assert now == before
    assert bench.says() == "old"
    answers(bench.machine)
    bench.edit()
    converged(bench.fleet, bench.machine)


@pytest.mark.parametrize("moment", ["between switch and start", "during start"])
def test_power_lost(bench: Bench, moment: str) -> None:
    before = in_force(bench.machine)
    bench.edit()
    if moment == "during start":
        run = bench.fleet.begin("up", "--host", bench.name, "--yes", stop_at=("log", "Container"))
        run.reached()
    else:
        gate = Gate(bench.machine, "docker", '*" up "*')
        run = bench.fleet.begin("up", "--host", bench.name, "--yes")
        gate.reached()
    bench.machine.lose_power()
    run.kill()
    bench.machine.start()
    bench.machine.check("rm -f /usr/local/bin/docker")
    assert in_force(bench.machine) == before + 1
    assert bench.says() == "new"
    converged(bench.fleet, bench.machine)


def test_half_made_replacement_is_cleared_away(bench: Bench) -> None:
    """What power lost in the middle of compose's own work leaves: a container to be renamed."""
    old = inspect(bench.machine, "inference-llama")
    label = "--label com.docker.compose"
    bench.machine.check(
        f"docker create --name {old['Id'][:12]}_inference-llama {label}.project=inference "
        f"{label}.service=llama {old['Config']['Image']}"
    )
    bench.edit()
    converged(bench.fleet, bench.machine)


def test_crash_loop_is_rolled_back(bench: Bench) -> None:
    before = tree(bench.machine, f"{ROOT}/current/")
    digest = running(bench.machine)
    bench.kind("broken", "echo no such device; exit 3")
    bench.edit(kind="broken")
    done = bench.fleet.cli("up", "--host", bench.name, "--yes")
    assert done.rc == 1, done
    assert "no such device" in done.err
    assert "rolled back" in done.out
    assert tree(bench.machine, f"{ROOT}/current/") == before
    assert running(bench.machine) == digest
    answers(bench.machine)
    assert leftovers(bench.machine) == []
    history = bench.fleet.cli("history", "--host", bench.name)
    assert "rolled-back" in history.out
    bench.edit()
    converged(bench.fleet, bench.machine)


def test_health_never_green_is_rolled_back(bench: Bench) -> None:
    digest = running(bench.machine)
    bench.kind("sick", 'exec /app/llama-server "$@"', health={"path": "/nowhere", "loading": []})
    bench.edit(kind="sick", **{"start-timeout": "2s"})
    done = bench.fleet.cli("up", "--host", bench.name, "--yes")
    assert done.rc == 1, done
    assert "/nowhere answers 404" in done.err
    assert "last lines of its log" in done.err
    assert running(bench.machine) == digest
    answers(bench.machine)
    assert leftovers(bench.machine) == []
    bench.edit()
    converged(bench.fleet, bench.machine)


def test_two_operators_at_once(bench: Bench) -> None:
    before = in_force(bench.machine)
    bench.edit()
    first = bench.fleet.begin("up", "--host", bench.name, "--yes", stop_at=("step", "start"))
    first.reached()
    second = bench.fleet.cli("up", "--host", bench.name, "--yes")
    assert second.rc == 4, second
    assert "is locked by" in second.err
    assert "process" in second.err
    assert first.go_on().ended().rc == 0
    assert in_force(bench.machine) == before + 1
    converged(bench.fleet, bench.machine)


def test_two_operators_with_the_same_plan(bench: Bench) -> None:
    """Both saw a free machine; the slower one finds the lock, or a machine that has moved on."""
    before = in_force(bench.machine)
    bench.edit()
    gate = Gate(bench.machine, "tar", "*")
    first = bench.fleet.begin("up", "--host", bench.name, "--yes")
    gate.reached()
    gate.open()
    runs = [bench.fleet.begin("up", "--host", bench.name, "--yes") for _ in range(2)]
    codes = sorted([first.ended().rc, *(run.ended().rc for run in runs)])
    assert codes[0] == 0
    assert set(codes) <= {0, 1, 4}
    assert in_force(bench.machine) == before + 1
    converged(bench.fleet, bench.machine)


def test_docker_daemon_stopped(bench: Bench) -> None:
    bench.edit()
    bench.machine.check("systemctl stop docker.socket docker.service")
    before = tree(bench.machine)
    try:
        done = bench.fleet.cli("up", "--host", bench.name, "--yes")
    finally:
        bench.machine.check("systemctl start docker.socket docker.service")
        bench.machine.wait_up()
    assert done.rc == 1, done
    assert "Cannot connect to the Docker daemon" in done.err, done
    assert "hint: install Docker Engine 28 or newer and start it" in done.err, done
    assert tree(bench.machine) == before
    converged(bench.fleet, bench.machine)


def test_port_taken(bench: Bench) -> None:
    bench.edit(port=8099)
    bench.machine.check(
        "runuser -u ops -- systemd-socket-activate -l 127.0.0.1:8099 /bin/cat >/dev/null 2>&1 & "
        "until ss -Hltn 'sport = :8099' | grep -q .; do sleep 0.05; done"
    )
    before = tree(bench.machine)
    try:
        done = bench.fleet.cli("up", "--host", bench.name, "--yes")
    finally:
        bench.machine.check("pkill -x systemd-socket- || true")
    assert done.rc == 1
    assert "port 8099 of service llama is already taken on 127.0.0.1 by process" in done.err, done
    assert "systemd-socket-activate" in done.err, done
    assert tree(bench.machine) == before
    answers(bench.machine)
    bench.edit()
    converged(bench.fleet, bench.machine)


# What is damaged, what the error must say, and the remedy that its hint names.
DAMAGES = {
    "journal": (f"echo nonsense >{STATE}/journal", "journal is damaged", f"rm {STATE}/journal"),
    "binary journal": (
        f"head -c 3000 /bin/ls >{STATE}/journal", "journal is damaged", f"rm {STATE}/journal"
    ),
    "manifest": (
        f"echo '{{' >{ROOT}/current/.manifest", "/.manifest is damaged",
        f"sh {ROOT}/current/control remove; rm {ROOT}/current",
    ),
    "file at current": (
        f"rm {ROOT}/current; echo mine >{ROOT}/current", "current is not a link",
        f"mv {ROOT}/current /tmp/current-file",
    ),
    "directory at current": (
        f"rm {ROOT}/current; mkdir {ROOT}/current; echo mine >{ROOT}/current/mine",
        "current is not a link", f"mv {ROOT}/current /tmp/current-folder",
    ),
    "foreign link at current": (
        f"ln -sfn /etc {ROOT}/current", "does not point to a generation",
        f"mv {ROOT}/current /tmp/current-link",
    ),
    "link at .inferbase": (
        f"mv {STATE} /opt/inference/elsewhere; ln -s elsewhere {STATE}",
        f"{STATE} is a symbolic link", f"rm {STATE}; mv /opt/inference/elsewhere {STATE}",
    ),
    "link at generations": (
        f"mv {STATE}/generations {STATE}/elsewhere; ln -s elsewhere {STATE}/generations",
        f"{STATE}/generations is a symbolic link",
        f"rm {STATE}/generations; mv {STATE}/elsewhere {STATE}/generations",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_records(bench: Bench, damage: str) -> None:
    """A clear error and its remedy; nothing is followed, written or lost, the service goes on."""
    command, words, remedy = DAMAGES[damage]
    bench.edit()
    bench.machine.check(command, user="ops")
    before = tree(bench.machine)
    for verb in (["plan"], ["up", "--yes"]):
        done = bench.fleet.cli(*verb, "--host", bench.name)
        assert done.rc == 1, done
        assert words in done.err + done.out, done
        assert "hint: " in done.err + done.out, done
        assert "Traceback" not in done.err
    assert tree(bench.machine) == before
    answers(bench.machine)
    bench.machine.check(remedy, user="ops")
    if "current" in words or "manifest" in words:
        converged(bench.fleet, bench.machine)
    else:
        plan = bench.fleet.cli("plan", "--host", bench.name)
        assert (plan.rc, "replace llama" in plan.out, plan.err) == (2, True, ""), plan


@pytest.fixture(scope="module")
def small_made(
    testbed: Testbed, gguf: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    machine = testbed.machine(tmpfs={ROOT: 4})
    bench = Bench(testbed, machine, tmp_path_factory.mktemp("small"))
    bench.up()
    yield bench
    testbed.destroy(machine)


@pytest.fixture
def small(small_made: Bench) -> Bench:
    """A machine with a disk of 4 MiB for the root."""
    small_made.machine.check(f"mount -o remount,rw {ROOT}; rm -f {ROOT}/fill /usr/local/bin/*")
    small_made.up()
    return small_made


def fill(machine: TestMachine) -> None:
    """Leave 20 KiB free."""
    machine.run(f"cat /dev/zero >{ROOT}/fill; truncate -s -20k {ROOT}/fill")


def test_full_disk_is_seen_beforehand(small: Bench) -> None:
    small.edit()
    fill(small.machine)
    before = tree(small.machine)
    done = small.fleet.cli("up", "--host", small.name, "--yes")
    assert done.rc == 1, done
    assert f"{ROOT} has 0 MiB free" in done.err, done
    assert "hint: free some space there" in done.err
    assert tree(small.machine) == before
    small.machine.check(f"rm {ROOT}/fill")
    converged(small.fleet, small.machine)


@pytest.mark.parametrize(
    ("command", "pattern", "fault", "reason"),
    [
        ("tar", "*", "fill", "No space left on device"),
        ("tar", "*", "read-only", "Read-only file system"),
        ("mv", '*".new."*', "read-only", "Read-only file system"),
    ],
)
def test_disk_fails_in_the_middle(
    small: Bench, command: str, pattern: str, fault: str, reason: str
) -> None:
    """During the upload, and when it is put in its place."""
    before, edit = in_force(small.machine), running(small.machine)
    small.edit()
    gate = Gate(small.machine, command, pattern)
    run = small.fleet.begin("up", "--host", small.name, "--yes")
    gate.reached()
    if fault == "fill":
        fill(small.machine)
    else:
        small.machine.check(f"mount -o remount,ro {ROOT}")
    gate.open()
    done = run.ended()
    assert done.rc == 1, done
    assert reason in done.err, done
    assert f"{STATE}/generations" in done.err, done
    # The old state, wholly, and nothing half written.
    assert in_force(small.machine) == before
    assert running(small.machine) == edit
    answers(small.machine)
    assert transactions(small.machine) == []
    small.machine.check(f"mount -o remount,rw {ROOT}; rm -f {ROOT}/fill")
    converged(small.fleet, small.machine)


def test_read_only_disk_is_seen_beforehand(small: Bench) -> None:
    small.edit()
    small.machine.check(f"mount -o remount,ro {ROOT}")
    before = tree(small.machine)
    done = small.fleet.cli("up", "--host", small.name, "--yes")
    assert done.rc == 1, done
    assert f"{ROOT} is on a read-only file system" in done.err, done
    assert tree(small.machine) == before
    small.machine.check(f"mount -o remount,rw {ROOT}")
    assert small.fleet.cli("plan", "--host", small.name).rc == 2


def test_frozen_machine_does_not_hold_up_the_others(bench: Bench, small: Bench) -> None:
    """One host does not answer: it is named, and the other is brought up all the same."""
    config = bench.machine.ssh_config
    config.write_text(config.read_text() + "  ConnectTimeout 2\n")
    bench.edit()
    bench.fleet.host(small.machine, {"llama": llama()})
    small.machine.freeze()
    try:
        done = bench.fleet.cli("up", "--host", bench.name, "--host", small.name, "--yes")
    finally:
        small.machine.thaw()
    assert done.rc == 1, done
    assert f"{small.machine.address} does not answer within 2 s" in done.err, done
    rows = {line.split()[0]: line.split()[1] for line in done.out.splitlines()[1:]}
    assert rows == {bench.name: "changed", small.name: "failed"}
    small.machine.wait_up()
    converged(bench.fleet, bench.machine)


def test_cut_while_pushing_a_model(bench: Bench, tmp_path: Path) -> None:
    """What has arrived stays there, and the next run goes on behind it."""
    size = 12 << 20
    model = tmp_path / "model.gguf"
    model.write_bytes(os.urandom(size))
    bench.fleet.machine(
        "pushed", address=f"{bench.name}-proxied", root="/home/ops/pushed", runtime="compose",
        services={"llama": {"kind": "llama-cpp", "model": f"file:{model}", "port": 8097}},
    )  # fmt: skip
    bench.proxy.cut_after(up=size // 2)
    lost = bench.fleet.cli("update-models", "--host", "pushed")
    assert lost.rc == 1, lost
    assert "lost" in lost.err + lost.out, lost
    check = bench.fleet.cli("update-models", "--host", "pushed", "--check")
    assert (check.rc, "partial" in check.out) == (2, True), check
    sent = bench.proxy.up
    again = bench.fleet.cli("update-models", "--host", "pushed")
    assert again.rc == 0, again
    assert bench.proxy.up - sent < size * 3 // 4
    place = bench.machine.check("find -L /home/ops/pushed/models -name model.gguf -type f")
    found = bench.machine.check(f"sha256sum {place.split()[0]}").split()[0]
    assert found == hashlib.sha256(model.read_bytes()).hexdigest()
    assert bench.fleet.cli("update-models", "--host", "pushed", "--check").rc == 0
    assert bench.machine.run("pgrep -u ops -f pushed/models").out == ""
    assert "part" not in tree(bench.machine, "/home/ops/pushed")


@pytest.mark.parametrize("runtime", ["systemd", "compose"])
def test_a_service_leaves_the_machine_file(bench: Bench, runtime: str) -> None:
    """Renamed with a run killed half way, brought back, removed stopped and removed failed."""
    machine, root, program = bench.machine, f"/opt/{runtime}-leave", "/srv/leave-sleeper"
    llama_kind = yaml.safe_load((REPOSITORY / "services/llama-cpp.yaml").read_text())
    image, command = llama_kind["compose"]["image"], ["{program}", "1000"]
    kind = {
        "summary": "sleeps", "api": "http", "default-port": 7100,
        "systemd": {"program": program, "command": command},
        "compose": {
            "image": image, "entrypoint": ["sleep"], "command": ["1000"], "port": 7100,
            "user": "65534:65534", "stop-timeout": "1s",
        },
    }  # fmt: skip
    folder = bench.fleet.overlay / "services"
    folder.mkdir(exist_ok=True)
    (folder / "sleeper.yaml").write_text(yaml.safe_dump(kind))
    machine.write(program, "#!/bin/sh\nexec sleep 1000\n", mode="755")

    def want(*names: str) -> None:
        more = {"program": program, "restart": {"max": 1, "backoff": "1s"}}
        services = {
            name: {"kind": "sleeper", "port": 7100 + i, **(more if runtime == "systemd" else {})}
            for i, name in enumerate(names)
        }
        bench.fleet.machine(
            "leaving", address=machine.name, root=root, user="admin", sudo=True, runtime=runtime,
            services=services,
        )  # fmt: skip

    def up(*names: str) -> None:
        want(*names)
        bench.fleet.up("leaving")

    def runs(name: str) -> bool:
        unit = f"{runtime}-leave-{name}"
        asked = f"systemctl is-active {unit}" if runtime == "systemd" else f"docker top {unit}"
        return machine.run(asked).rc == 0

    def gone(name: str) -> None:
        state = f"{root}/.inferbase"
        found = machine.check(
            f"find {state} -name {name} -not -path '{state}/generations/*'; "
            f"ls /etc/systemd/system/*/*-leave-{name}.service "
            f"/etc/systemd/system/*-leave-{name}.service 2>/dev/null; "
            f"docker ps -aq --filter name=leave-{name}; "
            f"systemctl show -p LoadState -p ActiveState --value {runtime}-leave-{name}.service"
        )
        assert sorted(found.split()) == ["inactive", "not-found"], found

    def settled() -> None:
        plan = bench.fleet.cli("plan", "--host", "leaving")
        assert (plan.rc, "nothing to change" in plan.out) == (0, True), plan
        assert runs("stays")

    up("old", "stays")
    want("new", "stays")
    words = '*" stop "*old*' if runtime == "systemd" else '*" stop "*'
    gate = Gate(machine, "systemctl" if runtime == "systemd" else "docker", words)
    run = bench.fleet.begin("up", "--host", "leaving", "--yes")
    gate.reached()
    machine.check(
        f"pid=$(readlink {root}/.inferbase/lock); pkill -KILL -s $(ps -o sid= -p ${{pid%%|*}})"
    )
    assert run.ended().rc == 1
    gate.open()
    assert runs("old")
    assert "wholly new" in bench.fleet.cli("plan", "--host", "leaving").out
    bench.fleet.up("leaving")
    assert runs("new")
    gone("old")
    settled()

    back = bench.fleet.cli("rollback", "--host", "leaving", "--yes")
    assert back.rc == 0, back
    assert runs("old")
    gone("new")

    machine.check(f"sh {root}/current/control stop old")
    up("bad", "stays")
    gone("old")
    settled()
    if runtime == "systemd":
        machine.write(program, "#!/bin/sh\nexit 3\n", mode="755")
        machine.run("systemctl restart systemd-leave-bad")
        failed = "systemctl is-failed -q systemd-leave-bad"
        machine.check(f"timeout 20 sh -c 'until {failed}; do sleep 0.2; done'")
        machine.write(program, "#!/bin/sh\nexec sleep 1000\n", mode="755")
    else:
        machine.check("docker kill compose-leave-bad")
    up("stays")
    gone("bad")
    settled()
    assert bench.fleet.cli("down", "--host", "leaving", "--yes").rc == 0
