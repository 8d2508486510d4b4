from __future__ import annotations

import pytest
from hostprep_machine import Machine, ground, see, there_and_back, verdicts

from inferfleet.hostprep.kinds.kernel import module_options, modules
from inferfleet.hostprep.kinds.kernel.module_options import ModuleOptions
from inferfleet.hostprep.kinds.kernel.modules import Modules
from inferfleet.hostprep.kinds.kernel.sysfs import HEAD

BRIDGE = {"br_netfilter": ["llc", "stp", "bridge"], "overlay": [], "nouveau": [], "vfat": []}


def kernel(*loaded: str, **users: int) -> Machine:
    lines = [f"{name} 16384 {users.get(name, 0)} - Live 0x0\n" for name in loaded]
    return Machine(
        files={
            "/proc/modules": "".join(lines),
            "/proc/sys/kernel/osrelease": "6.1.0-40-amd64\n",
            "/lib/modules/6.1.0-40-amd64/modules.builtin": "kernel/fs/fuse/fuse.ko\n",
            "/lib/modules/5.9.0/modules.builtin": "kernel/fs/overlayfs/overlay.ko\n",
            "/usr/sbin/update-initramfs": "#!/bin/sh\n",
        },
        available=BRIDGE,
    )


def wanted(**settings: str):  # type: ignore[no-untyped-def]
    return ground(modules={name.replace("__", "-"): value for name, value in settings.items()})


def test_modules_are_loaded_with_what_they_need_and_unloaded_again() -> None:
    machine = kernel("llc")
    trip = there_and_back(machine, Modules(), wanted(br_netfilter="loaded", overlay="loaded"))
    assert trip.verdicts() == {"modules.br_netfilter": "ok", "modules.overlay": "ok"}
    # llc was there before, so it stays.
    assert machine.ran[0] == "modprobe -a -- br_netfilter overlay"
    assert machine.ran[1].endswith("inferbase overlay br_netfilter bridge stp")
    files = {file.path: file.content for file in trip.before.files}
    assert files == {modules.LOAD: f"{HEAD}br_netfilter\noverlay\n"}


def test_a_name_with_a_dash_is_the_module_with_an_underscore() -> None:
    machine = kernel()
    trip = there_and_back(machine, Modules(), wanted(br__netfilter="loaded"))
    assert trip.verdicts() == {"modules.br-netfilter": "ok"}


def test_loaded_modules_that_are_kept_are_left_alone() -> None:
    machine = kernel("overlay")
    machine.files[modules.LOAD] = f"{HEAD}fuse\noverlay\n"
    prepared = see(machine, Modules(), wanted(overlay="loaded", fuse="loaded"))
    assert [(f.live, f.verdict) for f in prepared.findings] == [
        ("built in", "ok"),
        ("loaded", "ok"),
    ]
    assert prepared.changes == ()


def test_a_loaded_module_is_only_kept() -> None:
    machine = kernel("overlay")
    trip = there_and_back(machine, Modules(), wanted(overlay="loaded"))
    assert machine.ran == []
    assert [file.path for file in trip.before.files] == [modules.LOAD]


@pytest.mark.parametrize(
    ("machine", "absent", "verdict", "words"),
    [
        (kernel(), False, "absent", "no such module"),
        (kernel(), True, "unknown", "install kmod"),
    ],
)
def test_a_module_that_cannot_be_had_changes_nothing(
    machine: Machine, absent: bool, verdict: str, words: str
) -> None:
    machine.absent = {"modprobe"} if absent else set()
    prepared = see(machine, Modules(), wanted(wireguard="loaded"))
    assert [finding.verdict for finding in prepared.findings] == [verdict]
    assert words in prepared.findings[0].remedy
    assert prepared.changes == ()


def test_what_was_kept_stays_while_it_cannot_be_told() -> None:
    machine = kernel()
    machine.absent = {"modprobe"}
    machine.files[modules.LOAD] = f"{HEAD}overlay\n"
    assert see(machine, Modules(), wanted(overlay="loaded")).changes == ()


@pytest.mark.parametrize("line", ["blacklist overlay", "install overlay /bin/false # cis"])
def test_a_module_that_another_file_blocks_is_overridden(line: str) -> None:
    machine = kernel("overlay")
    machine.files |= {modules.LOAD: f"{HEAD}overlay\n", "/etc/modprobe.d/cis.conf": f"{line}\n"}
    finding = see(machine, Modules(), wanted(overlay="loaded")).findings[0]
    assert finding.verdict == "overridden"
    assert "/etc/modprobe.d/cis.conf" in finding.remedy
    # The same name in an earlier folder hides the file.
    machine.files["/usr/lib/modprobe.d/cis.conf"] = machine.files["/etc/modprobe.d/cis.conf"]
    machine.files["/etc/modprobe.d/cis.conf"] = "# nothing\n"
    assert verdicts(machine, Modules(), wanted(overlay="loaded")) == {"modules.overlay": "ok"}


def test_an_idle_module_is_blocked_and_unloaded_at_once() -> None:
    machine = kernel("nouveau")
    trip = there_and_back(machine, Modules(), wanted(nouveau="blocked"))
    assert trip.verdicts() == {"modules.nouveau": "ok"}
    assert machine.ran == [
        "update-initramfs -u", "rmmod -- nouveau",
        "modprobe --ignore-install -- nouveau", "update-initramfs -u",
    ]  # fmt: skip
    text = trip.before.files[0].content
    assert text == f"{HEAD}blacklist nouveau\ninstall nouveau /bin/false\n"


