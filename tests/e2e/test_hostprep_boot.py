"""A kernel command line on a machine with its own kernel: tried once, confirmed or taken back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from e2e.fleet import Fleet, Ran
from testbed.vm import KernelMachine

STATE = "/var/lib/inferbase/hostprep"
HOME = "/var/lib/inferbase/boot"
UNIT = "inferbase-boot-check.service"
# Everything that a change brings and that is gone when it is confirmed or undone.
LEFT = (
    f"ls -d {HOME}/armed {HOME}/words /usr/local/lib/inferbase/boot-check /etc/grub.d/42_inferbase"
    " /etc/default/grub.d/zz-* /boot/grub/inferbase-* /etc/systemd/system/*/*inferbase-boot* "
    f"/etc/systemd/system/{UNIT} 2>/dev/null; true"
)

# Settings that only a machine with its own kernel can take, and what shows them.
OTHERS: Mapping[str, Any] = {
    "sysctl": {"vm.swappiness": 7, "net.bridge.bridge-nf-call-iptables": 0},
    "sysfs": {"/sys/kernel/mm/transparent_hugepage/enabled": "never"},
    "modules": {"br_netfilter": "loaded"},
    "mounts": {"/mnt/pages": {"what": "hugetlbfs", "type": "hugetlbfs", "options": "pagesize=2M"}},
    "limits": {"memlock": "infinity"},
    "swap": {"zram": "64M"},
}
SEEN = (
    "cat /proc/sys/vm/swappiness /sys/kernel/mm/transparent_hugepage/enabled /proc/swaps; "
    "grep -c ^br_netfilter /proc/modules; grep hugetlbfs.*/mnt /proc/mounts; "
    "systemctl show -p DefaultLimitMEMLOCK; ls /etc/sysctl.d /etc/tmpfiles.d /etc/modules-load.d"
)


class Prepared:
    """A machine and its file."""

    def __init__(self, folder: Path, machine: KernelMachine) -> None:
        self.machine, self.fleet = machine, Fleet(folder, machine.home)

    def want(self, others: Mapping[str, Any] | None = None, **cmdline: Any) -> None:
        prep = {"cmdline": cmdline, **(others or {})}
        self.fleet.host(self.machine, {}, sudo=True, hostprep=prep)

    def invoke(self, task: str, *words: str) -> Ran:
        return self.fleet.invoke(f"hostprep.{task}", "--host", self.machine.name, *words)

    def check(self) -> Mapping[str, Mapping[str, str]]:
        """The findings by name."""
        rows = self.invoke("check", "--format", "json").data
        return {row["setting"]: row for row in rows}

    def words(self) -> list[str]:
        return self.machine.read("/proc/cmdline").split()

    def settle(self, timeout_s: float = 480) -> str:
        """Wait until no change is unconfirmed, through restarts; what came of it."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.machine.wait_up()
            over = f"[ ! -e {HOME}/armed ] && [ ! -L {STATE}/lock ]"
            done = self.machine.run(f"{over} && cat {HOME}/result")
            if done.rc == 0:
                return done.out.partition("\t")[0]
            time.sleep(2)
        journal = self.machine.run(f"journalctl -b -u {UNIT} --no-pager; ls -R {HOME}").out
        raise AssertionError(journal)


@pytest.fixture
def prepared(tmp_path: Path, kernel_machine: KernelMachine) -> Prepared:
    return Prepared(tmp_path, kernel_machine)


def test_confirmed_and_rolled_back(prepared: Prepared) -> None:
    machine = prepared.machine
    menu, before = machine.read("/boot/grub/grub.cfg"), machine.check(SEEN)
    prepared.want(OTHERS, **{"hugepagesz": "2M", "hugepages": 16, "inferbase.e2e": True})

    done = prepared.invoke("apply", "--yes")
    assert done.rc == 0, done
    assert "reboot needed" in done.err
    found = {name: row["verdict"] for name, row in prepared.check().items()}
    waiting = {"cmdline.hugepages", "cmdline.hugepagesz", "cmdline.inferbase.e2e"}
    assert found == {name: "pending" if name in waiting else "ok" for name in found}
    assert len(found) == len(waiting) + 7
    assert "unlimited" in machine.check(
        "systemd-run -q --wait --pipe grep locked /proc/self/limits"
    )
    again = prepared.invoke("plan")
    assert (again.rc, "nothing to change" in again.out) == (0, True), again
    unit = f"/etc/systemd/system/{UNIT}"
    assert machine.check(f"systemd-analyze verify {unit} 2>&1") == ""

    # The old line is what any start gets but the next one.
    assert 'set default="inferbase-before"' in machine.read("/boot/grub/grub.cfg")
    assert machine.read("/boot/grub/inferbase-before.cfg") == menu
    machine.reboot()
    assert {"hugepagesz=2M", "hugepages=16", "inferbase.e2e"} <= set(prepared.words())
    assert prepared.settle() == "confirmed"
    assert machine.check(LEFT) == ""
    assert {row["verdict"] for row in prepared.check().values()} == {"ok"}

    made = machine.read("/boot/grub/grub.cfg")
    assert "hugepagesz=2M hugepages=16 inferbase.e2e" in made
    assert not any(word in made for word in ("inferbase.trial", "panic=20", "inferbase-before"))
    words = prepared.words()
    assert words.index("hugepages=16") == words.index("hugepagesz=2M") + 1
    assert machine.read("/proc/sys/vm/nr_hugepages").strip() == "16"

    done = prepared.invoke("rollback", "--yes")
    assert done.rc == 0, done
    assert machine.read("/boot/grub/grub.cfg") == menu
    assert machine.check(LEFT) == ""
    assert machine.check(SEEN) == before


@pytest.mark.slow
def test_not_healthy_goes_back(prepared: Prepared) -> None:
    machine = prepared.machine
    menu = machine.read("/boot/grub/grub.cfg")
    prepared.want(**{"systemd.mask": "ssh.service", "inferbase.e2e": True})
    done = prepared.invoke("apply", "--yes")
    assert done.rc == 0, done
    machine.reboot()
    assert prepared.settle() == "failed"
    _old(prepared, menu, "sshd was not active")


@pytest.mark.slow
def test_no_user_space_goes_back(prepared: Prepared) -> None:
    machine = prepared.machine
    menu = machine.read("/boot/grub/grub.cfg")
    prepared.want(init="/bin/false", panic=1)
    done = prepared.invoke("apply", "--yes")
    assert done.rc == 0, done
    machine.reboot()
    assert "Attempted to kill init" in machine.serial.read_text(errors="replace")
    assert prepared.settle() == "failed"
    _old(prepared, menu, "the new line did not come up")


def _old(prepared: Prepared, menu: str, why: str) -> None:
    """Everything is as before, and the check says why."""
    found = prepared.check()
    assert {row["verdict"] for row in found.values()} == {"differs"}
    assert all(why in row["remedy"] for row in found.values()), found
    assert prepared.machine.read("/boot/grub/grub.cfg") == menu
    assert prepared.machine.check(LEFT) == ""
    assert not prepared.machine.exists("/etc/default/grub.d/90-inferbase.cfg")
    assert not prepared.machine.exists(f"{STATE}/journal")
    assert not {"inferbase.e2e", "inferbase.trial"} & set(prepared.words())
