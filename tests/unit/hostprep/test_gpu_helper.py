"""The helper on a machine, against an nvidia-smi that fails as the real one does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gpu_cases import H100, RTX, SPARK, T4, argvs, booted, ground
from stub_nvidia_smi import install

from inferfleet.hostprep.facts import Answer, Facts
from inferfleet.hostprep.kinds import boot
from inferfleet.hostprep.kinds.gpu.gpu import Gpu
from inferfleet.hostprep.kinds.gpu.mig import PROBE as LIST
from inferfleet.hostprep.kinds.gpu.nvidia import HELPER, NOTES, PROBE, helper
from inferfleet.hostprep.setting import Ground

GPU = Gpu()
SEVEN = ["1g.12gb"] * 7


@dataclass
class Machine:
    """A folder with nvidia-smi and the helper."""

    root: Path
    state: Path

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PATH": f"{self.root}:{os.environ['PATH']}"}
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)

    def set(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("sh", str(self.root / "gpu.sh"), *words)

    def put(self, **state: Any) -> None:
        self.state.write_text(json.dumps({**json.loads(self.state.read_text()), **state}))

    def get(self, key: str) -> Any:
        return json.loads(self.state.read_text())[key]

    def facts(self, **files: str) -> Facts:
        """What a look would find."""
        probes = {}
        for name, argv in ((PROBE, ("-q", "-x")), (LIST, ("mig", "-lgi"))):
            done = self.run(str(self.root / "nvidia-smi"), *argv)
            probes[name] = Answer(done.returncode, done.stdout)
        notes = {
            f"{NOTES}/{path.name}": path.read_text() for path in (self.root / "notes").glob("*")
        }
        return Facts({**files, **notes}, probes=probes)

    def make(self, steps: list[tuple[str, ...]]) -> list[subprocess.CompletedProcess[str]]:
        assert all(step[:2] == ("sh", HELPER) for step in steps)
        return [self.set(*step[2:]) for step in steps]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    text = helper().content or ""
    assert f"records={NOTES}\n" in text
    (tmp_path / "gpu.sh").write_text(text.replace(f"records={NOTES}", f"records={tmp_path}/notes"))

    def machine(case: str, **state: Any) -> Machine:
        return Machine(tmp_path, install(tmp_path, case, **state))

    return machine


@pytest.mark.parametrize(
    ("case", "wanted"),
    [
        ("rtx-5090", {"clocks": "2400-2550", "memory-clocks": "14001", "power-limit": 600,
                      "compute-mode": "exclusive-process"}),
        ("gb10", {"clocks": "2400-2550"}),
        ("tesla-t4", {"power-limit": 65, "ecc": False, "compute-mode": "prohibited"}),
        ("h100-nvl", {"mig": {"0": SEVEN}, "power-limit": 310}),
        ("h100-nvl", {"mig": {"all": ["3g.47gb", "2g.24gb", "1g.12gb", "1g.12gb"]}}),
    ],
)  # fmt: skip
def test_done_verified_and_undone(make: Any, case: str, wanted: dict[str, Any]) -> None:
    machine, wish = make(case), ground("gpu", wanted)
    before = machine.facts()
    judgement = GPU.judge(wish, before)
    assert {name for change in judgement.changes for name in change.settings} == {
        f"gpu.{key}" for key in wanted
    }
    assert [done.returncode for done in machine.make(argvs(judgement))] == [0] * len(
        argvs(judgement)
    )
    after = machine.facts(**booted(*GPU.bootlines(wish, before)))
    verdicts = {f.wanted.key: f.verdict for f in GPU.judge(wish, after).findings}
    assert verdicts == {key: "pending" if key == "ecc" else "ok" for key in wanted}
    assert GPU.judge(wish, after).changes == ()
    assert [d.returncode for d in machine.make(argvs(judgement, undo=True))] == [0] * len(
        argvs(judgement, undo=True)
    )
    assert machine.facts().probes == before.probes
    assert [f.verdict for f in GPU.judge(wish, machine.facts()).findings] == [
        f.verdict for f in judgement.findings
    ]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("gb10", ("memory-clocks", SPARK, "8000,8000")),
        ("gb10", ("power-limit", SPARK, "100")),
        ("rtx-5090", ("power-limit", RTX, "650")),
    ],
)
def test_what_is_refused_fails(make: Any, case: str, words: tuple[str, ...]) -> None:
    """nvidia-smi itself exits 0 for the first two: only a warning, it says."""
    machine = make(case)
    assert machine.run(str(machine.root / "nvidia-smi"), "-lmc", "1").returncode == 0
    done = machine.set(*words)
    assert done.returncode != 0
    assert "not supported" in done.stderr or "should be between" in done.stderr
    assert not (machine.root / "notes").exists()


def test_no_right_to_change(make: Any) -> None:
    done = make("rtx-5090", root=False).set("clocks", RTX, "2400,2550")
    assert done.returncode == 4
    assert "permission" in done.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [(("memory-clocks", SPARK, "reset"), 0), (("power-limit", SPARK, "100"), 0),
     (("clocks", SPARK, "reset"), 0)],
)  # fmt: skip
def test_the_way_back_passes_what_cannot_have_been_set(
    make: Any, words: tuple[str, ...], code: int
) -> None:
    assert make("gb10").set(*words, "back").returncode == code
    make("gb10", root=False)
    assert make("gb10", root=False).set("clocks", SPARK, "reset", "back").returncode == 4


@pytest.mark.parametrize("fail", ["mismatch", "driver", "none", "unknown"])
def test_a_driver_that_fails(make: Any, fail: str) -> None:
    machine = make("rtx-5090", fail=fail)
    for words in (("clocks", RTX, "2400,2550"), ("mig", RTX, "1g.12gb")):
        done = machine.set(*words)
        assert done.returncode != 0
        assert done.stderr


def test_a_lock_is_noted_for_all_or_for_one(make: Any) -> None:
    machine = make("rtx-5090")
    notes = machine.root / "notes"
    assert machine.set("clocks", RTX, "2400,2550").returncode == 0
    assert (notes / f"clocks.{RTX}").read_text() == "2400,2550\n"
    assert machine.set("clocks", "all", "2000,2100").returncode == 0
    assert sorted(path.name for path in notes.iterdir()) == ["clocks.all"]
    assert machine.get("lgc") == "2000,2100"
    assert machine.set("clocks", RTX, "reset").returncode == 0
    assert machine.get("lgc") == ""


def test_instances_in_use_are_not_destroyed(make: Any) -> None:
    machine = make("h100-nvl-mig", instances=SEVEN, busy=True)
    done = machine.set("mig", H100, "3g.47gb")
    assert done.returncode != 0
    assert "In use by another client" in done.stderr
    assert machine.get("instances") == SEVEN
    assert machine.set("mig", H100, "off").returncode != 0
    assert machine.get("mig") == "Enabled"


def test_another_layout_replaces_the_old_one(make: Any) -> None:
    machine = make("h100-nvl-mig", instances=SEVEN)
    assert machine.set("mig", H100, "4g.47gb,3g.47gb").returncode == 0
    assert machine.get("instances") == ["4g.47gb", "3g.47gb"]
    assert machine.set("mig", H100, "none").returncode == 0
    assert (machine.get("mig"), machine.get("instances")) == ("Enabled", [])
    assert machine.set("mig", H100, "off").returncode == 0
    assert machine.get("mig") == "Disabled"
    assert machine.set("mig", H100, "off").returncode == 0


def test_a_mode_that_needs_a_reset_is_no_failure(make: Any) -> None:
    """Cards before Hopper, in virtual machines: the start makes the instances."""
    machine = make("h100-nvl", reset=True)
    done = machine.set("mig", H100, "3g.47gb,3g.47gb")
    assert done.returncode == 0
    assert "next start" in done.stdout
    assert machine.get("instances") == []
    finding = GPU.judge(ground("gpu", {"mig": {"0": ["3g.47gb"] * 2}}), machine.facts(
        **booted(f"try sh {HELPER} mig 0 3g.47gb,3g.47gb"))).findings[0]  # fmt: skip
    assert finding.verdict == "pending"
    machine.put(mig="Enabled", reset=False)
    assert machine.set("mig", "0", "3g.47gb,3g.47gb").returncode == 0
    assert machine.get("instances") == ["3g.47gb", "3g.47gb"]


def test_a_start_sets_everything_again(make: Any) -> None:
    """The whole boot script, on a machine that has lost everything."""
    machine = make("h100-nvl")
    wish = ground("gpu", {"mig": {"0": SEVEN}, "power-limit": 310, "clocks": "1700"})
    script = boot.judge(GPU.bootlines(wish, machine.facts()), Facts()).files[0].content or ""
    assert "mig 0" in script
    body = script.replace(HELPER, str(machine.root / "gpu.sh"))
    done = machine.run("sh", "-c", body)
    assert (done.returncode, done.stderr) == (0, "")
    assert machine.get("instances") == SEVEN
    assert (machine.get("pl"), machine.get("lgc")) == ("310.00", "1700,1700")
    machine.put(fail="driver")
    assert machine.run("sh", "-c", body).returncode == 1


def test_usage(make: Any) -> None:
    assert make("tesla-t4").set("colour", T4, "red").returncode == 64


def test_helper_is_plain_sh(make: Any) -> None:
    for shell in ("dash", "busybox"):
        if shutil.which(shell):
            words = [shell, "sh"] if shell == "busybox" else [shell]
            subprocess.run([*words, "-n"], input=helper().content, text=True, check=True)
    assert isinstance(ground("gpu", {}), Ground)
