from __future__ import annotations

from typing import Any

import pytest
from hostprep_machine import SYSTEM, Machine, ground, see, there_and_back, verdicts

from inferfleet.hostprep.kinds import back
from inferfleet.hostprep.kinds.kernel.sysfs import HEAD
from inferfleet.hostprep.kinds.storage import mounts
from inferfleet.hostprep.kinds.storage.mounted import TABLE, entries
from inferfleet.hostprep.kinds.storage.mounts import Mounts, unit_text

UNIT = f"{SYSTEM}/mnt-huge.mount"
SYSTEMD = "proc /proc proc rw,nosuid 0 0\n"
HUGE = "hugetlbfs /mnt/huge hugetlbfs rw,relatime,pagesize=2M 0 0\n"


class Host(Machine):
    """Mounts what a .mount unit says."""

    def mount(self, unit: str, verb: str) -> None:
        text = self.files[f"{SYSTEM}/{unit}"]
        lines = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)
        where = lines["Where"].replace(" ", "\\040")
        line = f"{lines['What']} {where} {lines['Type']} rw,{lines.get('Options', 'x')} 0 0\n"
        if verb == "start":
            assert lines["Where"] in self.kinds
            self.files[TABLE] += line
        else:
            self.files[TABLE] = self.files[TABLE].replace(line, "")

    def run(self, argv: tuple[str, ...]) -> None:
        match argv:
            case ("sh", "-c", back.UMOUNT, _, where):
                if self.mounted(where):
                    self.run(("umount", "--", where))
            case ("umount", "--", where):
                where = where.replace(" ", "\\040")
                lines = self.files[TABLE].splitlines(keepends=True)
                self.files[TABLE] = "".join(one for one in lines if one.split()[1] != where)
            case ("sh", "-c", back.MOUNT, _, kind, options, what, where):
                if not self.mounted(where):
                    self.files[TABLE] += f"{what} {where} {kind} {options} 0 0\n"
            case _:
                super().run(argv)

    def mounted(self, where: str) -> bool:
        return any(entry.where == where for entry in entries(self.files[TABLE]))


def host(table: str = SYSTEMD, **files: str) -> Host:
    return Host(files={TABLE: table, **files}, kinds={"/mnt": "directory"})


def wanted(path: str = "/mnt/huge", options: str | None = "pagesize=2M", **more: str):  # type: ignore[no-untyped-def]
    value: dict[str, Any] = {"what": "hugetlbfs", "type": "hugetlbfs", "options": options, **more}
    return ground(mounts={path: value})


@pytest.mark.parametrize("path", ["/mnt/huge", "/mnt/a/b-c/d", "/mnt/a b"])
def test_it_is_mounted_and_all_of_it_goes_again(path: str) -> None:
    machine = host()
    trip = there_and_back(machine, Mounts(), wanted(path))
    assert trip.verdicts() == {f"mounts.{path}": "ok"}
    assert set(machine.kinds) == {"/mnt"}


def test_the_unit_says_all_that_was_asked() -> None:
    one = wanted(what="/dev/disk/by-label/50%", type="ext4", options="ro,nofail").settings[0]
    assert unit_text(one) == (
        f"{HEAD}[Unit]\nDescription=/mnt/huge (inferbase)\n\n[Mount]\n"
        "What=/dev/disk/by-label/50%%\nWhere=/mnt/huge\nType=ext4\nOptions=ro,nofail\n"
    )


def mounted(table: str = SYSTEMD + HUGE) -> Host:
    machine = host(table)
    machine.kinds["/mnt/huge"] = "directory"
    machine.files |= {
        UNIT: unit_text(wanted().settings[0]),
        mounts.DROP_IN: f"{HEAD}[Unit]\nWants=mnt-huge.mount\n",
    }
    return machine


