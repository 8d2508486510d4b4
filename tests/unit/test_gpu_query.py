"""The question about GPUs, asked of a stub of nvidia-smi, and whose processes are found."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from plan_cases import make_release, make_unit
from stub_nvidia_smi import install

from inferfleet.errors import FleetError
from inferfleet.gpu import local
from inferfleet.gpu.facts import FOREIGN, Gpu, GpuFacts, Process, Xid
from inferfleet.gpu.query import gpu_script, parse_answer
from inferfleet.hosts.local import LocalHost
from inferfleet.observe.observed import Observed
from inferfleet.operations.gpus import read_gpus
from inferfleet.operations.status import status_rows
from inferfleet.run.session import Session, observe_script

BOX = "a" * 64
without_driver = pytest.mark.skipif(
    shutil.which("nvidia-smi") is not None, reason="this machine has an NVIDIA driver"
)
UNITS = {
    "vllm": replace(make_unit("vllm", {}), runtime="compose"),
    "llama": replace(make_unit("llama", {}), runtime="systemd", name="inference-100-llama"),
    "small": replace(make_unit("small", {}), runtime="process", name="small"),
}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in front of PATH, with a dmesg that may not be read."""
    folder = tmp_path / "bin"
    folder.mkdir()
    add(folder, "dmesg", "exit 1")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def add(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def ask(root: str = "/nowhere", pids: tuple[int, ...] | None = None) -> str:
    done = subprocess.run(
        ["sh", "-c", gpu_script(root, "inference", pids)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def test_a_card_is_asked_once(path: Path) -> None:
    install(path, "rtx-5090", busy=True)
    facts = parse_answer(ask(), UNITS)
    (gpu,) = facts.gpus
    assert gpu.name == "NVIDIA GeForce RTX 5090"
    assert [(p.pid, p.owner) for p in gpu.processes] == [
        (4101, FOREIGN), (4202, FOREIGN), (3094, FOREIGN),
    ]  # fmt: skip
    assert facts.xids is None
    assert (facts.host_total or 0) > (facts.host_available or 0) > 0


def test_the_list_of_clocks_is_not_sent(path: Path) -> None:
    install(path, "rtx-pro-6000")
    assert "supported_graphics_clock" not in ask()


def test_errors_in_the_kernel_log(path: Path) -> None:
    install(path, "tesla-t4")
    add(
        path,
        "dmesg",
        "echo '[ 7.1] NVRM: loading'\n"
        "echo '[ 9.2] NVRM: Xid (PCI:0000:00:1e): 79, pid=1122, GPU has fallen off the bus.'",
    )
    facts = parse_answer(ask(), UNITS)
    assert facts.xids == (Xid("0000:00:1e", 79, "pid=1122, GPU has fallen off the bus."),)
    add(path, "dmesg", "echo quiet")
    assert parse_answer(ask(), UNITS).xids == ()


def test_mig_devices_have_their_profiles(path: Path) -> None:
    install(path, "h100-nvl-mig", instances=["1g.12gb"] * 7)
    (gpu,) = parse_answer(ask(), UNITS).gpus
    assert [one.profile for one in gpu.mig.instances] == ["1g.12gb"] * 7


@without_driver
def test_no_driver(path: Path) -> None:
    facts = parse_answer(ask(), UNITS)
    assert facts.gpus == ()
    assert "not installed" in facts.note


@pytest.mark.parametrize(
    ("fail", "what"),
    [("mismatch", "newer than its kernel"), ("none", "no GPU"), ("permission", "may not ask"),
     ("driver", "not loaded"), ("unknown", "does not answer")],
)  # fmt: skip
def test_a_driver_that_fails(path: Path, fail: str, what: str) -> None:
    install(path, "tesla-t4", fail=fail)
    with pytest.raises(FleetError, match=what):
        parse_answer(ask(), UNITS)


def test_a_cut_answer() -> None:
    with pytest.raises(FleetError, match="cut short"):
        parse_answer("smi\t0\n", UNITS)


@pytest.fixture
def process() -> Iterator[int]:
    """A process in a session of its own, as the process runtime makes them."""
    running = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield running.pid
    running.kill()
    running.wait()


def test_a_process_of_the_process_runtime(path: Path, tmp_path: Path, process: int) -> None:
    run = tmp_path / ".inferbase" / "run" / "small"
    run.mkdir(parents=True)
    (run / "child").write_text(f"{process} 123 456 0\n")
    known = GpuFacts(
        (Gpu(0, "GPU-0", "x", processes=(Process(process, "sleep"), Process(1, "i"))),)
    )
    facts = parse_answer(ask(str(tmp_path), (process, 1)), UNITS, known)
    assert [p.owner for p in facts.gpus[0].processes] == ["small", FOREIGN]


def test_a_process_of_ours_on_a_machine_that_is_a_container() -> None:
    text = f"process\t7\t7\t/docker/{'b' * 64}\nchild\tsmall\t7\nend\n"
    known = GpuFacts((Gpu(0, "GPU-0", "x", processes=(Process(7, "p"),)),))
    assert parse_answer(text, UNITS, known).gpus[0].processes[0].owner == "small"


@pytest.mark.parametrize(
    ("group", "owner"),
    [
        (f"/system.slice/docker-{BOX}.scope", "vllm"),
        (f"/docker/{BOX}", "vllm"),
        ("/docker/" + "b" * 64, FOREIGN),
        ("/docker/" + "c" * 64, FOREIGN),
        ("/system.slice/inference-100-llama.service", "llama"),
        ("/system.slice/inference-100-llama.service/child", "llama"),
        ("/system.slice/other.service", FOREIGN),
        ("/user.slice/user-1000.slice/session-1.scope", FOREIGN),
        ("", FOREIGN),
    ],
)
def test_owner_by_control_group(group: str, owner: str) -> None:
    text = f"process\t7\t1\t{group}\ncontainer\t{BOX}\tvllm\ncontainer\t{'b' * 64}\tgone\nend\n"
    known = GpuFacts((Gpu(0, "GPU-0", "x", processes=(Process(7, "p"),)),))
    assert parse_answer(text, UNITS, known).gpus[0].processes[0].owner == owner


def test_containers_are_asked_for_only_when_there_are_some(path: Path, tmp_path: Path) -> None:
    add(path, "docker", f"echo asked >>{tmp_path}/asked; printf 'container\\t%s\\tvllm\\n' {BOX}")
    ask(pids=(os.getpid(),))
    own = Path("/proc/self/cgroup").read_text()
    assert (tmp_path / "asked").exists() == ("docker" in own)


class Stubbed(LocalHost):
    """This machine; counts its round trips."""

    trips = 0

    def run(self, script: str, **options: Any) -> Any:
        self.trips += 1
        return super().run(script, **options)


def rows(root: Path, gpus: bool, services: frozenset[str] | None = None) -> tuple[list[Any], int]:
    host = Stubbed("box")
    release = replace(make_release({}), root=str(root))
    session = Session(host, release, False, {}, {})
    return status_rows(session, services, gpus=gpus), host.trips


def test_status_shows_gpus_in_its_one_round_trip(path: Path, tmp_path: Path) -> None:
    add(path, "nvidia-smi", "echo '0, NVIDIA H100 NVL, 95830, 86412, 41, 45'")
    found, trips = rows(tmp_path, gpus=True)
    details = [row["detail"] for row in found if row["state"] == "gpu"]
    assert details == ["0 NVIDIA H100 NVL: 84.4 of 93.6 GiB, 41 % busy, 45 C"]
    assert trips == 1


def test_status_of_unified_memory(path: Path, tmp_path: Path) -> None:
    add(path, "nvidia-smi", "echo '0, NVIDIA GB10, [N/A], [N/A], 96, 50'")
    (row,) = [row for row in rows(tmp_path, gpus=True)[0] if row["state"] == "gpu"]
    assert " GiB, 96 % busy, 50 C" in row["detail"]


@pytest.mark.parametrize(
    ("body", "what"),
    [("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", "newer"),
     pytest.param(None, "not installed", marks=without_driver)],
)  # fmt: skip
def test_status_says_why_there_are_none(
    path: Path, tmp_path: Path, body: str | None, what: str
) -> None:
    if body:
        add(path, "nvidia-smi", body)
    (row,) = [row for row in rows(tmp_path, gpus=True)[0] if row["state"] == "gpu"]
    assert what in row["detail"]


def test_machines_without_a_gpu_pay_nothing(path: Path, tmp_path: Path) -> None:
    assert "nvidia-smi" not in observe_script(make_release({}))
    assert all(row["state"] != "gpu" for row in rows(tmp_path, gpus=False)[0])
    assert all(row["state"] != "gpu" for row in rows(tmp_path, True, frozenset({"a"}))[0])
    assert Observed({}).gpu_lines == ()


def session() -> Session:
    return Session(LocalHost("box"), replace(make_release({}), units=UNITS), False, {}, {})


@without_driver
def test_a_gpu_that_is_expected_must_be_there(path: Path) -> None:
    with pytest.raises(FleetError, match="box: nvidia-smi is not installed"):
        read_gpus(session(), local=False, expected=True)
    assert read_gpus(session(), local=False, expected=False).gpus == ()
    install(path, "tesla-t4")
    assert len(read_gpus(session(), local=False, expected=True).gpus) == 1


def test_an_error_names_its_machine(path: Path) -> None:
    install(path, "tesla-t4", fail="mismatch")
    with pytest.raises(FleetError, match="box: the driver's libraries") as caught:
        read_gpus(session(), local=False, expected=True)
    assert "reboot" in caught.value.hint


def test_here_the_library_is_asked_before_the_program(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(path, "tesla-t4")
    known = GpuFacts((Gpu(0, "GPU-9", "from the library", processes=(Process(1, "init"),)),), "580")
    monkeypatch.setattr(local, "local_gpus", lambda: known)
    found = read_gpus(session(), local=True, expected=True)
    assert [gpu.name for gpu in found.gpus] == ["from the library"]
    assert found.gpus[0].processes[0].owner == FOREIGN
    assert (found.host_total or 0) > 0

    def none() -> GpuFacts:
        raise local.NoLibrary("libnvidia-ml.so.1 is not installed")

    monkeypatch.setattr(local, "local_gpus", none)
    assert read_gpus(session(), local=True, expected=True).gpus[0].name == "Tesla T4"

    def broken() -> GpuFacts:
        raise FleetError("the driver's kernel module is not loaded")

    monkeypatch.setattr(local, "local_gpus", broken)
    with pytest.raises(FleetError, match="kernel module"):
        read_gpus(session(), local=True, expected=True)
