"""All kinds of settings; their order is the order in which changes are made.

A kind is imported when it is wanted, or when the machine has a file that only an earlier run of
it can have left: most machines want a few of them, and a check should not wait for the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module

from inferfleet.hostprep.facts import Facts, Look
from inferfleet.hostprep.setting import Kind


@dataclass(frozen=True)
class Entry:
    """place: module and class. signs: files by which an earlier run of the kind is known."""

    place: str
    signs: tuple[str, ...] = ()

    def load(self) -> Kind:
        """The kind."""
        module, _, name = self.place.partition(":")
        kind: Kind = getattr(import_module(f"inferfleet.hostprep.kinds.{module}"), name)()
        return kind


_UNITS = "/etc/systemd/system"
ENTRIES: dict[str, Entry] = {
    "modules": Entry(
        "kernel.modules:Modules",
        ("/etc/modules-load.d/90-inferbase.conf", "/etc/modprobe.d/90-inferbase-blocked.conf"),
    ),
    "module-options": Entry(
        "kernel.module_options:ModuleOptions", ("/etc/modprobe.d/zz-inferbase-options.conf",)
    ),
    "sysctl": Entry("kernel.sysctl:Sysctl", ("/etc/sysctl.d/90-inferbase.conf",)),
    "sysfs": Entry("kernel.sysfs:Sysfs", ("/etc/tmpfiles.d/90-inferbase.conf",)),
    "cmdline": Entry(
        "cmdline.cmdline:Cmdline",
        (
            "/etc/default/grub.d/90-inferbase.cfg",
            "/etc/default/grub.d/zz-inferbase-trial.cfg",
            "/var/lib/inferbase/boot/ours",
            "/var/lib/inferbase/boot/words",
        ),
    ),
    "hugepages": Entry(
        "memory.hugepages:HugePages", ("/etc/tmpfiles.d/90-inferbase-hugepages.conf",)
    ),
    "mounts": Entry("storage.mounts:Mounts", (f"{_UNITS}/local-fs.target.d/90-inferbase.conf",)),
    "files": Entry("system.files:Files"),
    # Before what programs that are to be stopped would set back when they end.
    "units": Entry("system.units:Units"),
    "time": Entry("system.timesync:Time"),
    "limits": Entry(
        "system.limits:Limits",
        (
            "/etc/security/limits.d/90-inferbase.conf",
            "/etc/systemd/system.conf.d/90-inferbase.conf",
        ),
    ),
    "swap": Entry(
        "memory.swap:Swap",
        (f"{_UNITS}/swap.d/90-inferbase.conf", f"{_UNITS}/inferbase-zram.service"),
    ),
    "cpu": Entry("cpu.cpu:Cpu", ("/etc/tmpfiles.d/90-inferbase-cpu.conf",)),
    "irq": Entry(
        "cpu.irq:Irq",
        (
            f"{_UNITS}/irqbalance.service.d/90-inferbase.conf",
            "/usr/local/lib/inferbase/irqbalance-policy",
        ),
    ),
    "gpu": Entry(
        "gpu.gpu:Gpu",
        (
            "/usr/local/lib/inferbase/gpu.sh",
            f"{_UNITS}/nvidia-persistenced.service.d/90-inferbase.conf",
            "/etc/modules-load.d/90-nvidia-uvm-inferbase.conf",
        ),
    ),
    "storage": Entry("storage.storage:Storage"),
    "memory-guard": Entry(
        "memory.memory_guard:MemoryGuard",
        (
            f"{_UNITS}/inferbase-memory-guard.service",
            f"{_UNITS}/earlyoom.service.d/90-inferbase.conf",
        ),
    ),
    "containerd": Entry("system.containerd:Containerd"),
    # These two only look.
    "driver": Entry("gpu.driver:Driver"),
    "firmware": Entry("system.firmware:Firmware"),
}


def load_kinds(names: Iterable[str]) -> dict[str, Kind]:
    """The kinds of these names, in the order of changes."""
    wanted = set(names)
    return {name: entry.load() for name, entry in ENTRIES.items() if name in wanted}


def signs(names: Iterable[str]) -> Look:
    """What shows that one of the other kinds has been here."""
    known = set(names)
    return Look(tuple(p for name, one in ENTRIES.items() if name not in known for p in one.signs))


def left_behind(names: Iterable[str], facts: Facts) -> set[str]:
    """The other kinds of which something is there."""
    known = set(names)
    there = facts.files.keys() | facts.closed
    return {name for name, one in ENTRIES.items() if name not in known and there & set(one.signs)}
