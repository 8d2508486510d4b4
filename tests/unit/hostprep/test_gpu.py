"""GPU settings: recorded reports and what is wanted -> findings, changes, undo, boot lines."""

from __future__ import annotations

from typing import Any

import pytest
from gpu_cases import H100, RTX, SPARK, T4, argvs, booted, contents, ground, one, seen, verdict

from inferfleet.hostprep.facts import Answer, Facts, join
from inferfleet.hostprep.kinds.gpu.gpu import Gpu
from inferfleet.hostprep.kinds.gpu.nvidia import HELPER, NOTES
from inferfleet.hostprep.kinds.gpu.persistence import (
    DROP_IN,
    UNIT,
    UVM_DEVICE,
    UVM_FILE,
    UVM_PROBE,
    WANTS,
)

GPU = Gpu()
ON = ("<persistence_mode>Disabled", "<persistence_mode>Enabled")
LACKS = ["power-limit", "memory-clock-lock", "mig"]


def line(what: str, value: str) -> str:
    return f"try sh {HELPER} {what} all {value}"


@pytest.mark.parametrize(
    ("case", "key", "value", "found", "do", "undo", "at_boot"),
    [
        ("rtx-5090", "clocks", "2400-2550", ("differs", "not locked", "-"),
         ("clocks", RTX, "2400,2550"), ("clocks", RTX, "reset"), "clocks all 2400,2550"),
        ("gb10", "clocks", "2400", ("differs", "not locked", "-"),
         ("clocks", SPARK, "2400,2400"), ("clocks", SPARK, "reset"), "clocks all 2400,2400"),
        ("rtx-5090", "memory-clocks", "14001", ("differs", "not locked", "-"),
         ("memory-clocks", RTX, "14001,14001"), ("memory-clocks", RTX, "reset"),
         "memory-clocks all 14001,14001"),
        ("rtx-5090", "power-limit", 600, ("differs", "575 W", "-"),
         ("power-limit", RTX, "600"), ("power-limit", RTX, "575"), "power-limit all 600"),
        ("rtx-5090", "power-limit", 450.5, ("differs", "575 W", "-"),
         ("power-limit", RTX, "450.5"), ("power-limit", RTX, "575"), "power-limit all 450.5"),
        ("h100-nvl", "compute-mode", "exclusive-process", ("differs", "default", "-"),
         ("compute-mode", H100, "EXCLUSIVE_PROCESS"), ("compute-mode", H100, "DEFAULT"),
         "compute-mode all EXCLUSIVE_PROCESS"),
    ],
)  # fmt: skip
def test_a_value_is_set_undone_and_set_again_at_a_start(
    case: str, key: str, value: Any, found: Any, do: Any, undo: Any, at_boot: str
) -> None:
    wanted, facts = ground("gpu", {key: value}), seen(case)
    judgement = GPU.judge(wanted, facts)
    assert verdict(GPU, wanted, facts) == found
    assert argvs(judgement) == [("sh", HELPER, *do)]
    assert argvs(judgement, undo=True) == [("sh", HELPER, *undo)]
    assert GPU.bootlines(wanted, facts) == (f"try sh {HELPER} {at_boot}",)
    assert (contents(judgement)[HELPER] or "").startswith("# Made by inferbase")


@pytest.mark.parametrize(
    ("case", "key", "value", "files", "live"),
    [
        ("rtx-5090", "clocks", "2400-2550", {f"{NOTES}/clocks.{RTX}": "2400,2550\n"},
         "2400-2550 MHz"),
        ("rtx-5090", "clocks", "2400-2550", {f"{NOTES}/clocks.all": "2400,2550\n"},
         "2400-2550 MHz"),
        ("rtx-5090", "power-limit", 575, {}, "575 W"),
        ("tesla-t4", "compute-mode", "default", {}, "default"),
    ],
)  # fmt: skip
def test_nothing_changes_where_all_is_well(
    case: str, key: str, value: Any, files: dict[str, str], live: str
) -> None:
    wanted = ground("gpu", {key: value, "persistence": True})
    lines = GPU.bootlines(wanted, seen(case))
    facts = seen(case, files=booted(*lines, **files))
    finding = next(f for f in GPU.judge(wanted, facts).findings if f.wanted.key == key)
    assert (finding.verdict, finding.live, finding.remedy) == ("ok", live, "")
    assert finding.persisted == live
    assert [c for c in GPU.judge(wanted, facts).changes if c.settings == (f"gpu.{key}",)] == []


