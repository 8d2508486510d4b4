from __future__ import annotations

import re

import pytest
from hostprep_machine import SYSTEM, Machine, ground, see, there_and_back

from inferfleet.hostprep.kinds import back
from inferfleet.hostprep.kinds.memory import swaps, zram
from inferfleet.hostprep.kinds.memory.swap import Swap
from inferfleet.hostprep.kinds.storage.mounted import unescape

HEADER = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
DISK = "/dev/sda3                               partition\t2097148\t\t1024\t\t-2\n"
FILE = "/swap\\040file                          file\t\t1048572\t\t0\t\t5\n"
FSTAB = """\
# <file system> <mount point>   <type>  <options>       <dump>  <pass>
LABEL=root /  ext4\terrors=remount-ro 0 1\r
UUID=12-34   none\tswap  sw 0 0
  /swap\\040file none swap pri=5
/dev/sdb1 none swap noauto 0 0
#/dev/old none swap sw 0 0
/srv/swap /swap none bind
"""
COMMENTED = FSTAB.replace("UUID=", "#inferbase# UUID=").replace(
    "  /swap\\040", "#inferbase#   /swap\\040"
)


class Host(Machine):
    """Takes swap space on and off; devices of zram get the next free number."""

    def lines(self) -> list[str]:
        return self.files[swaps.TABLE].splitlines(keepends=True)[1:]

    def have(self, lines: list[str]) -> None:
        self.files[swaps.TABLE] = HEADER + "".join(lines)

    def on(self, path: str, size: int, priority: int, kind: str = "partition") -> None:
        self.have([*self.lines(), f"{path}\t{kind}\t{size}\t0\t{priority}\n"])

    def run(self, argv: tuple[str, ...]) -> None:
        match argv:
            case ("swapoff", "--", path):
                name = path.replace(" ", "\\040")
                left = [line for line in self.lines() if line.split()[0] != name]
                assert len(left) == len(self.lines()) - 1, f"{path} is no swap space"
                self.have(left)
            case ("sh", "-c", back.SWAPON, _, name, *flags, "--", path):
                if any(line.split()[0] == name for line in self.lines()):
                    return
                line = {line.split()[0]: line for line in (DISK, FILE)}[name]
                assert flags == ([] if "-2" in line else ["-p", "5"])
                assert path == unescape(name)
                self.have([*self.lines(), line])
            case ("swapon", "-a"):
                assert "\nUUID=" in self.files["/etc/fstab"]
                self.have([*self.lines(), DISK])
            case ("swapoff", "-a"):
                self.have([])
            case ("sh", zram.SCRIPT, "start", size):
                assert zram.SCRIPT in self.files
                self.files["/sys/block/zram1/disksize"] = f"{size}\n"
                self.files[zram.DEVICE] = "/dev/zram1\n"
                self.on("/dev/zram1", self.size("/dev/zram1"), 100)
            case ("sh", "-c", back.SCRIPT, _, path, *words):
                if path in self.files:
                    self.run(("sh", path, *words))
            case ("sh", "-c", zram.AGAIN, _, path, disk, size):
                if path not in self.files[swaps.TABLE]:
                    self.files[f"{disk}/disksize"] = f"{size}\n"
                    self.on(path, self.size(path), 100)
            case ("sh", zram.SCRIPT, "stop") if zram.DEVICE not in self.files:
                pass
            case ("sh", zram.SCRIPT, "stop"):
                self.run(("swapoff", "--", self.files.pop(zram.DEVICE).strip()))
                del self.files["/sys/block/zram1/disksize"]
            case _:
                super().run(argv)

    def size(self, path: str) -> int:
        return int(self.files[f"/sys/block/{path[5:]}/disksize"]) // 1024 - 4

    def state(self):  # type: ignore[no-untyped-def]
        files, *rest = super().state()
        # What was used is in memory now, and nothing takes it out again.
        files[swaps.TABLE] = re.sub(r"\t1024\t", "\t0\t", files[swaps.TABLE])
        return files, *rest


