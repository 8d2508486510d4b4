"""The virtual machine is what it claims to be: its kernel, boot loader and power are its own."""

from __future__ import annotations

import time

from testbed.vm import KernelMachine

# 2 MiB each, on a machine with 2 GiB.
PAGES = 32


def test_restored_machine(kernel_machine: KernelMachine) -> None:
    """A saved memory goes on with the right clock, both users, and a kernel to change."""
    user = kernel_machine.ssh("sudo -n id -un && date +%s")
    name, clock = user.out.split()
    assert (user.rc, name) == (0, "root")
    assert abs(int(clock) - time.time()) < 30

    state = kernel_machine.check(
        f"sysctl -qw vm.nr_hugepages={PAGES} && grep HugePages_Total /proc/meminfo;"
        "modprobe -a br_netfilter overlay zram && cat /proc/sys/net/bridge/bridge-nf-call-iptables;"
        "echo never >/sys/kernel/mm/transparent_hugepage/enabled &&"
        "cat /sys/kernel/mm/transparent_hugepage/enabled;"
        "systemd-run --quiet --wait -p LimitMEMLOCK=infinity -p StandardOutput=file:/tmp/limits"
        " cat /proc/self/limits && grep 'locked memory' /tmp/limits; stat -fc %T /sys/fs/cgroup"
    ).splitlines()
    assert state[0].split() == ["HugePages_Total:", str(PAGES)]
    assert state[1] == "1"
    assert state[2].endswith("[never]")
    assert state[3].split()[3:5] == ["unlimited", "unlimited"]
    assert state[4] == "cgroup2fs"

    kernel_machine.restore()
    assert kernel_machine.read("/proc/sys/vm/nr_hugepages").strip() == "0"
    assert not kernel_machine.exists("/tmp/limits")