def test_a_value_that_a_start_would_lose_differs() -> None:
    wanted = ground("gpu", {"power-limit": 500})
    now = ("<current_power_limit>575", "<current_power_limit>500")
    assert verdict(GPU, wanted, seen("rtx-5090", now)) == ("differs", "500 W", "-")
    assert GPU.judge(wanted, seen("rtx-5090", now)).changes == ()
    disabled = booted(line("power-limit", "500"))
    del disabled[
        next(path for path in disabled if path.endswith(".wants/inferbase-hostprep.service"))
    ]
    assert verdict(GPU, wanted, seen("rtx-5090", now, files=disabled))[0] == "differs"


def test_a_lock_that_does_not_hold_is_seen() -> None:
    wanted = ground("gpu", {"clocks": "2000-2100"})
    files = booted(line("clocks", "2000,2100"), **{f"{NOTES}/clocks.{RTX}": "2000,2100\n"})
    facts = seen("rtx-5090", files=files)
    assert verdict(GPU, wanted, facts) == (
        "differs", "not locked (runs at 2497 MHz)", "2000-2100 MHz",
    )  # fmt: skip
    judgement = GPU.judge(wanted, facts)
    assert argvs(judgement) == [("sh", HELPER, "clocks", RTX, "2000,2100")]
    assert argvs(judgement, undo=True) == [("sh", HELPER, "clocks", RTX, "reset")]


def test_an_older_lock_of_ours_comes_back() -> None:
    facts = seen("rtx-5090", files={f"{NOTES}/clocks.{RTX}": "2500,2600\n"})
    judgement = GPU.judge(ground("gpu", {"clocks": "2400-2550"}), facts)
    assert argvs(judgement, undo=True) == [("sh", HELPER, "clocks", RTX, "2500,2600")]


@pytest.mark.parametrize(
    ("case", "key", "value", "remedy"),
    [
        ("rtx-5090", "power-limit", 650, "GPU 0 takes 400 to 600 W"),
        ("rtx-5090", "power-limit", 350, "GPU 0 takes 400 to 600 W"),
        ("gb10", "clocks", "2400-3100", "GPU 0 has no clock above 3003 MHz"),
        ("h100-nvl", "memory-clocks", "5000", "GPU 0 has no clock above 2619 MHz"),
    ],
)
def test_what_the_card_does_not_take_is_not_tried(
    case: str, key: str, value: Any, remedy: str
) -> None:
    wanted, facts = ground("gpu", {key: value}), seen(case)
    assert one(GPU, wanted, facts).verdict == "advice"
    assert one(GPU, wanted, facts).remedy == remedy
    assert GPU.judge(wanted, facts).changes == ()
    assert GPU.bootlines(wanted, facts) == ()


@pytest.mark.parametrize(
    ("key", "value"),
    [("power-limit", 100), ("memory-clocks", "8000"), ("mig", {"all": ["1g.12gb"]})],
)
@pytest.mark.parametrize("lacks", [LACKS, []])
def test_gb10_cannot(key: str, value: Any, lacks: list[str]) -> None:
    """By its hardware file, and by what the driver says where there is no such file."""
    wanted = ground("gpu", {key: value}, lacks=lacks)
    judgement = GPU.judge(wanted, seen("gb10"))
    assert [f.verdict for f in judgement.findings] == ["unsupported"]
    assert judgement.changes == ()
    assert GPU.bootlines(wanted, seen("gb10")) == ()


def test_without_persistence_a_value_is_forgotten() -> None:
    facts = seen("tesla-t4")
    alone = ground("gpu", {"power-limit": 65})
    assert "set gpu.persistence" in one(GPU, alone, facts).remedy
    both = GPU.judge(ground("gpu", {"power-limit": 65, "persistence": True}), facts)
    assert [f.remedy for f in both.findings if f.wanted.key == "power-limit"] == [""]