def test_a_module_in_use_is_blocked_with_the_next_start() -> None:
    machine = kernel("nouveau", nouveau=3)
    trip = there_and_back(machine, Modules(), wanted(nouveau="blocked"))
    assert trip.verdicts() == {"modules.nouveau": "pending"}
    assert [change.reboot for change in trip.before.changes] == ["nouveau stays loaded until then"]
    assert "rmmod -- nouveau" not in machine.ran


def test_dracut_builds_the_boot_image_where_there_is_no_initramfs_tools() -> None:
    machine = kernel()
    del machine.files["/usr/sbin/update-initramfs"]
    machine.files["/usr/bin/dracut"] = ""
    prepared = see(machine, Modules(), wanted(nouveau="blocked"))
    assert prepared.files[0].after == ("dracut", "--force")


def test_a_part_of_the_kernel_cannot_be_blocked() -> None:
    prepared = see(kernel(), Modules(), wanted(fuse="blocked"))
    assert prepared.findings[0].verdict == "advice"
    assert prepared.changes == ()


def test_files_of_an_earlier_run_go_when_nothing_is_wanted() -> None:
    machine = kernel()
    machine.files |= {modules.LOAD: HEAD, modules.BLOCK: HEAD, module_options.OURS: HEAD}
    there_and_back(machine, Modules(), ground())
    there_and_back(machine, ModuleOptions(), ground())


PARAMETER = "/sys/module/kvm/parameters"
KVM = ground(module_options={"kvm": "halt_poll_ns=0 nx_huge_pages=N"})


def with_kvm(mode: str, poll: str = "200000", nx: str = "N") -> Machine:
    machine = kernel("kvm")
    machine.files |= {
        f"{PARAMETER}/halt_poll_ns": f"{poll}\n", f"{PARAMETER}/nx_huge_pages": f"{nx}\n",
    }  # fmt: skip
    machine.modes = {f"{PARAMETER}/halt_poll_ns": mode, f"{PARAMETER}/nx_huge_pages": "444"}
    return machine


def test_options_that_can_be_written_are_set_now() -> None:
    trip = there_and_back(with_kvm("644"), ModuleOptions(), KVM)
    assert trip.verdicts() == {"module-options.kvm": "ok"}
    assert [change.reboot for change in trip.before.changes] == ["", ""]
    assert trip.before.changes[1].text == "halt_poll_ns 200000 -> 0"
    assert trip.before.files[0].content == f"{HEAD}options kvm halt_poll_ns=0 nx_huge_pages=N\n"


def test_options_that_cannot_be_written_wait_for_a_start() -> None:
    trip = there_and_back(with_kvm("444"), ModuleOptions(), KVM)
    assert trip.verdicts() == {"module-options.kvm": "pending"}
    assert "kvm takes its options" in trip.before.changes[0].reboot


def test_options_as_wanted_are_left_alone() -> None:
    machine = with_kvm("644", poll="0", nx="0")
    machine.files[module_options.OURS] = f"{HEAD}options kvm halt_poll_ns=0 nx_huge_pages=N\n"
    prepared = see(machine, ModuleOptions(), KVM)
    assert [finding.verdict for finding in prepared.findings] == ["ok"]
    assert prepared.changes == ()


def test_options_of_a_module_that_is_not_loaded_are_only_kept() -> None:
    trip = there_and_back(kernel(), ModuleOptions(), KVM)
    assert trip.after.findings[0].live == "not loaded"
    assert trip.verdicts() == {"module-options.kvm": "ok"}


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("/etc/modprobe.d/zz-later.conf", "options kvm halt_poll_ns=7\n", "zz-later.conf"),
        ("/proc/cmdline", "root=/dev/sda1 kvm.halt_poll_ns=7 quiet\n", "kvm.halt_poll_ns=7"),
    ],
)
def test_what_sets_an_option_later_is_named(path: str, text: str, words: str) -> None:
    machine = with_kvm("644", poll="0")
    machine.files |= {
        path: text, module_options.OURS: f"{HEAD}options kvm halt_poll_ns=0 nx_huge_pages=N\n",
    }  # fmt: skip
    finding = see(machine, ModuleOptions(), KVM).findings[0]
    assert (finding.verdict, words in finding.remedy) == ("overridden", True)


def test_an_earlier_file_and_the_same_value_do_not_matter() -> None:
    machine = with_kvm("644", poll="0")
    machine.files |= {
        "/etc/modprobe.d/kvm.conf": "options kvm halt_poll_ns=7\n",
        "/etc/modprobe.d/zz-later.conf": "options kvm nx_huge_pages=0\noptions nvme x=1\n",
        "/proc/cmdline": "kvm.halt_poll_ns=0 kvm_intel.nested=1\n",
        module_options.OURS: f"{HEAD}options kvm halt_poll_ns=0 nx_huge_pages=N\n",
    }
    assert verdicts(machine, ModuleOptions(), KVM) == {"module-options.kvm": "ok"}


def test_parameters_of_nvidia_are_read_where_it_shows_them() -> None:
    machine = kernel("nvidia", nvidia=1)
    machine.files["/proc/driver/nvidia/params"] = "ResmanDebugLevel: 4294967295\nEnableMSI: 1\n"
    wanted = ground(module_options={"nvidia": "NVreg_EnableMSI=0"})
    trip = there_and_back(machine, ModuleOptions(), wanted)
    assert trip.before.findings[0].live == "NVreg_EnableMSI=1"
    assert trip.verdicts() == {"module-options.nvidia": "pending"}
