"""A test session's virtual machines; everything goes when it is closed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from testbed import disk, qemu
from testbed.vm import KernelMachine


def unavailable() -> str | None:
    """Return why virtual machines cannot be made here, or None when they can."""
    if os.geteuid() != 0:
        return "test machines with their own kernel need root (debootstrap)"
    for tool in (qemu.PROGRAM, "qemu-img", "debootstrap", "mkfs.ext4", "setpriv", "ssh"):
        if shutil.which(tool) is None:
            return f"test machines with their own kernel need {tool}: run .ci/install"
    return None


class KernelBed:
    """Makes virtual machines below a folder; they end with it, or with the thread that made them.

    Each has a `home` of its own: give it to a program as HOME and it reaches the machine by name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._image = disk.image()
        # The path of a control socket may have 108 characters, too few below a test's folder.
        self._control = tempfile.TemporaryDirectory(prefix="inferbase-test-")
        self._machines: dict[str, KernelMachine] = {}
        self._made = 0

    def machine(self, name: str | None = None) -> KernelMachine:
        """Return a new machine, just booted."""
        self._made += 1
        name = name or f"k{self._made}"
        if name in self._machines:
            raise ValueError(f"this session has a machine {name} already")
        folder = self._folder / f"{self._made}-{name}"
        made = KernelMachine(name, self._image, folder, Path(self._control.name))
        self._machines[name] = made
        return made

    def destroy(self, machine: KernelMachine) -> None:
        """End a machine and remove its disk; the log of its serial console stays."""
        machine.close()
        del self._machines[machine.name]

    def close(self) -> None:
        """End every machine."""
        for machine in list(self._machines.values()):
            self.destroy(machine)
        self._control.cleanup()
