"""NVIDIA software: versions of driver and CUDA, open modules, container toolkit, CDI; only read."""

from __future__ import annotations

import re

from inferfleet.hostprep.facts import Facts, Look, join
from inferfleet.hostprep.kinds.gpu.nvidia import LOOK, Cards, cards, missing
from inferfleet.hostprep.setting import Finding, Ground, Judgement, Wanted

MODULE = "/proc/driver/nvidia/version"
TOOLKIT = "nvidia-ctk"
CDI = tuple(f"{folder}/*{end}" for folder in ("/etc/cdi", "/var/run/cdi")
            for end in (".yaml", ".json"))  # fmt: skip
_NVIDIA = re.compile(r"nvidia\.com/")
_LIBRARY = re.compile(r"\.so\.(\d{3,}\.\d+(?:\.\d+)?)\b")
_VERSION = re.compile(r"\d+(?:\.\d+)+")
_GENERATE = "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"


class Driver:
    """The kind `driver`."""

    def look(self, ground: Ground) -> Look:
        keys = {wanted.key for wanted in ground.of("driver")}
        looks = []
        if keys - {"container-toolkit"}:
            looks.append(join([LOOK, Look((MODULE,))]))
        if "container-toolkit" in keys:
            looks.append(Look(probes={TOOLKIT: ("nvidia-ctk", "--version")}))
        if "cdi" in keys:
            looks.append(Look(CDI))
        return join(looks)

    def judge(self, ground: Ground, facts: Facts) -> Judgement:
        found = cards(facts)
        return Judgement(tuple(_finding(w, ground, facts, found) for w in ground.of("driver")))


def _finding(wanted: Wanted, ground: Ground, facts: Facts, found: Cards) -> Finding:
    gpu = ground.hardware.get("gpu") or {}
    match wanted.key:
        case "driver":
            # The module's own file tells the version also where the libraries do not fit it.
            live = _module_version(facts) or (found.facts.driver if found.facts else None)
            return _at_least(wanted, live, gpu.get("min-driver"), "driver", found)
        case "cuda":
            live = found.facts.cuda if found.facts else None
            return _at_least(wanted, live, gpu.get("min-cuda"), "CUDA of the driver", found)
        case "open-modules":
            return _modules(wanted, facts, found, gpu.get("open-kernel-modules"))
        case "container-toolkit":
            return _toolkit(wanted, facts)
        case _:
            return _cdi(wanted, facts, found)


def _at_least(
    wanted: Wanted, live: str | None, hardware: str | None, what: str, found: Cards
) -> Finding:
    if live is None:
        return missing(wanted, found)
    need = max((str(wanted.value), hardware or "0"), key=version)
    if version(live) >= version(need):
        return Finding(wanted, live, "-", "ok")
    why = " for this hardware" if need == hardware and need != str(wanted.value) else ""
    remedy = f"the {what} must be {need} or newer{why}: install a newer driver and reboot"
    return Finding(wanted, live, "-", "advice", remedy)


def _modules(wanted: Wanted, facts: Facts, found: Cards, hardware: str | None) -> Finding:
    text = facts.text(MODULE)
    if text is None:
        return missing(wanted, found) if not found.gpus else Finding(
            wanted, "-", "-", "unknown", f"there is no {MODULE}"
        )  # fmt: skip
    live = "Open Kernel Module" in text
    wish = bool(wanted.value) or hardware == "required"
    shown = "open" if live else "proprietary"
    if live == wish:
        return Finding(wanted, shown, "-", "ok")
    if wish:
        remedy = "install the driver's open kernel modules (nvidia-driver-VERSION-open on Ubuntu)"
        return Finding(wanted, shown, "-", "advice", remedy)
    remedy = "install the driver's proprietary kernel modules"
    return Finding(wanted, shown, "-", "advice", remedy)


def _toolkit(wanted: Wanted, facts: Facts) -> Finding:
    answer = facts.probe(TOOLKIT)
    if answer.exit is None:
        remedy = "install the package nvidia-container-toolkit"
        return Finding(wanted, "-", "-", "absent", remedy)
    live = _VERSION.search(answer.out)
    if not answer.good or live is None:
        return Finding(wanted, "-", "-", "unknown", f"nvidia-ctk says: {answer.out[:100]}")
    if version(live[0]) >= version(str(wanted.value)):
        return Finding(wanted, live[0], "-", "ok")
    remedy = f"install nvidia-container-toolkit {wanted.value} or newer"
    return Finding(wanted, live[0], "-", "advice", remedy)


def _cdi(wanted: Wanted, facts: Facts, found: Cards) -> Finding:
    specs = {
        path: text
        for pattern in CDI
        for path, text in facts.matching(pattern).items()
        if _NVIDIA.search(text)
    }
    shown = ", ".join(specs) or "none"
    if not wanted.value:
        remedy = f"remove {shown}" if specs else ""
        return Finding(wanted, shown, "-", "advice" if specs else "ok", remedy)
    if not specs:
        return Finding(wanted, shown, "-", "absent", f"write one: {_GENERATE}")
    driver = _module_version(facts) or (found.facts.driver if found.facts else None)
    if driver is None:
        return missing(wanted, found)
    for path, text in specs.items():
        named = {match[1] for match in _LIBRARY.finditer(text)}
        if named and driver not in named:
            old = ", ".join(sorted(named))
            remedy = f"{path} names libraries of {old}, the driver is {driver}: {_GENERATE}"
            return Finding(wanted, f"{shown} (stale)", "-", "advice", remedy)
    return Finding(wanted, shown, "-", "ok")


def _module_version(facts: Facts) -> str | None:
    for line in (facts.text(MODULE) or "").splitlines():
        if line.startswith("NVRM"):
            found = _VERSION.search(line)
            return found[0] if found else None
    return None


def version(text: str) -> tuple[int, ...]:
    """A version to compare: 580.95.05 as (580, 95, 5)."""
    return tuple(int(part) for part in re.findall(r"\d+", text))
