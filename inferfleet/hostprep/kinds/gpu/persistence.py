"""The driver kept loaded, by nvidia-persistenced; and nvidia_uvm, loaded and with its devices."""

from __future__ import annotations

import re

from inferfleet.hostprep.facts import Facts, Look
from inferfleet.hostprep.kinds.boot import RELOAD
from inferfleet.hostprep.kinds.gpu.nvidia import (
    Cards,
    Part,
    each,
    kept,
    missing,
    set_gpu,
    unset_gpu,
)
from inferfleet.hostprep.setting import Change, Finding, Verdict, Wanted
from inferfleet.hostprep.steps import PutFile, Run, Step

UNIT = "nvidia-persistenced.service"
SHOW = "nvidia-persistenced"
FOLDER = f"/etc/systemd/system/{UNIT}.d"
DROP_IN = f"{FOLDER}/90-inferbase.conf"
WANTS = f"/etc/systemd/system/multi-user.target.wants/{UNIT}"
# systemd takes the first of these.
UNIT_FILES = tuple(
    f"{folder}/{UNIT}"
    for folder in ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system",
                   "/usr/lib/systemd/system", "/lib/systemd/system")
)  # fmt: skip
_FLAG = re.compile(r"\s+--no-persistence-mode(?=\s|$)")

UVM_FILE = "/etc/modules-load.d/90-nvidia-uvm-inferbase.conf"
UVM_DEVICE = "/dev/nvidia-uvm"
UVM_PROBE = "nvidia-modprobe"
UVM_MAKE = ("nvidia-modprobe", "-u", "-c0")


def persistence_look() -> Look:
    """The unit as systemd has it and as its files say it."""
    properties = "LoadState,ActiveState,UnitFileState"
    return Look(
        (*UNIT_FILES, f"{FOLDER}/*.conf", DROP_IN, WANTS),
        {SHOW: ("systemctl", "show", UNIT, f"--property={properties}")},
    )


def persistence_part(wanted: Wanted, facts: Facts, found: Cards) -> Part:
    """Persistence of all GPUs, now and at every start."""
    state = dict(line.split("=", 1) for line in facts.probe(SHOW).out.splitlines() if "=" in line)
    command = _command(facts)
    drop_in = _drop_in(command) if wanted.value and command else None
    files = (PutFile(DROP_IN, drop_in, after=RELOAD),)
    started = state.get("UnitFileState") in {"enabled", "enabled-runtime"}
    started = started or facts.text(WANTS) is not None
    quiet = command is not None and _FLAG.search(command) is not None
    ready = not quiet or facts.text(DROP_IN) == drop_in is not None
    persisted = "on" if started and (ready if wanted.value else not quiet) else "off"
    if not found.gpus:
        return Part(missing(wanted, found, persisted), files=files)
    able = [gpu for gpu in found.gpus if gpu.persistence is not None]
    if not able:
        remedy = "no GPU here has a persistence mode"
        return Part(Finding(wanted, "-", persisted, "unsupported", remedy), files=files)
    live = each({gpu.index: "on" if gpu.persistence else "off" for gpu in able})
    if state.get("LoadState") != "loaded" or command is None:
        verdict: Verdict = "absent" if wanted.value else "ok"
        remedy = "install nvidia-persistenced (part of nvidia-compute-utils on Ubuntu)"
        return Part(Finding(wanted, live, "-", verdict, remedy if wanted.value else ""))
    steps = _steps(bool(wanted.value), state, started)
    switched = [gpu for gpu in able if gpu.persistence != wanted.value]
    on, off = ("1", "0") if wanted.value else ("0", "1")
    do: list[Step] = [step for step, _ in steps]
    do += [set_gpu("persistence", gpu.uuid, on) for gpu in switched]
    undo: list[Step] = [s for gpu in switched for s in unset_gpu("persistence", gpu.uuid, off)]
    undo += [back for _, back in reversed(steps)]
    text = f"{live}, at start {persisted} -> {'on' if wanted.value else 'off'}"
    changes = (Change((wanted.name,), text, tuple(do), tuple(undo)),) if do else ()
    good = not changes and facts.text(DROP_IN) == drop_in
    return Part(Finding(wanted, live, persisted, "ok" if good else "differs"), changes, files)


