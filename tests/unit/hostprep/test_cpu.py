from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hostprep_machine import Machine, ground, see, there_and_back, verdicts

from inferfleet.hostprep.kinds import boot
from inferfleet.hostprep.kinds.cpu import cpu, idle, threads
from inferfleet.hostprep.kinds.cpu.cpu import Cpu

ROOT = "/sys/devices/system/cpu"
GOVERNOR, PREFERENCE = "scaling_governor", "energy_performance_preference"
# As intel_pstate offers them.
OFFERED = "default performance balance_performance balance_power power\n"


class Host(Machine):
    """CPU 0 and 1, with 2 and 3 as their second threads; writes do what the kernel does."""

    def write(self, path: str, value: str) -> None:
        super().write(path, value)
        folder, _, name = path.rpartition("/")
        if name == GOVERNOR and f"{folder}/{PREFERENCE}" in self.files:
            if value == "performance":
                self.files[f"{folder}/{PREFERENCE}"] = "performance\n"
        elif name == PREFERENCE and value != "performance":
            assert self.files[f"{folder}/{GOVERNOR}"] != "performance\n", "EBUSY"
        elif path == threads.CONTROL:
            for number in (2, 3):
                self.files[f"{ROOT}/cpu{number}/online"] = "0\n" if value == "off" else "1\n"
            self.topology()
        elif name == "online":
            self.topology()

    def topology(self) -> None:
        """An off-line CPU has no topology and is no sibling."""
        on = [n for n in range(4) if self.files.get(f"{ROOT}/cpu{n}/online") != "0\n"]
        for number in range(4):
            path = f"{ROOT}/cpu{number}/topology/thread_siblings_list"
            self.files.pop(path, None)
            if number in on:
                shared = [str(one) for one in on if one % 2 == number % 2]
                self.files[path] = ",".join(shared) + "\n"
        self.files[f"{ROOT}/online"] = ",".join(map(str, on)) + "\n"


def host(governor: str = "powersave", preference: str = "balance_performance") -> Host:
    machine = Host()
    for number in range(4):
        folder = f"{ROOT}/cpufreq/policy{number}"
        machine.files |= {
            f"{folder}/{GOVERNOR}": f"{governor}\n",
            f"{folder}/scaling_available_governors": "performance powersave\n",
            f"{folder}/{PREFERENCE}": f"{preference}\n",
            f"{folder}/energy_performance_available_preferences": OFFERED,
        }
        for state, (latency, off) in enumerate(((0, 0), (1, 0), (127, 0), (1034, 0))):
            place = f"{ROOT}/cpu{number}/cpuidle/state{state}"
            machine.files |= {f"{place}/latency": f"{latency}\n", f"{place}/disable": f"{off}\n"}
        if number:
            machine.files[f"{ROOT}/cpu{number}/online"] = "1\n"
    machine.files |= {threads.CONTROL: "on\n", f"{ROOT}/present": "0-3\n"}
    machine.topology()
    return machine


@pytest.mark.parametrize(
    "settings",
    [
        {"governor": "performance"},
        {"energy-preference": "performance"},
        {"governor": "performance", "energy-preference": "performance"},
        {"governor": "powersave", "energy-preference": "power"},
        {"max-idle-latency": 50},
        {"max-idle-latency": 0},
        {"smt": False},
        {"single-thread": "0"},
        {"single-thread": "0-3"},
        {"single-thread": "0,1", "smt": False, "max-idle-latency": 1, "governor": "performance"},
    ],
)
def test_the_processor_is_set_and_brought_back(settings: dict[str, object]) -> None:
    machine = host()
    trip = there_and_back(machine, Cpu(), ground(cpu=settings))
    assert trip.verdicts() == {f"cpu.{key}": "ok" for key in settings}


def test_a_governor_of_every_policy_is_kept_by_tmpfiles() -> None:
    prepared = see(host(), Cpu(), ground(cpu={"governor": "performance"}))
    file = next(file for file in prepared.files if file.path == cpu.OURS)
    line = f"w {ROOT}/cpufreq/policy*/{GOVERNOR} - - - - performance\n"
    assert file.content == cpu.HEAD + line
    assert [change.text for change in prepared.changes][
        -1
    ] == "powersave -> performance (4 policies)"


def test_a_processor_as_wanted_is_left_alone() -> None:
    settings = ground(cpu={"governor": "performance", "smt": True, "single-thread": "2"})
    machine = host("performance", "performance")
    machine.write(f"{ROOT}/cpu3/online", "0")
    machine.write(f"{ROOT}/cpu0/online", "0")
    for file in see(machine, Cpu(), settings).files:
        machine.files[file.path] = file.content or ""
    machine.files[boot.WANTS] = "link\n"
    prepared = see(machine, Cpu(), settings)
    assert {finding.verdict for finding in prepared.findings} == {"ok"}
    assert prepared.changes == ()


@pytest.mark.parametrize(
    ("settings", "files", "verdict", "words"),
    [
        ({"governor": "schedutil"}, {}, "unsupported", "performance, powersave"),
        ({"energy-preference": "fast"}, {}, "unsupported", "balance_power"),
        ({"single-thread": "0-11"}, {}, "advice", "there is no CPU 4, 5"),
        ({"single-thread": "2"}, {}, "unsupported", "CPU 0 cannot be taken off line"),
        ({"smt": True}, {threads.CONTROL: "notsupported\n"}, "unsupported", ""),
        ({"smt": True}, {threads.CONTROL: "forceoff\n"}, "advice", "nosmt=force"),
        ({"smt": False}, {threads.CONTROL: "notsupported\n"}, "ok", ""),
        ({"single-thread": "0"}, {threads.CONTROL: "notsupported\n"}, "ok", ""),
        ({"smt": False}, {threads.CONTROL: ""}, "unknown", ""),
    ],
)
def test_what_cannot_be_done_is_said_and_not_tried(
    settings: dict[str, object], files: dict[str, str], verdict: str, words: str
) -> None:
    machine = host()
    machine.files |= files
    prepared = see(machine, Cpu(), ground(cpu=settings))
    assert [finding.verdict for finding in prepared.findings] == [verdict]
    assert words in prepared.findings[0].remedy
    assert prepared.changes == ()


