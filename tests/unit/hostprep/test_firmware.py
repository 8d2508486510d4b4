"""What the system shows of the firmware's settings; nothing is ever written."""

from __future__ import annotations

from typing import Any

import pytest
from gpu_cases import ground, one, seen

from inferfleet.hostprep.facts import Answer, Facts
from inferfleet.hostprep.kinds.system.firmware import (
    CPUINFO,
    IDLE_DRIVER,
    MEMORY,
    MENU,
    SMT,
    Firmware,
)

FIRMWARE = Firmware()
# /sys/bus/pci/devices/*/resource: registers, the memory of the card, a small range, ports, none.
RESOURCE = """\
0x00000000f5000000 0x00000000f8ffffff 0x0000000000040200
{begin:#018x} {end:#018x} 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x000000d0f0000000 0x000000d0f1ffffff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x000000000000e000 0x000000000000e07f 0x0000000000040101
0x00000000f9000000 0x00000000f907ffff 0x000000000004e200
"""
DIMMS = """\
# dmidecode 3.4
Memory Device
	Size: 32 GB
	Speed: 6000 MT/s
	Configured Memory Speed: {0} MT/s
Memory Device
	Size: No Module Installed
	Configured Memory Speed: Unknown
Memory Device
	Size: 32 GB
	Configured Memory Speed: {1} MT/s
"""


def resource(begin: int, size: int) -> dict[str, str]:
    path = "/sys/bus/pci/drivers/nvidia/0000:01:00.0/resource"
    other = "/sys/bus/pci/drivers/nvidia/0000:02:00.0/resource"
    low = RESOURCE.format(begin=0xC0000000, end=0xCFFFFFFF)
    return {path: RESOURCE.format(begin=begin, end=begin + size - 1), other: low}


@pytest.mark.parametrize(
    ("case", "key", "value", "verdict", "live"),
    [
        ("rtx-5090", "pcie-generation", 5, "ok", "5"),
        # An idle card runs at generation 1; what card and slot can do counts.
        ("rtx-pro-6000", "pcie-generation", 4, "ok", "4"),
        ("rtx-pro-6000", "pcie-generation", 5, "advice", "4"),
        ("rtx-5090", "pcie-width", 16, "ok", "16"),
        ("tesla-t4", "pcie-width", 16, "advice", "8"),
        ("rtx-5090", "resizable-bar", True, "ok", "32768 of 32607 MiB"),
        ("tesla-t4", "resizable-bar", True, "advice", "256 of 15360 MiB"),
        ("tesla-t4", "resizable-bar", False, "ok", "256 of 15360 MiB"),
        ("gb10", "resizable-bar", True, "unknown", "-"),
    ],
)
def test_links_and_ranges_of_cards(
    case: str, key: str, value: Any, verdict: str, live: str
) -> None:
    finding = one(FIRMWARE, ground("firmware", {key: value}), seen(case))
    assert (finding.verdict, finding.live) == (verdict, live)
    assert finding.remedy == (MENU[key] if verdict == "advice" else finding.remedy)


@pytest.mark.parametrize(
    ("begin", "size", "verdict", "live"),
    [
        (0xD000000000, 32 << 30, "ok", "above 4 GiB"),
        (0xC0000000, 256 << 20, "advice", "below 4 GiB"),
    ],
)
def test_above_4g(begin: int, size: int, verdict: str, live: str) -> None:
    facts = seen("rtx-5090", files=resource(begin, size))
    finding = one(FIRMWARE, ground("firmware", {"above-4g": True}), facts)
    assert (finding.verdict, finding.live) == (verdict, live)


def test_above_4g_cannot_be_told_of_a_card_of_another_driver() -> None:
    assert (
        one(FIRMWARE, ground("firmware", {"above-4g": True}), seen("rtx-5090")).verdict == "unknown"
    )


@pytest.mark.parametrize("key", ["pcie-generation", "pcie-width", "resizable-bar", "above-4g"])
def test_no_card_in_a_slot_and_no_driver(key: str) -> None:
    wanted = ground("firmware", {key: 1}, unified=True)
    assert one(FIRMWARE, wanted, seen("gb10")).verdict == "unsupported"
    finding = one(FIRMWARE, ground("firmware", {key: 1}), Facts())
    assert finding.verdict == "absent"