def _command(facts: Facts) -> str | None:
    """What the unit starts without our drop-in."""
    unit = next((path for path in UNIT_FILES if path in facts.files), None)
    if unit is None:
        return None
    others = [path for path in facts.matching(f"{FOLDER}/*.conf") if path != DROP_IN]
    command = None
    for path in (unit, *others):
        for line in facts.files[path].splitlines():
            key, equals, value = line.partition("=")
            if equals and key.strip() == "ExecStart":
                command = value.strip() or None
    return command


def _drop_in(command: str) -> str | None:
    if not _FLAG.search(command):
        return None
    return (
        "# Made by inferbase; `invoke hostprep.rollback` takes it away.\n"
        f"[Service]\nExecStart=\nExecStart={_FLAG.sub('', command)}\n"
    )


def _steps(on: bool, state: dict[str, str], started: bool) -> list[tuple[Step, Step]]:
    """Pairs of a step and its undo, in order."""
    active = state.get("ActiveState") == "active"
    steps: list[tuple[Step, Step]] = []
    start, stop = Run(("systemctl", "start", UNIT)), Run(("systemctl", "stop", UNIT))
    if state.get("UnitFileState") in {"static", "indirect", "generated"}:
        # A unit without [Install], started by a rule of udev on some systems: wanted by name.
        add = Run(("systemctl", "add-wants", "multi-user.target", UNIT))
        drop = Run(("rm", "-f", WANTS))
    else:
        add = Run(("systemctl", "enable", "--quiet", UNIT))
        drop = Run(("systemctl", "disable", "--quiet", UNIT))
    if on != started:
        steps.append((add, drop) if on else (drop, add))
    if on != active:
        steps.append((start, stop) if on else (stop, start))
    return steps


def uvm_look() -> Look:
    """The module, its devices, and the tool that makes them."""
    return Look(
        (UVM_FILE, "/proc/modules"),
        {UVM_PROBE: ("nvidia-modprobe", "--version")},
        (UVM_DEVICE,),
    )


def uvm_part(wanted: Wanted, facts: Facts) -> Part:
    """nvidia_uvm now and at every start, before a service needs it."""
    lines = (f"try {' '.join(UVM_MAKE)}",)
    names = {line.split()[0] for line in (facts.text("/proc/modules") or "").splitlines() if line}
    loaded, device = "nvidia_uvm" in names, UVM_DEVICE in facts.stats
    live = "loaded" if loaded and device else "loaded, no device" if loaded else "not loaded"
    text = "nvidia_uvm\n" if wanted.value else None
    persisted = "at every start" if facts.text(UVM_FILE) == "nvidia_uvm\n" else "-"
    files = (PutFile(UVM_FILE, text),)
    if not wanted.value:
        return Part(Finding(wanted, live, persisted, "ok" if persisted == "-" else "differs"),
                    files=files)  # fmt: skip
    if "nvidia" not in names:
        remedy = "the NVIDIA driver is not loaded"
        return Part(Finding(wanted, live, persisted, "absent", remedy))
    if facts.probe(UVM_PROBE).exit is None:
        remedy = "install nvidia-modprobe, which makes the device files"
        return Part(Finding(wanted, live, persisted, "absent", remedy), files=files)
    changes: tuple[Change, ...] = ()
    if not (loaded and device):
        undo = () if loaded else (Run(("modprobe", "-r", "nvidia_uvm"), quiet=True),)
        do = (Run(("modprobe", "nvidia_uvm")), Run(UVM_MAKE))
        changes = (Change((wanted.name,), f"{live} -> loaded", do, undo),)
    good = not changes and persisted != "-" and kept(lines, facts)
    return Part(
        Finding(wanted, live, persisted, "ok" if good else "differs"), changes, files, lines
    )