def host(*lines: str, fstab: str = FSTAB, free: int = 1 << 20) -> Host:
    return Host(
        files={
            swaps.TABLE: HEADER + "".join(lines),
            "/etc/fstab": fstab,
            "/proc/meminfo": f"MemAvailable: {free} kB\n",
        }
    )


OFF, ON = ground(swap={"active": False}), ground(swap={"active": True})
ZRAM = ground(swap={"zram": 4 << 30})


def test_swap_goes_and_comes_back_with_its_priorities() -> None:
    machine = host(DISK, FILE)
    trip = there_and_back(machine, Swap(), OFF)
    assert trip.verdicts() == {"swap.active": "ok"}
    assert trip.before.findings[0].live == "/dev/sda3 2047 MiB, /swap file 1023 MiB"
    assert machine.ran[:2] == ["swapoff -- /dev/sda3", "swapoff -- '/swap file'"]
    assert [line.split("inferbase ")[1] for line in machine.ran[2:]] == [
        "/dev/sda3 -- /dev/sda3", "'/swap\\040file' -p 5 -- '/swap file'"]  # fmt: skip


def test_only_swap_lines_of_fstab_are_touched() -> None:
    prepared = see(host(DISK), Swap(), OFF)
    files = {file.path: file.content for file in prepared.files}
    assert files["/etc/fstab"] == COMMENTED
    assert sorted(files) == ["/etc/fstab", swaps.ALL_SWAPS]


def test_no_unit_brings_swap_back() -> None:
    machine = host(fstab="")
    machine.unit("dev-sdc1.swap", "inactive", "generated")
    machine.unit("zramswap.service", "active", "enabled")
    machine.kinds[swaps.GENERATOR] = "regular file"
    trip = there_and_back(machine, Swap(), OFF)
    assert trip.before.findings[0].persisted == "dev-sdc1.swap, zramswap.service"
    assert trip.verdicts() == {"swap.active": "ok"}
    assert {file.path for file in trip.before.files} == {
        swaps.ALL_SWAPS,
        f"{SYSTEM}/zramswap.service.d/90-inferbase.conf",
        f"{SYSTEM}/systemd-zram-setup@.service.d/90-inferbase.conf",
    }
    for file in trip.before.files:
        assert f"ConditionPathExists=!{file.path}\n" in (file.content or "")


def test_a_machine_without_swap_is_left_alone() -> None:
    prepared = see(host(fstab="LABEL=root / ext4 defaults 0 1\n"), Swap(), OFF)
    assert [finding.verdict for finding in prepared.findings] == ["ok"]
    assert prepared.changes == ()


def test_what_was_turned_off_stays_off() -> None:
    machine = host(fstab=COMMENTED)
    machine.files[swaps.ALL_SWAPS] = next(
        file.content or ""
        for file in swaps.files_off(host(DISK).facts_of())
        if "swap.d" in file.path
    )
    prepared = see(machine, Swap(), OFF)
    assert [finding.verdict for finding in prepared.findings] == ["ok"]
    assert prepared.changes == ()


@pytest.mark.parametrize(("free", "verdict"), [(1024, "advice"), (1025, "differs")])
def test_swap_stays_on_when_the_memory_could_not_hold_it(free: int, verdict: str) -> None:
    prepared = see(host(DISK, FILE, free=free), Swap(), OFF)
    assert prepared.findings[0].verdict == verdict
    assert (prepared.changes == ()) == (verdict == "advice")
    if verdict == "advice":
        assert "1 MiB are swapped out" in prepared.findings[0].remedy


def test_closed_swaps_cannot_be_told() -> None:
    machine = host(DISK)
    machine.closed.add(swaps.TABLE)
    prepared = see(machine, Swap(), OFF)
    assert (prepared.findings[0].verdict, prepared.changes) == ("unknown", ())


def test_swap_that_is_wanted_again_is_taken_from_fstab() -> None:
    machine = host(fstab=COMMENTED)
    machine.files[swaps.ALL_SWAPS] = "old\n"
    trip = there_and_back(machine, Swap(), ON)
    assert trip.verdicts() == {"swap.active": "ok"}
    assert next(f.content for f in trip.before.files if f.path == "/etc/fstab") == FSTAB