def test_two_cards_of_which_one_has_no_limit() -> None:
    first, second = seen("rtx-5090").probes["nvidia-smi"].out, seen("gb10").probes["nvidia-smi"].out
    both = first.replace("</nvidia_smi_log>", second[second.index("<gpu ") :])
    facts = Facts(probes={"nvidia-smi": Answer(0, both)})
    wanted = ground("gpu", {"power-limit": 500})
    assert argvs(GPU.judge(wanted, facts)) == [("sh", HELPER, "power-limit", RTX, "500")]
    assert GPU.bootlines(wanted, facts) == (f"try sh {HELPER} power-limit {RTX} 500",)
    clocks = one(GPU, ground("gpu", {"clocks": "2000"}), Facts(
        {f"{NOTES}/clocks.{SPARK}": "2000,2000\n"}, probes=facts.probes))  # fmt: skip
    assert clocks.live == "0: not locked, 1: not locked (runs at 2385 MHz)"


@pytest.mark.parametrize(
    ("current", "pending", "wish", "found", "do"),
    [
        ("Enabled", "Enabled", True, ("ok", "on", "on"), []),
        ("Enabled", "Enabled", False, ("differs", "on", "on"), ["0"]),
        ("Enabled", "Disabled", False, ("pending", "on", "off"), []),
        ("Enabled", "Disabled", True, ("differs", "on", "off"), ["1"]),
        ("N/A", "N/A", True, ("unsupported", "-", "-"), []),
    ],
)
def test_ecc(current: str, pending: str, wish: bool, found: Any, do: list[str]) -> None:
    facts = seen(
        "h100-nvl",
        ("<current_ecc>Enabled", f"<current_ecc>{current}"),
        ("<pending_ecc>Enabled", f"<pending_ecc>{pending}"),
    )
    wanted = ground("gpu", {"ecc": wish})
    judgement = GPU.judge(wanted, facts)
    assert verdict(GPU, wanted, facts) == found
    assert argvs(judgement) == [("sh", HELPER, "ecc", H100, value) for value in do]
    assert all(change.reboot for change in judgement.changes)
    assert GPU.bootlines(wanted, facts) == ()


UNIT_FILE = f"/usr/lib/systemd/system/{UNIT}"
COMMAND = "/usr/bin/nvidia-persistenced --user nvidia-persistenced"
QUIET = f"{COMMAND} --no-persistence-mode --verbose"


def unit(state: str, active: str, command: str, **files: str) -> dict[str, Any]:
    return {
        "files": {UNIT_FILE: f"[Service]\nType=forking\nExecStart={command}\n", **files},
        "probes": {
            "nvidia-persistenced": Answer(
                0, f"LoadState=loaded\nActiveState={active}\nUnitFileState={state}"
            )
        },
    }


def test_persistence_of_a_unit_that_switches_it_off() -> None:
    """As Ubuntu ships it: static, running, with --no-persistence-mode."""
    wanted, facts = (
        ground("gpu", {"persistence": True}),
        seen("tesla-t4", **unit("static", "active", QUIET)),
    )
    judgement = GPU.judge(wanted, facts)
    assert verdict(GPU, wanted, facts) == ("differs", "off", "off")
    assert (contents(judgement)[DROP_IN] or "").endswith(
        f"[Service]\nExecStart=\nExecStart={COMMAND} --verbose\n"
    )
    assert argvs(judgement) == [
        ("systemctl", "add-wants", "multi-user.target", UNIT),
        ("sh", HELPER, "persistence", T4, "1"),
    ]
    assert argvs(judgement, undo=True) == [
        ("sh", HELPER, "persistence", T4, "0"), ("rm", "-f", WANTS),
    ]  # fmt: skip


def test_persistence_that_is_on() -> None:
    wanted = ground("gpu", {"persistence": True})
    drop = contents(GPU.judge(wanted, seen("tesla-t4", **unit("static", "active", QUIET))))[DROP_IN]
    state = unit("static", "active", QUIET, **{DROP_IN: drop or "", WANTS: "unit"})
    facts = seen("tesla-t4", ON, **state)
    judgement = GPU.judge(wanted, facts)
    assert verdict(GPU, wanted, facts) == ("ok", "on", "on")
    assert judgement.changes == ()
    assert contents(judgement)[DROP_IN] == drop


