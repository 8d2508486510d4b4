"""The kind irq: by name, past what the kernel decides, kept from irqbalance and over a start."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from inferfleet.hostprep.facts import Facts, Stat
from inferfleet.hostprep.kinds import boot
from inferfleet.hostprep.kinds.cpu import irq
from inferfleet.hostprep.kinds.cpu.irq import Irq, interrupts
from inferfleet.hostprep.setting import Change, Finding, Ground, Judgement, Wanted
from inferfleet.hostprep.steps import Run

CASE = Path(__file__).parents[2] / "cases" / "hostprep" / "interrupts-6.1.txt"
TEXT = CASE.read_text().partition("\n")[2]
WANTED = Wanted("irq", "virtio0", "1")
GROUND = Ground((WANTED,))
FOLDER = Stat("directory", "755", "root", "root", "1")


def facts(cpus: str = "0-1", files: Mapping[str, str] | None = None, balanced: bool = False,
          modes: Mapping[int, str] | None = None) -> Facts:  # fmt: skip
    found = {irq.INTERRUPTS: TEXT, irq.ONLINE: "0-1\n"}
    found |= {f"/proc/irq/{n}/smp_affinity_list": f"{cpus}\n" for n in range(24, 32)}
    stats = {irq.SIGNS[0]: FOLDER} if balanced else {}
    for number, mode in (modes or {}).items():
        path = f"/proc/irq/{number}/smp_affinity_list"
        stats[path] = Stat("regular empty file", mode, "root", "root", "1")
    return Facts({**found, **(files or {})}, stats=stats)


def booted(ground: Ground = GROUND) -> dict[str, str]:
    """The boot script that an earlier run has written."""
    files = boot.judge(Irq().bootlines(ground, facts()), Facts()).files
    return {file.path: file.content for file in files if file.content}


def one(judged: Judgement) -> Finding:
    assert len(judged.findings) == 1
    return judged.findings[0]


def applied(change: Change, state: dict[int, str], undo: bool = False) -> dict[int, str]:
    after = dict(state)
    for step in change.undo if undo else change.do:
        assert isinstance(step, Run)
        assert step.quiet
        assert step.argv[:2] == ("sh", "-c")
        after[int(step.argv[-2])] = step.argv[-1]
    return after


def test_names_are_what_follows_the_counts() -> None:
    found = {entry.number: entry.name for entry in interrupts(TEXT)}
    assert found[30] == "PCI-MSI 16385-edge virtio0-input.0"
    assert sorted(found) == [0, 1, 4, 8, 9, 12, *range(24, 32)]


def test_moves_and_its_undo() -> None:
    judged = Irq().judge(GROUND, facts())
    assert (one(judged).live, one(judged).persisted, one(judged).verdict) == ("0-1", "-", "differs")
    (change,) = judged.changes
    assert change.text == "0-1 -> 1 (3 interrupts)"
    before = dict.fromkeys((29, 30, 31), "0-1")
    after = applied(change, before)
    assert after == dict.fromkeys((29, 30, 31), "1")
    assert applied(change, after, undo=True) == before


def test_nothing_to_do_when_it_is_so_now_and_after_a_start() -> None:
    judged = Irq().judge(GROUND, facts("1", booted()))
    assert one(judged) == Finding(WANTED, "1", "1", "ok")
    assert judged.changes == ()
    assert all(file.content is None for file in judged.files)
    # The same CPUs, written as another list.
    wide = Ground((Wanted("irq", "virtio0", "0,1"),))
    assert one(Irq().judge(wide, facts("0-1", booted(wide)))).verdict == "ok"


@pytest.mark.parametrize("how", ["noted", "read-only"])
def test_what_the_kernel_decides_is_said_and_left(how: str) -> None:
    files = booted() | ({irq.REFUSED: "30\n31\n"} if how == "noted" else {})
    modes = {30: "444", 31: "444"} if how == "read-only" else {}
    judged = Irq().judge(GROUND, facts("1", files, modes=modes))
    assert one(judged).verdict == "ok"
    assert one(judged).live == "1 (the kernel decides for 30, 31)"
    moved = Irq().judge(GROUND, facts("0", files, modes=modes)).changes[0]
    assert applied(moved, {}) == {29: "1"}
    # All of them: nothing can be done.
    only = Ground((Wanted("irq", "virtio0-input", "1"),))
    found = Irq().judge(only, facts("0", files, modes=modes))
    assert one(found).verdict == "unsupported"
    assert found.changes == ()


def test_irqbalance_is_told_once() -> None:
    judged = Irq().judge(GROUND, facts("1", booted(), balanced=True))
    assert one(judged).verdict == "differs"
    contents = {file.path: file.content or "" for file in judged.files}
    assert "IRQBALANCE_BANNED_CPULIST=1\n" in contents[irq.DROP_IN]
    assert f"--policyscript={irq.POLICY}" in contents[irq.DROP_IN]
    assert {file.path: file.mode for file in judged.files}[irq.POLICY] == 0o755
    again = Irq().judge(GROUND, facts("1", {**booted(), **contents}, balanced=True))
    assert one(again).verdict == "ok"
    # A variable in a file that systemd reads after the drop-in.
    args = {irq.DEFAULTS[0]: '#IRQBALANCE_ARGS=\nIRQBALANCE_ARGS="--debug"\n'}
    over = Irq().judge(GROUND, facts("1", {**booted(), **contents, **args}, balanced=True))
    assert one(over).verdict == "overridden"
    assert "IRQBALANCE_ARGS" in one(over).remedy


@pytest.mark.parametrize(
    ("seen", "verdict", "word"),
    [
        (Facts({irq.ONLINE: "0-1\n"}), "unknown", "cannot be read"),
        (Facts({irq.ONLINE: "0-1\n", irq.INTERRUPTS: "  CPU0\n"}), "absent", "driver"),
        (facts("0", {irq.ONLINE: "0\n"}), "unsupported", "only 0"),
    ],
)
def test_faults(seen: Facts, verdict: str, word: str) -> None:
    judged = Irq().judge(GROUND, seen)
    assert one(judged).verdict == verdict
    assert word in one(judged).remedy
    assert judged.changes == ()


def test_nothing_wanted_takes_our_files_away() -> None:
    left = Facts({irq.DROP_IN: "old", irq.POLICY: "old"})
    assert set(Irq().look(Ground()).paths) == {irq.DROP_IN, irq.POLICY}
    assert all(file.content is None for file in Irq().judge(Ground(), left).files)
    assert Irq().bootlines(Ground(), left) == ()


@pytest.mark.parametrize(("number", "answer"), [(30, "ban=true\n"), (4, ""), (3, "")])
def test_the_policy_script_bans_ours(number: int, answer: str, tmp_path: Path) -> None:
    (tmp_path / "interrupts").write_text(TEXT)
    files = {f.path: f.content for f in Irq().judge(GROUND, facts(balanced=True)).files}
    script = (files[irq.POLICY] or "").replace(irq.INTERRUPTS, str(tmp_path / "interrupts"))
    done = subprocess.run(
        ["sh", "-s", "/sys/devices/x", str(number)],
        input=script, text=True, capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout == answer


def test_the_boot_script_finds_them_by_name(tmp_path: Path) -> None:
    for number in (29, 30, 31, 4):
        (tmp_path / "irq" / str(number)).mkdir(parents=True)
        (tmp_path / "irq" / str(number) / "smp_affinity_list").write_text("0-1\n")
    # Where there is nothing to write to, as where the kernel refuses, it goes on and notes it.
    (tmp_path / "irq" / "30" / "smp_affinity_list").unlink()
    (tmp_path / "irq" / "30").rmdir()
    (tmp_path / "interrupts").write_text(TEXT)
    script = booted()[boot.SCRIPT].replace(irq.INTERRUPTS, str(tmp_path / "interrupts"))
    script = script.replace("/proc/irq", str(tmp_path / "irq"))
    script = script.replace("/run/inferbase", str(tmp_path / "run"))
    subprocess.run(["sh", "-s"], input=script, text=True, check=True)
    read = {n: (tmp_path / f"irq/{n}/smp_affinity_list").read_text() for n in (29, 31, 4)}
    assert read == {29: "1\n", 31: "1\n", 4: "0-1\n"}
    assert (tmp_path / "run" / "irq-refused").read_text() == "30\n"
