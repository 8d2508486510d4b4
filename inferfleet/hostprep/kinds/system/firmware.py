"""What the firmware decides, as far as the system shows it. Read only; the remedy is the menu."""

from __future__ import annotations

import re
from collections.abc import Callable

from inferfleet.gpu.facts import MIB
from inferfleet.hostprep.facts import Facts, Look
from inferfleet.hostprep.kinds.gpu.nvidia import LOOK, Cards, cards, each, missing
from inferfleet.hostprep.setting import Finding, Ground, Judgement, Wanted

RESOURCE = "/sys/bus/pci/drivers/nvidia/*/resource"
IDLE_DRIVER = "/sys/devices/system/cpu/cpuidle/current_driver"
IDLE_NAMES = "/sys/devices/system/cpu/cpu0/cpuidle/state*/name"
SMT = "/sys/devices/system/cpu/smt/control"
CPUINFO = "/proc/cpuinfo"
MEMORY = "dmidecode"
FOUR_GIB = 1 << 32
# Idle states that need nothing of the firmware's C-state menu.
SHALLOW = {"POLL", "C1", "C1E", "C1_ACPI", "WFI"}
_SPEED = re.compile(r"^\s*Configured (?:Memory|Clock) Speed:\s*(\d+)", re.M)
# Where in the menus it stands; names differ from board to board.
MENU = {
    "pcie-generation": "firmware: Advanced > PCIe slot > Link Speed; and the slot nearest the CPU",
    "pcie-width": "seat the card anew, in the slot with the most lanes; firmware: PCIe bifurcation",
    "resizable-bar": "firmware: Advanced > PCI > Re-Size BAR Support: Enabled, CSM: Disabled",
    "above-4g": "firmware: Advanced > PCI > Above 4G Decoding: Enabled",
    "memory-speed": "firmware: Overclocking > EXPO or XMP profile",
    "idle-states": "firmware: Advanced > CPU > Global C-state Control",
    "smt": "firmware: Advanced > CPU > SMT (AMD) or Hyper-Threading (Intel)",
    "virtualization": "firmware: Advanced > CPU > SVM Mode (AMD) or VT-x (Intel)",
}


class Firmware:
    """The kind `firmware`."""

    def look(self, ground: Ground) -> Look:
        keys = {wanted.key for wanted in ground.of("firmware")}
        paths: list[str] = []
        probes: dict[str, tuple[str, ...]] = {}
        if keys & {"pcie-generation", "pcie-width", "resizable-bar", "above-4g"}:
            probes |= LOOK.probes
        if "above-4g" in keys:
            paths.append(RESOURCE)
        if "idle-states" in keys:
            paths += [IDLE_DRIVER, IDLE_NAMES]
        if "smt" in keys:
            paths.append(SMT)
        if keys & set(OF_HOST):
            paths.append(CPUINFO)
        if "memory-speed" in keys:
            probes[MEMORY] = ("dmidecode", "--type", "17")
        return Look(tuple(paths), probes)

    def judge(self, ground: Ground, facts: Facts) -> Judgement:
        found = cards(facts)
        return Judgement(tuple(_finding(w, ground, facts, found) for w in ground.of("firmware")))


def _finding(wanted: Wanted, ground: Ground, facts: Facts, found: Cards) -> Finding:
    if wanted.key in OF_GPUS:
        return _of_gpus(wanted, ground, facts, found)
    live, right = OF_HOST[wanted.key](wanted.value, facts)
    if right is None:
        return Finding(wanted, "-", "-", "unknown", live)
    if right:
        return Finding(wanted, live, "-", "ok")
    if "hypervisor" in _flags(facts):
        return Finding(wanted, live, "-", "unknown", "a virtual machine does not show it")
    return Finding(wanted, live, "-", "advice", MENU[wanted.key])