def test_what_an_earlier_run_left_goes_when_nothing_is_wanted() -> None:
    machine = host(DISK, fstab=COMMENTED)
    machine.files[swaps.ALL_SWAPS] = "old\n"
    trip = there_and_back(machine, Swap(), ground())
    assert machine.ran == []
    assert {f.path: f.content for f in trip.before.files} == {
        "/etc/fstab": FSTAB, swaps.ALL_SWAPS: None}  # fmt: skip


@pytest.mark.parametrize(
    ("machine", "verdict"),
    [
        (host(DISK), "ok"),
        (host(), "pending"),
        (host(fstab="LABEL=root / ext4 defaults 0 1\n"), "advice"),
    ],
)
def test_swap_that_is_wanted_is_not_made(machine: Host, verdict: str) -> None:
    prepared = see(machine, Swap(), ON)
    assert (prepared.findings[0].verdict, prepared.changes) == (verdict, ())


def test_compressed_swap_takes_the_place_of_all_other() -> None:
    machine = host(DISK)
    trip = there_and_back(machine, Swap(), ZRAM)
    assert trip.verdicts() == {"swap.zram": "ok"}
    assert trip.after.findings[0].live == "/dev/zram1 4095 MiB"
    assert machine.ran[1:3] == [
        f"sh {zram.SCRIPT} start {4 << 30}", "swapoff -- /dev/sda3"]  # fmt: skip
    unit = next(f.content for f in trip.before.files if f.path == zram.UNIT_FILE) or ""
    assert f"ExecStart=/bin/sh {zram.SCRIPT} start {4 << 30}\n" in unit


def test_compressed_swap_on_a_machine_that_had_none() -> None:
    """Our own swap space, seen after, asks for nothing more."""
    trip = there_and_back(host(fstab="LABEL=root / ext4 defaults 0 1\n"), Swap(), ZRAM)
    assert trip.verdicts() == {"swap.zram": "ok"}
    assert swaps.ALL_SWAPS not in {file.path for file in trip.before.files}


def with_zram(size: int = 4 << 30) -> Host:
    machine = host(fstab="")
    machine.files |= {file.path: file.content or "" for file in zram.files(size)}
    machine.take([*(zram.change("x", machine.facts_of(), size).do)])  # type: ignore[union-attr]
    machine.files |= {f.path: f.content for f in swaps.files_off(machine.facts_of()) if f.content}
    machine.ran.clear()
    return machine


def test_compressed_swap_as_wanted_is_left_alone() -> None:
    prepared = see(with_zram(), Swap(), ZRAM)
    assert [finding.verdict for finding in prepared.findings] == ["ok"]
    assert prepared.changes == ()


def test_compressed_swap_gets_another_size_and_the_old_one_back() -> None:
    machine = with_zram(2 << 30)
    trip = there_and_back(machine, Swap(), ZRAM)
    assert trip.verdicts() == {"swap.zram": "ok"}
    assert trip.before.changes[-1].text == "2047 MiB -> 4096 MiB"


def test_compressed_swap_that_nobody_wants_any_more_goes() -> None:
    machine = with_zram()
    machine.files["/sys/block/zram1/reset"] = ""
    prepared = see(machine, Swap(), ground())
    machine.take([step for change in prepared.changes for step in change.do])
    assert machine.lines() == []
    machine.take([step for change in prepared.changes for step in change.undo])
    assert machine.lines() == ["/dev/zram1\tpartition\t4194300\t0\t100\n"]
    assert machine.files["/sys/block/zram1/disksize"] == f"{4 << 30}\n"


def test_none_and_compressed_at_once_is_said() -> None:
    prepared = see(host(DISK), Swap(), ground(swap={"active": False, "zram": 1 << 30}))
    assert [finding.verdict for finding in prepared.findings] == ["advice", "advice"]
    assert prepared.changes == ()
