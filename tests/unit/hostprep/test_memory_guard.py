"""The kind memory-guard: the floor and who keeps it, and the watch itself against a made /proc."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from tools import needs

from inferfleet.hostprep.facts import Facts, Stat
from inferfleet.hostprep.kinds.memory import memory_guard as guard
from inferfleet.hostprep.kinds.memory.memory_guard import MemoryGuard
from inferfleet.hostprep.setting import Finding, Ground, Judgement, Wanted
from inferfleet.hostprep.steps import Run
from inferfleet.remote import program

GIB = 1 << 30
FLOOR = Wanted("memory-guard", "floor", 8 * GIB)
GROUND = Ground((FLOOR,))
MEMORY = {guard.MEMINFO: "MemTotal:       127600748 kB\nMemAvailable:   90000000 kB\n"}
THERE = Stat("directory", "755", "root", "root", "1")
UP = ("/sys/fs/cgroup/system.slice/inferbase-memory-guard.service", guard.WANTS)


def facts(files: dict[str, str] | None = None, stats: Iterable[str] = ()) -> Facts:
    return Facts(MEMORY | (files or {}), stats=dict.fromkeys(stats, THERE))


def contents(judged: Judgement) -> dict[str, str]:
    return {file.path: file.content for file in judged.files if file.content is not None}


def one(judged: Judgement) -> Finding:
    (finding,) = judged.findings
    return finding


def test_our_own_watch_where_there_is_no_earlyoom() -> None:
    judged = MemoryGuard().judge(GROUND, facts())
    assert one(judged).verdict == "differs"
    assert set(contents(judged)) == {guard.SCRIPT, guard.UNIT_FILE}
    assert "floor=8388608\n" in contents(judged)[guard.SCRIPT]
    # What follows the files starts it, and stops it when they go again.
    assert judged.changes == ()
    after = {file.after for file in judged.files if file.content is not None}
    assert len(after) == 1
    again = MemoryGuard().judge(GROUND, facts(contents(judged), UP))
    assert one(again) == Finding(FLOOR, *["8192 MiB (inferbase-memory-guard.service)"] * 2, "ok")
    assert again.changes == ()
    assert contents(again) == contents(judged)


@pytest.mark.parametrize(
    ("stats", "text", "undo"),
    [
        ((UP[1],), "started", ["stop"]),
        ((UP[0],), "enabled", ["disable"]),
        ((), "started and enabled", ["stop", "disable"]),
    ],
)
def test_a_watch_that_was_stopped_is_started(
    stats: tuple[str, ...], text: str, undo: list[str]
) -> None:
    files = contents(MemoryGuard().judge(GROUND, facts()))
    judged = MemoryGuard().judge(GROUND, facts(files, stats))
    assert one(judged).verdict == "differs"
    (change,) = judged.changes
    assert change.text == f"inferbase-memory-guard.service {text}"
    assert [step.argv[1] for step in change.undo if isinstance(step, Run)] == undo


def test_earlyoom_keeps_the_floor_where_it_is_installed() -> None:
    judged = MemoryGuard().judge(GROUND, facts(stats=[guard.EARLYOOM]))
    found = contents(judged)
    assert set(found) == {guard.DROP_IN}
    assert f"{guard.EARLYOOM} -M 8388608,4194304 -s 100 " in found[guard.DROP_IN]
    assert [change.text for change in judged.changes] == ["earlyoom.service started and enabled"]
    cgroup = "/sys/fs/cgroup/systemd/system.slice/earlyoom.service"
    stats = [guard.EARLYOOM, cgroup, guard.EARLYOOM_WANTS]
    again = MemoryGuard().judge(GROUND, facts(found, stats))
    assert one(again).verdict == "ok"
    assert again.changes == ()
    # It was installed after our own watch had been made: that one goes.
    both = facts({guard.SCRIPT: "old", guard.UNIT_FILE: "old"}, stats)
    gone = {file.path for file in MemoryGuard().judge(GROUND, both).files if file.content is None}
    assert gone == {guard.SCRIPT, guard.UNIT_FILE}


def test_a_floor_that_would_end_everything() -> None:
    high = Ground((Wanted("memory-guard", "floor", 64 * GIB),))
    judged = MemoryGuard().judge(high, facts())
    assert one(judged).verdict == "unsupported"
    assert contents(judged) == {}
    # A machine whose memory nobody could read is not judged by it.
    assert one(MemoryGuard().judge(high, Facts())).verdict == "differs"


def test_nothing_wanted() -> None:
    assert contents(MemoryGuard().judge(Ground(), facts())) == {}
    assert MemoryGuard().look(Ground()).stats == ()
    drop = Wanted("memory-guard", "drop-caches", True)
    found = one(MemoryGuard().judge(Ground((drop,)), facts()))
    assert found == Finding(drop, "before each start", "before each start", "ok")


@needs("systemd-analyze")
def test_the_unit_is_clean_and_hardened(tmp_path: Path) -> None:
    path = tmp_path / guard.UNIT
    path.write_text(contents(MemoryGuard().judge(GROUND, facts()))[guard.UNIT_FILE])
    done = subprocess.run(
        ["systemd-analyze", "verify", path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    score = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=25", path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert score.returncode == 0, score.stdout[-200:]


class Watch:
    """The watch against a folder like /proc; its victims are real processes of this test."""

    def __init__(self, folder: Path) -> None:
        self.proc = folder / "proc"
        self.folder = folder
        self.children: list[subprocess.Popen[bytes]] = []

    def process(self, name: str, kib: int) -> int:
        child = subprocess.Popen(["sleep", "600"])
        self.children.append(child)
        (self.proc / str(child.pid)).mkdir(parents=True)
        status = f"Name:\t{name}\nVmRSS:\t{kib} kB\nVmSwap:\t0 kB\n"
        (self.proc / str(child.pid) / "status").write_text(status)
        return child.pid

    def run(self, available: int, rounds: int = 5, gpu: str = "") -> str:
        self.proc.mkdir(exist_ok=True)
        (self.proc / "meminfo").write_text(f"MemTotal: 1000 kB\nMemAvailable: {available} kB\n")
        tools = self.folder / "bin"
        tools.mkdir(exist_ok=True)
        (tools / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '%s\\n' '{gpu}'\n")
        (tools / "nvidia-smi").chmod(0o755)
        script = program(
            "memory-guard", floor=100, engines=" ".join(guard.ENGINES), proc=str(self.proc),
            pause="0.01", rounds=rounds,
        )  # fmt: skip
        environment = {"PATH": f"{tools}:{os.environ['PATH']}"}
        done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True,
                              check=True)  # fmt: skip
        return done.stdout

    def ended(self) -> set[int]:
        return {child.pid for child in self.children if child.poll() is not None}

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.wait()


@pytest.fixture
def watch(tmp_path: Path) -> Iterable[Watch]:
    made = Watch(tmp_path)
    yield made
    made.close()


def test_the_largest_engine_is_ended_and_one_only(watch: Watch) -> None:
    watch.process("llama-server", 50)
    largest = watch.process("VLLM::EngineCor", 70)
    watch.process("postgres", 900)
    said = watch.run(available=99, rounds=20)
    assert (
        f"99 KiB are available, 100 should be: ending VLLM::EngineCor ({largest}, 70 KiB)" in said
    )
    assert said.count("ending") == 1
    assert watch.ended() == {largest}


def test_what_the_driver_gave_counts(watch: Watch) -> None:
    watch.process("llama-server", 5000)
    user = watch.process("python3", 10)
    said = watch.run(available=0, gpu=f"{user}, 96")
    assert f"ending python3 ({user}, 98314 KiB)" in said
    # A process whose memory the driver does not tell is still one that uses the GPU.
    watch.close()
    other = watch.process("trainer", 6000)
    assert f"ending trainer ({other}, " in watch.run(available=0, gpu=f"{other}, [N/A]")


@pytest.mark.parametrize(("available", "rounds"), [(100, 20), (0, 2)])
def test_enough_or_low_for_a_moment_ends_nothing(watch: Watch, available: int, rounds: int) -> None:
    watch.process("llama-server", 50)
    assert watch.run(available, rounds) == ""
    assert watch.ended() == set()


def test_nobody_to_end(watch: Watch) -> None:
    watch.process("postgres", 900)
    assert "no inference process is there to end" in watch.run(available=0)
    assert watch.ended() == set()