def test_the_governor_performance_holds_the_preference() -> None:
    settings = ground(cpu={"governor": "performance", "energy-preference": "power"})
    assert verdicts(host(), Cpu(), settings) == {
        "cpu.governor": "differs",
        "cpu.energy-preference": "advice",
    }
    assert verdicts(host("performance"), Cpu(), ground(cpu={"energy-preference": "power"})) == {
        "cpu.energy-preference": "advice"
    }


@pytest.mark.parametrize(
    ("setting", "verdict"),
    [
        ({"governor": "performance"}, "unsupported"),
        ({"max-idle-latency": 5}, "unsupported"),
        ({"single-thread": "0"}, "unknown"),
        ({"smt": False}, "unknown"),
    ],
)
def test_a_machine_that_tells_nothing_is_left_alone(
    setting: dict[str, object], verdict: str
) -> None:
    prepared = see(Machine(), Cpu(), ground(cpu=setting))
    assert [finding.verdict for finding in prepared.findings] == [verdict]
    assert prepared.changes == ()


def test_closed_files_cannot_be_told() -> None:
    machine = host()
    machine.closed = {path for path in machine.files if path.endswith(GOVERNOR)}
    prepared = see(machine, Cpu(), ground(cpu={"governor": "performance"}))
    assert (prepared.findings[0].verdict, prepared.changes) == ("unknown", ())


def test_a_program_that_sets_the_governor_too_is_named_unless_it_is_stopped() -> None:
    machine = host("performance", "performance")
    machine.unit("tuned.service", "active", "enabled")
    settings = ground(cpu={"governor": "performance"})
    machine.files[cpu.OURS] = see(machine, Cpu(), settings).files[0].content or ""
    finding = see(machine, Cpu(), settings).findings[0]
    assert (finding.verdict, "tuned.service" in finding.remedy) == ("overridden", True)
    settings = ground(cpu={"governor": "performance"}, units={"tuned.service": "masked"})
    assert verdicts(machine, Cpu(), settings) == {"cpu.governor": "ok"}
    machine.unit("tuned.service", "inactive", "disabled")
    assert verdicts(machine, Cpu(), ground(cpu={"governor": "performance"})) == {
        "cpu.governor": "ok"
    }


def test_only_states_that_take_too_long_are_off() -> None:
    machine = host()
    machine.files[f"{ROOT}/cpu1/cpuidle/state1/disable"] = "1\n"
    machine.files[f"{ROOT}/cpu2/cpuidle/state1/disable"] = "1\n"
    machine.files[f"{ROOT}/cpu2/cpuidle/state1/default_status"] = "disabled\n"
    there_and_back(machine, Cpu(), ground(cpu={"max-idle-latency": 50}))
    machine.take(see(machine, Cpu(), ground(cpu={"max-idle-latency": 50})).changes[-2].do)
    states = [machine.files[f"{ROOT}/cpu{n}/cpuidle/state{s}/disable"].strip()
              for n in (0, 1, 2) for s in range(4)]  # fmt: skip
    assert states == ["0", "0", "1", "1", "0", "0", "1", "1", "0", "1", "1", "1"]


def test_files_of_an_earlier_run_go_when_nothing_is_wanted() -> None:
    machine = host()
    machine.files[cpu.OURS] = cpu.HEAD
    there_and_back(machine, Cpu(), ground())


def at_boot(lines: tuple[str, ...], root: Path) -> None:
    """Run what a start of the machine runs, below a folder in place of /sys."""
    text = "\n".join(('try() { "$@"; }', *lines)).replace("/sys/", f"{root}/sys/")
    subprocess.run(["sh", "-euc", text], check=True, capture_output=True)


def tree(root: Path, machine: Machine) -> None:
    for path, text in machine.files.items():
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


def test_a_start_turns_idle_states_off(tmp_path: Path) -> None:
    tree(tmp_path, host())
    wanted = ground(cpu={"max-idle-latency": 127}).settings[0]
    at_boot(idle.bootlines(wanted), tmp_path)
    for number in range(4):
        place = tmp_path / f"sys/devices/system/cpu/cpu{number}/cpuidle"
        found = [(place / f"state{n}/disable").read_text() for n in range(4)]
        assert found == ["0\n", "0\n", "0\n", "1\n"]


@pytest.mark.parametrize(("siblings", "off"), [("0,2", [2]), ("0-2", [1, 2]), ("0-1,3", [1, 3])])
def test_a_start_takes_siblings_off_line(tmp_path: Path, siblings: str, off: list[int]) -> None:
    machine = host()
    machine.files[f"{ROOT}/cpu0/topology/thread_siblings_list"] = f"{siblings}\n"
    tree(tmp_path, machine)
    wanted = ground(cpu={"single-thread": "0,7"}).settings[0]
    at_boot(threads.bootlines(wanted), tmp_path)
    online = [(tmp_path / f"sys/devices/system/cpu/cpu{n}/online").read_text() for n in (1, 2, 3)]
    assert [n for n, text in zip((1, 2, 3), online, strict=True) if text == "0\n"] == off