def test_persistence_of_a_unit_with_its_own_install() -> None:
    facts = seen("tesla-t4", **unit("disabled", "inactive", COMMAND))
    judgement = GPU.judge(ground("gpu", {"persistence": True}), facts)
    assert contents(judgement)[DROP_IN] is None
    assert argvs(judgement) == [
        ("systemctl", "enable", "--quiet", UNIT),
        ("systemctl", "start", UNIT),
        ("sh", HELPER, "persistence", T4, "1"),
    ]
    assert argvs(judgement, undo=True) == [
        ("sh", HELPER, "persistence", T4, "0"),
        ("systemctl", "stop", UNIT),
        ("systemctl", "disable", "--quiet", UNIT),
    ]


def test_persistence_not_wanted() -> None:
    facts = seen("tesla-t4", ON, **unit("enabled", "active", COMMAND))
    judgement = GPU.judge(ground("gpu", {"persistence": False}), facts)
    assert argvs(judgement) == [
        ("systemctl", "disable", "--quiet", UNIT),
        ("systemctl", "stop", UNIT),
        ("sh", HELPER, "persistence", T4, "0"),
    ]


def test_persistence_without_its_daemon() -> None:
    probes = {"nvidia-persistenced": Answer(0, "LoadState=not-found\nActiveState=inactive")}
    finding = one(GPU, ground("gpu", {"persistence": True}), seen("tesla-t4", probes=probes))
    assert finding.verdict == "absent"
    assert "install nvidia-persistenced" in finding.remedy


def test_a_drop_in_of_others_counts() -> None:
    theirs = {
        f"/etc/systemd/system/{UNIT}.d/10.conf": f"[Service]\nExecStart=\nExecStart={COMMAND}\n"
    }
    facts = seen("tesla-t4", ON, **unit("enabled", "active", QUIET, **theirs))
    assert verdict(GPU, ground("gpu", {"persistence": True}), facts) == ("ok", "on", "on")


MODPROBE = {UVM_PROBE: Answer(0, "nvidia-modprobe: version 580")}
MODULES = "nvidia 1 2 - Live 0x0\n"


@pytest.mark.parametrize(
    ("modules", "device", "live", "do", "undo"),
    [
        (MODULES, (), "not loaded",
         [("modprobe", "nvidia_uvm"), ("nvidia-modprobe", "-u", "-c0")],
         [("modprobe", "-r", "nvidia_uvm")]),
        (f"{MODULES}nvidia_uvm 1 0 - Live 0x0\n", (), "loaded, no device",
         [("modprobe", "nvidia_uvm"), ("nvidia-modprobe", "-u", "-c0")], []),
        (f"{MODULES}nvidia_uvm 1 0 - Live 0x0\n", (UVM_DEVICE,), "loaded", [], []),
    ],
)  # fmt: skip
def test_uvm(modules: str, device: tuple[str, ...], live: str, do: Any, undo: Any) -> None:
    wanted = ground("gpu", {"uvm": True})
    facts = seen("tesla-t4", files={"/proc/modules": modules}, probes=MODPROBE, stats=device)
    judgement = GPU.judge(wanted, facts)
    assert verdict(GPU, wanted, facts) == ("differs", live, "-")
    assert contents(judgement)[UVM_FILE] == "nvidia_uvm\n"
    assert (argvs(judgement), argvs(judgement, undo=True)) == (do, undo)
    assert GPU.bootlines(wanted, facts) == ("try nvidia-modprobe -u -c0",)
    assert contents(judgement)[HELPER] is None


def test_uvm_at_every_start() -> None:
    loaded = f"{MODULES}nvidia_uvm 1 0 - Live 0x0\n"
    more = {UVM_FILE: "nvidia_uvm\n", "/proc/modules": loaded}
    files = booted("try nvidia-modprobe -u -c0", **more)
    facts = seen("tesla-t4", files=files, probes=MODPROBE, stats=(UVM_DEVICE,))
    assert verdict(GPU, ground("gpu", {"uvm": True}), facts)[0] == "ok"
    off = GPU.judge(ground("gpu", {"uvm": False}), facts)
    assert contents(off)[UVM_FILE] is None