def test_a_mount_as_wanted_is_left_alone() -> None:
    prepared = see(mounted(), Mounts(), wanted())
    assert [finding.verdict for finding in prepared.findings] == ["ok"]
    assert prepared.changes == ()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("tmpfs /mnt/huge tmpfs rw 0 0\n", "type (tmpfs)"),
        ("hugetlbfs /mnt/huge hugetlbfs rw,pagesize=1024M 0 0\n", "set of options"),
    ],
)
def test_a_mount_that_is_another_waits_for_a_start(table: str, words: str) -> None:
    machine = mounted(SYSTEMD + table)
    assert verdicts(machine, Mounts(), wanted()) == {"mounts./mnt/huge": "pending"}
    del machine.files[UNIT]
    trip = there_and_back(machine, Mounts(), wanted())
    assert trip.verdicts() == {"mounts./mnt/huge": "pending"}
    assert words in trip.before.changes[0].reboot
    assert not any("start" in line for line in machine.ran)


@pytest.mark.parametrize(
    ("live", "options"),
    [
        ("rw,size=16777216k,mode=755", "size=16G,mode=0755"),
        ("rw,nosuid,size=3284k", "size=10%,nosuid,nofail,x-systemd.automount"),
        ("rw,relatime", None),
    ],
)
def test_options_are_compared_as_the_kernel_shows_them(live: str, options: str | None) -> None:
    one = wanted(what="tmpfs", type="tmpfs", options=options)
    machine = mounted(f"tmpfs /mnt/huge tmpfs {live} 0 0\n")
    machine.files[UNIT] = unit_text(one.settings[0])
    assert verdicts(machine, Mounts(), one) == {"mounts./mnt/huge": "ok"}


def test_another_disk_at_the_place_is_seen() -> None:
    one = wanted(what="/dev/nvme0n1p1", type="ext4", options=None)
    machine = mounted("/dev/sda1 /mnt/huge ext4 rw 0 0\n")
    machine.files[UNIT] = unit_text(one.settings[0])
    machine.kinds["/dev/nvme0n1p1"] = "block special file"
    finding = see(machine, Mounts(), one).findings[0]
    assert (finding.verdict, "device (/dev/sda1)" in finding.remedy) == ("pending", True)


@pytest.mark.parametrize(("table", "verdict"), [(SYSTEMD + HUGE, "ok"), (SYSTEMD, "advice")])
def test_what_fstab_mounts_is_left_to_it(table: str, verdict: str) -> None:
    machine = host(table, **{"/etc/fstab": "none /mnt/huge hugetlbfs pagesize=2M 0 0\n"})
    prepared = see(machine, Mounts(), wanted())
    assert [finding.verdict for finding in prepared.findings] == [verdict]
    assert prepared.changes == ()


def test_what_a_unit_of_the_system_mounts_is_left_to_it() -> None:
    machine = host(SYSTEMD + HUGE)
    machine.unit("mnt-huge.mount", "active", "static")
    prepared = see(machine, Mounts(), wanted())
    assert (prepared.findings[0].verdict, prepared.changes) == ("ok", ())


def test_a_unit_of_somebody_else_is_not_overwritten() -> None:
    machine = host(**{UNIT: "[Mount]\nWhat=x\n"})
    prepared = see(machine, Mounts(), wanted())
    assert (prepared.findings[0].verdict, prepared.changes) == ("advice", ())


def test_a_file_in_the_place_of_the_mount_point_is_said() -> None:
    machine = host()
    machine.kinds["/mnt/huge"] = "symbolic link"
    prepared = see(machine, Mounts(), wanted())
    assert (prepared.findings[0].verdict, prepared.changes) == ("advice", ())


def test_a_mount_that_nobody_wants_any_more_goes() -> None:
    machine = mounted()
    machine.files[f"{SYSTEM}/other.mount"] = "[Mount]\nWhat=x\n"
    there_and_back(machine, Mounts(), ground())
    assert machine.ran[1] == "umount -- /mnt/huge"
    assert machine.ran[2].endswith("hugetlbfs rw,relatime,pagesize=2M hugetlbfs /mnt/huge")


def test_without_systemd_nothing_can_be_told() -> None:
    machine = host()
    machine.absent = {"systemctl"}
    prepared = see(machine, Mounts(), wanted())
    assert (prepared.findings[0].verdict, prepared.changes) == ("unknown", ())


def test_escapes_of_mount_tables_are_undone() -> None:
    found = entries("a\\040b /mnt/c\\134d ext4\n# /x /y z\n")
    assert [(one.what, one.where, one.options) for one in found] == [
        ("a b", "/mnt/c\\d", "defaults")
    ]
