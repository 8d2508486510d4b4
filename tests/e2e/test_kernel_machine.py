"""The virtual machine is what it claims to be: its kernel, boot loader and power are its own."""

from __future__ import annotations

import time

from testbed.vm import KernelMachine

# 2 MiB each, on a machine with 2 GiB.
PAGES = 32
# The entry that update-grub made, with one more word: the drop-in's words are in it too.
ONE_SHOT_ENTRY = r"""
set -e
update-grub 2>&1
cd /boot/grub
{ echo 'menuentry once {'
  sed -n '/^menuentry/,/^}/p' grub.cfg | sed -n '/^\s*linux/s/$/ inferbase.once/p; /^\s*initrd/p'
  echo '}'
} >custom.cfg
grub-reboot once
sync
"""


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


def test_reboot_through_grub(kernel_machine: KernelMachine) -> None:
    """A drop-in and a one-shot entry reach the kernel; the entry is used once."""
    kernel_machine.write(
        "/etc/default/grub.d/50-test.cfg",
        "GRUB_DEFAULT=saved\n"
        f'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX hugepages={PAGES} inferbase.test"\n',
    )
    kernel_machine.check(ONE_SHOT_ENTRY)
    before = kernel_machine.boot_id()

    kernel_machine.reboot()
    words = kernel_machine.read("/proc/cmdline").split()
    assert {f"hugepages={PAGES}", "inferbase.test", "inferbase.once"} <= set(words)
    assert kernel_machine.read("/proc/sys/vm/nr_hugepages").strip() == str(PAGES)
    assert kernel_machine.boot_id() != before
    # GRUB itself has cleared it, on a disk that it can write to.
    assert "next_entry=\n" in kernel_machine.check("grub-editenv /boot/grub/grubenv list")