@pytest.mark.parametrize(
    ("modules", "probes", "remedy"),
    [("", MODPROBE, "driver is not loaded"), (MODULES, {}, "install nvidia-modprobe")],
)
def test_uvm_without_what_it_needs(modules: str, probes: Any, remedy: str) -> None:
    facts = seen("tesla-t4", files={"/proc/modules": modules}, probes=probes)
    finding = one(GPU, ground("gpu", {"uvm": True}), facts)
    assert finding.verdict == "absent"
    assert remedy in finding.remedy


EVERY = {
    "persistence": True, "clocks": "1000", "memory-clocks": "2000", "power-limit": 300,
    "compute-mode": "default", "ecc": True, "mig": {"0": ["1g.12gb"]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "expected", "remedy"),
    [
        (None, "absent", "not installed"),
        (Answer(6, "No devices were found"), "absent", "open kernel modules"),
        (Answer(18, "Failed to initialize NVML: Driver/library version mismatch"), "absent",
         "reboot"),
        (Answer(4, "Failed to initialize NVML: Insufficient Permissions"), "unknown", "sudo: true"),
        (Answer(0, "<nvidia_smi_log><gpu>"), "absent", "nvidia-smi failed"),
    ],
)  # fmt: skip
def test_a_driver_that_does_not_answer(answer: Answer | None, expected: str, remedy: str) -> None:
    facts = Facts(probes={"nvidia-smi": answer} if answer else {})
    judgement = GPU.judge(ground("gpu", EVERY), facts)
    assert {finding.verdict for finding in judgement.findings} == {expected}
    assert all(remedy in finding.remedy for finding in judgement.findings)
    assert judgement.changes == ()


def test_a_driver_out_of_order_loses_no_boot_line() -> None:
    """A mismatch after an upgrade must not make the next apply forget what a start sets."""
    wanted = ground("gpu", {"clocks": "1000", "mig": {"0": ["1g.12gb"]}, "power-limit": 300})
    smi = {"nvidia-smi": Answer(18, "Driver/library version mismatch")}
    lines = GPU.bootlines(wanted, seen("h100-nvl"))
    assert len(lines) == 3
    broken = Facts(booted(*lines), probes=smi)
    assert GPU.bootlines(wanted, broken) == lines
    assert contents(GPU.judge(wanted, broken))[HELPER]
    assert {f.persisted for f in GPU.judge(wanted, broken).findings} == {
        "1000 MHz", "at every start", "300 W",
    }  # fmt: skip
    # What was never set at a start is not added while nobody knows whether the card can.
    assert GPU.bootlines(wanted, Facts(probes=smi)) == ()
    assert GPU.bootlines(wanted, Facts()) == ()


@pytest.mark.parametrize(
    ("case", "key", "value"),
    [("rtx-5090", "power-limit", 575), ("h100-nvl", "compute-mode", "default")],
)
def test_what_a_start_brings_by_itself_needs_no_line(case: str, key: str, value: Any) -> None:
    wanted = ground("gpu", {key: value})
    finding = one(GPU, wanted, seen(case))
    assert (finding.verdict, finding.persisted) == ("ok", finding.live)
    assert GPU.bootlines(wanted, seen(case)) == ()
    assert GPU.judge(wanted, seen(case)).changes == ()


def test_nothing_wanted_takes_our_files_away() -> None:
    judgement = GPU.judge(ground("gpu", {}), seen(None))
    assert contents(judgement) == {HELPER: None, DROP_IN: None, UVM_FILE: None}
    assert GPU.look(ground("gpu", {})).probes == {}


def test_one_question_for_all_kinds_of_settings() -> None:
    look = GPU.look(ground("gpu", {**EVERY, "uvm": True}))
    assert look.probes["nvidia-smi"] == ("nvidia-smi", "-q", "-x")
    assert set(look.probes) == {
        "nvidia-smi", "nvidia-smi mig -lgi", "nvidia-persistenced", "nvidia-modprobe",
    }  # fmt: skip
    assert join([look, look]) == look
    assert set(contents(GPU.judge(ground("gpu", EVERY), seen("h100-nvl")))) <= set(look.paths)
