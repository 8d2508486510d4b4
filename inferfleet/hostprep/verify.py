"""For each setting the command with which a person verifies it on the machine, and what it shows.

Guides and reference print them. They need no part of inferbase; a few need root.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any, NamedTuple

from inferfleet.hostprep.setting import Wanted


class Verification(NamedTuple):
    """A command line of sh, and what it shows when the setting is as wanted."""

    command: str
    shows: str


_CPUS = "/sys/devices/system/cpu"
_QUERY = "nvidia-smi --query-gpu={} --format=csv,noheader"
_SWITCH = {True: "Enabled", False: "Disabled"}
_PAGES = {"2M": "2048kB", "1G": "1048576kB"}
_MODES = {
    "default": "Default",
    "exclusive-process": "Exclusive_Process",
    "prohibited": "Prohibited",
}

# Setting -> command, and what it shows: a text, or a text for each value.
_FIXED: dict[str, tuple[str, str | Callable[[Any], str]]] = {
    "swap.active": ("swapon --show", lambda v: "a line for each swap space" if v else "nothing"),
    "swap.zram": ("zramctl --bytes", "{} under DISKSIZE"),
    "cpu.governor": (f"sort -u {_CPUS}/cpu*/cpufreq/scaling_governor", "{}"),
    "cpu.energy-preference": (
        f"sort -u {_CPUS}/cpu*/cpufreq/energy_performance_preference",
        "{}",
    ),
    "cpu.max-idle-latency": (
        f"grep . {_CPUS}/cpu0/cpuidle/state*/latency {_CPUS}/cpu0/cpuidle/state*/disable",
        "disable 1 for every state with a latency above {}",
    ),
    "cpu.smt": (f"cat {_CPUS}/smt/active", lambda v: "1" if v else "0"),
    "cpu.single-thread": (
        f"cat {_CPUS}/offline; grep . {_CPUS}/cpu*/topology/thread_siblings_list",
        "each of {} alone in its list",
    ),
    "limits.memlock": ("grep 'locked memory' /proc/self/limits", lambda v: _limit(v)),
    "limits.nofile": ("grep 'open files' /proc/self/limits", "{}"),
    "time.synchronized": (
        "timedatectl show -p NTPSynchronized",
        lambda v: f"NTPSynchronized={'yes' if v else 'no'}",
    ),
    "gpu.persistence": (_QUERY.format("persistence_mode"), lambda v: _SWITCH[v]),
    "gpu.clocks": (_QUERY.format("clocks.gr,clocks.max.gr"), "within {} MHz under load"),
    "gpu.memory-clocks": (_QUERY.format("clocks.mem,clocks.max.mem"), "{} MHz under load"),
    "gpu.power-limit": (
        _QUERY.format("power.limit,power.min_limit,power.max_limit"),
        "{} W, or the card's own limit",
    ),
    "gpu.compute-mode": (_QUERY.format("compute_mode"), lambda v: _MODES[v]),
    "gpu.ecc": (
        _QUERY.format("ecc.mode.current,ecc.mode.pending"),
        lambda v: f"{_SWITCH[v]}, {_SWITCH[v]}",
    ),
    "gpu.mig": ("nvidia-smi -L", lambda v: _mig(v)),
    "gpu.uvm": ("ls /dev/nvidia-uvm", lambda v: "/dev/nvidia-uvm" if v else "no such file"),
    "driver.driver": (_QUERY.format("driver_version"), "{} or newer"),
    "driver.cuda": ("nvidia-smi | grep -o 'CUDA Version: *[0-9.]*'", "{} or newer"),
    "driver.open-modules": (
        "modinfo -F license nvidia",
        lambda v: "Dual MIT/GPL" if v else "NVIDIA",
    ),
    "driver.container-toolkit": ("nvidia-ctk --version", "{} or newer"),
    "driver.cdi": (
        "nvidia-ctk cdi list",
        lambda v: "nvidia.com/gpu=all and one for each GPU" if v else "no device",
    ),
    "memory-guard.floor": (
        "systemctl is-active inferbase-memory-guard.service earlyoom.service",
        "active in one of the two lines",
    ),
    "memory-guard.drop-caches": (
        "grep -E '^(MemFree|MemAvailable|Cached)' /proc/meminfo",
        lambda v: f"Cached {'small' if v else 'as it was'} when a service starts",
    ),
    "firmware.pcie-generation": (
        _QUERY.format("pcie.link.gen.max,pcie.link.gen.current"),
        "{} first; the second number falls when idle",
    ),
    "firmware.pcie-width": (_QUERY.format("pcie.link.width.max,pcie.link.width.current"), "{}, {}"),
    "firmware.resizable-bar": (
        "nvidia-smi -q -d MEMORY | grep -A 1 'BAR1'",
        lambda v: "a total of the card's memory or more" if v else "256 MiB",
    ),
    "firmware.above-4g": (
        "lspci -d 10de: -v | grep 'prefetchable'",
        lambda v: f"addresses of {'more than' if v else 'at most'} 8 digits",
    ),
    "firmware.memory-speed": (
        "dmidecode -t memory | grep 'Configured Memory Speed'",
        "{} MT/s for every module",
    ),
    "firmware.idle-states": (
        f"grep . {_CPUS}/cpu0/cpuidle/state*/name",
        lambda v: "C1 and deeper states" if v else "nothing, or POLL and C1 alone",
    ),
    "firmware.smt": (f"cat {_CPUS}/smt/control", lambda v: "on" if v else "notsupported"),
    "firmware.virtualization": (
        "grep -c -w -E 'vmx|svm' /proc/cpuinfo",
        lambda v: "the number of CPUs" if v else "0",
    ),
    "containerd.systemd-cgroup": (
        "containerd config dump | grep SystemdCgroup",
        lambda v: f"SystemdCgroup = {'true' if v else 'false'}",
    ),
    "containerd.nvidia-runtime": (
        "containerd config dump | grep default_runtime_name",
        lambda v: "nvidia" if v else "runc",
    ),
}


def verification(wanted: Wanted) -> Verification:
    """How to verify a setting by hand. Raises KeyError for a setting that no schema allows."""
    if wanted.kind in _OPEN:
        return _OPEN[wanted.kind](wanted.key, wanted.value)
    command, shows = _FIXED[wanted.name]
    value = wanted.value
    return Verification(
        command, shows.replace("{}", str(value)) if isinstance(shows, str) else shows(value)
    )


def command_of(name: str) -> str:
    """The command for a setting whose key is fixed, such as cpu.smt."""
    return _FIXED[name][0]


def _sysctl(key: str, value: Any) -> Verification:
    return Verification(f"sysctl -n {shlex.quote(key)}", str(value))


def _sysfs(key: str, value: Any) -> Verification:
    return Verification(f"cat {key}", f"{value}, in brackets where the file lists choices")


def _module(key: str, value: Any) -> Verification:
    if value == "loaded":
        return Verification(f"lsmod | grep -w {key}; ls -d /sys/module/{key}", "at least one line")
    return Verification(f"lsmod | grep -w {key}; modprobe -n -v {key}", "no insmod line")


def _module_options(key: str, value: Any) -> Verification:
    return Verification(f"modprobe --showconfig | grep '^options {key} '", str(value))


def _cmdline(key: str, value: Any) -> Verification:
    word = key if value in (True, False) and isinstance(value, bool) else f"{key}={value}"
    shows = "nothing" if value is False else word
    pattern = shlex.quote(f"^{key}\\(=\\|$\\)")
    return Verification(f"tr ' ' '\\n' </proc/cmdline | grep {pattern}", shows)


def _unit(key: str, value: Any) -> Verification:
    shows = {
        "running": "active, enabled",
        "stopped": "inactive, disabled",
        "masked": "inactive, masked",
    }
    return Verification(f"systemctl is-active {key}; systemctl is-enabled {key}", shows[value])


def _file(key: str, value: Any) -> Verification:
    return Verification(f"stat -c %a {key}; cat {key}", f"{value['mode']} and its text")


def _pages(key: str, value: Any) -> Verification:
    path = f"/sys/kernel/mm/hugepages/hugepages-{_PAGES[key]}/nr_hugepages"
    return Verification(f"cat {path}", str(value))


def _mount(key: str, value: Any) -> Verification:
    options = f" with {value['options']}" if value["options"] else ""
    return Verification(f"findmnt {key}", f"{value['type']}{options}")


def _irq(key: str, value: Any) -> Verification:
    numbers = f"$(awk -F: '/{key}/{{print $1}}' /proc/interrupts)"
    return Verification(
        f"for n in {numbers}; do cat /proc/irq/$n/smp_affinity_list; done", f"{value} in each line"
    )


def _storage(key: str, value: Any) -> Verification:
    shows = [f"{name} {value[name]}" for name in ("owner", "group", "mode") if value[name]]
    if value["mount"]:
        shows.append("mounted elsewhere than on /")
    if value["min-free"]:
        free = value["min-free"]
        shows.append(f"free: {free if isinstance(free, str) else _size(free)} or more")
    return Verification(f"stat -c '%U %G %a' {key}; df -h {key}", ", ".join(shows) or "its place")


def _limit(value: Any) -> str:
    return "unlimited" if value == "infinity" else str(value)


def _mig(value: dict[str, list[str]]) -> str:
    return "; ".join(
        f"GPU {gpu}: {', '.join(names) or 'no MIG device'}" for gpu, names in value.items()
    )


def _size(size: int) -> str:
    for unit, factor in (("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20)):
        if size % factor == 0 and size:
            return f"{size // factor}{unit}"
    return str(size)


_OPEN: dict[str, Callable[[str, Any], Verification]] = {
    "sysctl": _sysctl,
    "sysfs": _sysfs,
    "modules": _module,
    "module-options": _module_options,
    "cmdline": _cmdline,
    "units": _unit,
    "files": _file,
    "hugepages": _pages,
    "mounts": _mount,
    "irq": _irq,
    "storage": _storage,
}