@pytest.mark.parametrize(
    ("answer", "value", "verdict", "live"),
    [
        (Answer(0, DIMMS.format(6000, 6000)), 6000, "ok", "6000 MT/s"),
        (Answer(0, DIMMS.format(4800, 6000)), 6000, "advice", "4800 and 6000 MT/s"),
        (Answer(1, "/dev/mem: Permission denied"), 6000, "unknown", "-"),
        (None, 6000, "unknown", "-"),
    ],
)
def test_memory_speed(answer: Answer | None, value: int, verdict: str, live: str) -> None:
    facts = Facts(probes={MEMORY: answer} if answer else {})
    finding = one(FIRMWARE, ground("firmware", {"memory-speed": value}), facts)
    assert (finding.verdict, finding.live) == (verdict, live)


def idle(*names: str) -> dict[str, str]:
    folder = "/sys/devices/system/cpu/cpu0/cpuidle"
    states = {f"{folder}/state{n}/name": f"{name}\n" for n, name in enumerate(names)}
    return {IDLE_DRIVER: "intel_idle\n", **states}


FLAGS = "processor\t: 0\nflags\t\t: fpu {} sse2\n"


@pytest.mark.parametrize(
    ("key", "files", "value", "verdict", "live"),
    [
        ("idle-states", idle("POLL", "C1", "C2"), False, "advice", "POLL, C1, C2"),
        ("idle-states", idle("POLL", "C1"), False, "ok", "POLL, C1"),
        ("idle-states", {IDLE_DRIVER: "none\n"}, False, "ok", "none"),
        ("idle-states", idle("POLL", "C1"), True, "advice", "POLL, C1"),
        ("idle-states", {}, False, "unknown", "-"),
        ("smt", {SMT: "on\n"}, True, "ok", "on (kernel: on)"),
        ("smt", {SMT: "forceoff\n"}, True, "ok", "on (kernel: forceoff)"),
        ("smt", {SMT: "on\n"}, False, "advice", "on (kernel: on)"),
        ("smt", {SMT: "notsupported\n"}, True, "advice", "off or not there"),
        ("smt", {SMT: "notsupported\n"}, False, "ok", "off or not there"),
        ("smt", {}, True, "unknown", "-"),
        ("virtualization", {CPUINFO: FLAGS.format("svm")}, True, "ok", "svm"),
        ("virtualization", {CPUINFO: FLAGS.format("vmx")}, False, "advice", "vmx"),
        ("virtualization", {CPUINFO: FLAGS.format("")}, True, "advice", "off"),
        (
            "smt",
            {SMT: "notsupported\n", CPUINFO: FLAGS.format("hypervisor")},
            True,
            "unknown",
            "off or not there",
        ),
        ("virtualization", {CPUINFO: FLAGS.format("hypervisor")}, True, "unknown", "off"),
        ("virtualization", {CPUINFO: FLAGS.format("hypervisor svm")}, True, "ok", "svm"),
        ("virtualization", {CPUINFO: "Features\t: fp asimd\n"}, True, "unknown", "-"),
    ],
)
def test_processor(key: str, files: dict[str, str], value: bool, verdict: str, live: str) -> None:
    finding = one(FIRMWARE, ground("firmware", {key: value}), Facts(files))
    assert (finding.verdict, finding.live) == (verdict, live)
    assert bool(finding.remedy) == (verdict != "ok")


def test_only_what_is_needed_is_asked() -> None:
    assert FIRMWARE.look(ground("firmware", {})).probes == {}
    look = FIRMWARE.look(ground("firmware", dict.fromkeys(MENU, 1)))
    assert set(look.probes) == {"nvidia-smi", MEMORY}
    judgement = FIRMWARE.judge(ground("firmware", dict.fromkeys(MENU, 1)), Facts())
    assert (judgement.files, judgement.changes) == ((), ())
    assert len(judgement.findings) == len(MENU)