def _of_gpus(wanted: Wanted, ground: Ground, facts: Facts, found: Cards) -> Finding:
    if ground.hardware.get("unified"):
        return Finding(wanted, "-", "-", "unsupported", "the GPU is no card in a slot here")
    if not found.gpus:
        return missing(wanted, found)
    live: dict[int, str] = {}
    right = True
    for gpu in found.gpus:
        words: str | None
        good = True
        match wanted.key:
            case "pcie-generation":
                # An idle card drops to generation 1: what card and slot can do counts.
                most = gpu.link.max_generation
                words, good = _told(most, lambda n: n >= wanted.value)
            case "pcie-width":
                words, good = _told(gpu.link.width, lambda n: n >= wanted.value)
            case "resizable-bar":
                words = None
                if gpu.bar1 and gpu.memory_total:
                    # The driver keeps a little of the memory out of its total.
                    whole = gpu.bar1 >= gpu.memory_total
                    words = f"{gpu.bar1 // MIB} of {gpu.memory_total // MIB} MiB"
                    good = whole == bool(wanted.value)
            case _:
                high = _high(gpu.bus, facts)
                words = None if high is None else "above 4 GiB" if high else "below 4 GiB"
                good = high == bool(wanted.value)
        if words is None:
            return Finding(wanted, "-", "-", "unknown", "the driver does not tell")
        live[gpu.index] = words
        right = right and good
    shown = each(live)
    remedy = "" if right else MENU[wanted.key]
    return Finding(wanted, shown, "-", "ok" if right else "advice", remedy)


def _told(value: int | None, good: Callable[[int], bool]) -> tuple[str | None, bool]:
    return (None, False) if value is None else (str(value), good(value))


def _high(bus: str, facts: Facts) -> bool | None:
    """Whether the largest memory range of a card begins at 4 GiB or above."""
    slot = bus.lower().removeprefix("0000") if len(bus.partition(":")[0]) == 8 else bus.lower()
    for path, text in facts.matching(RESOURCE).items():
        if path.split("/")[-2] != slot:
            continue
        ranges = [
            (int(end, 16) - int(begin, 16), int(begin, 16))
            for line in text.splitlines()[:6]
            for begin, end, *_ in [line.split()]
        ]
        size, begin = max(ranges, default=(0, 0))
        return None if not size else begin >= FOUR_GIB
    return None


def _memory_speed(value: int, facts: Facts) -> tuple[str, bool | None]:
    answer = facts.probe(MEMORY)
    if answer.exit is None:
        return "install dmidecode to see it", None
    speeds = sorted({int(found) for found in _SPEED.findall(answer.out)})
    if not speeds:
        return "only root may read it, and virtual machines have none", None
    words = " and ".join(map(str, speeds))
    return f"{words} MT/s", all(speed >= value for speed in speeds)


def _idle_states(value: bool, facts: Facts) -> tuple[str, bool | None]:
    if facts.value(IDLE_DRIVER) is None:
        return "the kernel does not say (no cpuidle)", None
    names = list(dict.fromkeys(text.strip() for text in facts.matching(IDLE_NAMES).values()))
    deep = [name for name in names if name not in SHALLOW]
    words = ", ".join(names) or "none"
    return words, bool(deep) == value


def _smt(value: bool, facts: Facts) -> tuple[str, bool | None]:
    control = facts.value(SMT)
    if control is None or control == "notimplemented":
        return "the kernel does not say", None
    if control == "notsupported":
        return "off or not there", not value
    # What the kernel has switched off (off, forceoff) the firmware has on.
    return f"on (kernel: {control})", value


def _virtualization(value: bool, facts: Facts) -> tuple[str, bool | None]:
    flags = _flags(facts)
    if not flags:
        return "this processor has no such flag", None
    found = sorted(flags & {"vmx", "svm"})
    # The kernel hides the flag when the firmware has locked it off.
    return ", ".join(found) or "off", bool(found) == value


def _flags(facts: Facts) -> set[str]:
    """Features of the first processor; Arm has none of these words."""
    text = facts.text(CPUINFO) or ""
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return set(line.partition(":")[2].split())


OF_GPUS = {"pcie-generation", "pcie-width", "resizable-bar", "above-4g"}
OF_HOST: dict[str, Callable[..., tuple[str, bool | None]]] = {
    "memory-speed": _memory_speed,
    "idle-states": _idle_states,
    "smt": _smt,
    "virtualization": _virtualization,
}
