"""The kernel command line: (settings, facts) -> findings, files, changes, and the way back."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from inferfleet.hostprep.facts import Facts, Stat
from inferfleet.hostprep.judge import Prepared, do_steps, judge
from inferfleet.hostprep.kinds.cmdline import bls, bootcheck, bootloader, grub
from inferfleet.hostprep.kinds.cmdline.cmdline import POSSIBLE, Cmdline
from inferfleet.hostprep.setting import Ground, Wanted
from inferfleet.hostprep.steps import PutFile, Restore, Run

KINDS = {"cmdline": Cmdline()}
DEBIAN = Path(__file__).parents[2] / "cases" / "hostprep" / "grub-debian-12.txt"
FILE = Stat("regular file", "755", "root", "root", "10302")
MOUNTS = "proc /proc proc rw 0 0\n/dev/vda1 / ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0\n"
BOOTED = "BOOT_IMAGE=/vmlinuz root=UUID=c17a ro console=ttyS0 quiet"
CLOUD = "/etc/default/grub.d/50-cloudimg-settings.cfg"
INFO = "\x06\0\0\0" + "\0".join("systemd-boot 252") + "\0"
ENTRY = "/boot/loader/entries/abc-5.14.conf"
RHEL = {
    grub.DEFAULTS: 'GRUB_CMDLINE_LINUX="ro crashkernel=1G"\nGRUB_ENABLE_BLSCFG=true\n',
    ENTRY: "title A\nlinux /vmlinuz-5.14\noptions root=/dev/sda2 ro crashkernel=1G $tuned\n",
    "/boot/loader/entries/abc-0-rescue.conf": "linux /vmlinuz-0-rescue\noptions root=/dev/sda2\n",
    "/proc/cmdline": "root=/dev/sda2 ro crashkernel=1G\n",
}


def debian(files: Mapping[str, str | None] | None = None, live: str = "") -> Facts:
    """A Debian machine with GRUB; files over it, None takes one away; live: more words."""
    found = {
        grub.DEFAULTS: DEBIAN.read_text(),
        "/proc/cmdline": f"{BOOTED} {live}\n",
        "/proc/mounts": MOUNTS,
        POSSIBLE: "0-3\n",
        **(files or {}),
    }
    there = {path: text for path, text in found.items() if text is not None}
    return Facts(there, stats={grub.TOOL: FILE, grub.MENU: FILE})


def rhel(**changed: str) -> Facts:
    return Facts({**RHEL, **changed}, stats={bls.GRUBBY: FILE})


def systemd_boot(files: Mapping[str, str]) -> Facts:
    found = {bootloader.LOADER_INFO: INFO, "/proc/cmdline": f"initrd=\\i {BOOTED}\n", **files}
    return Facts(found, stats={bls.KERNEL_INSTALL: FILE})


def see(facts: Facts, wanted: Mapping[str, Any]) -> Prepared:
    ground = Ground(tuple(Wanted("cmdline", key, value) for key, value in wanted.items()))
    return judge(ground, facts, KINDS)


def verdicts(prepared: Prepared) -> dict[str, str]:
    return {finding.wanted.key: finding.verdict for finding in prepared.findings}


def after(facts: Facts, prepared: Prepared) -> Facts:
    """The machine when all files are put and the boot check is armed, before a restart."""
    files: dict[str, str] = dict(facts.files)
    for file in prepared.files:
        files.pop(file.path, None)
        if file.content is not None:
            files[file.path] = file.content
    if any(Run((bootcheck.SCRIPT, "arm")) in change.do for change in prepared.changes):
        files[bootcheck.GENERATION] = "1\n"
    return Facts(files, facts.closed, facts.probes, facts.stats)


def confirmed(facts: Facts) -> Facts:
    """The machine after a start that the boot check liked."""
    gone = {
        bootcheck.WORDS, bootcheck.SCRIPT, bootcheck.UNIT_FILE, *bootcheck.PULLS,
        bootcheck.GENERATION, grub.TRIAL, grub.ENTRY,
    }  # fmt: skip
    files = {path: text for path, text in facts.files.items() if path not in gone}
    words = [line[1:] for line in facts.files[bootcheck.WORDS].splitlines() if line[0] == "+"]
    files["/proc/cmdline"] = f"{BOOTED} {' '.join(words)}\n"
    return Facts(files, stats=facts.stats)


def ours(prepared: Prepared) -> str | None:
    found = [file.content for file in prepared.files if file.path == grub.OURS]
    assert len(found) == 1
    return found[0]


def test_from_wanted_to_confirmed() -> None:
    """differs -> pending -> ok, and nothing to do on the way."""
    facts = debian()
    wanted = {"iommu": "pt", "hugepages": 4, "hugepagesz": "1G", "nosmt": True}
    first = see(facts, wanted)
    assert set(verdicts(first).values()) == {"differs"}
    words = "hugepagesz=1G hugepages=4 iommu=pt nosmt"
    assert ours(first) == (f'{grub.HEAD}GRUB_CMDLINE_LINUX="${{GRUB_CMDLINE_LINUX}} {words}"\n')
    live = first.changes[-1]
    assert live.text == "+hugepagesz=1G +hugepages=4 +iommu=pt +nosmt"
    assert live.cuts
    assert live.reboot.startswith("tried at the next start")
    assert live.do == (
        Run((bootcheck.SCRIPT, "arm")),
        Run(("grep", "-q", "next_entry", grub.MENU)),
        Run(("grub-reboot", "0")),
    )
    # The menu is made once, after all files and before it is ordered.
    steps = [step for _, some in do_steps(first.files, first.changes) for step in some]
    assert steps.count(Run(grub.SETTLE)) == 1
    assert max(i for i, s in enumerate(steps) if isinstance(s, PutFile)) < steps.index(
        Run(grub.SETTLE)
    )
    armed = after(facts, first)
    second = see(armed, wanted)
    assert (set(verdicts(second).values()), second.changes, second.files) == ({"pending"}, (), ())
    running = debian({**armed.files, "/proc/cmdline": f"{BOOTED} {words} inferbase.trial\n"})
    third = see(running, wanted)
    assert (set(verdicts(third).values()), third.changes) == ({"pending"}, ())
    assert "not confirmed" in third.findings[0].remedy
    done = see(confirmed(armed), wanted)
    assert (set(verdicts(done).values()), done.changes, done.wrong) == ({"ok"}, (), False)


def test_undo_is_the_way_back() -> None:
    prepared = see(debian(), {"iommu": "pt"})
    kinds = [type(step) for step in prepared.undo]
    assert prepared.undo[:2] == (
        Run(("grub-editenv", grub.ENVIRONMENT, "unset", "next_entry"), quiet=True),
        Run(("rm", "-rf", bootcheck.ARMED)),
    )
    assert kinds[2:] == [Restore] * len(prepared.files) + [Run]
    assert {s.path for s in prepared.undo if isinstance(s, Restore)} == {
        file.path for file in prepared.files
    }
    assert prepared.undo[-1] == Run(grub.SETTLE)


def test_nothing_wanted_nothing_there() -> None:
    prepared = see(debian(), {})
    assert (prepared.findings, prepared.changes) == ((), ())


def test_left_over_words_are_tried_away() -> None:
    """No setting any more: the drop-in goes, once for a trial."""
    wanted = {"iommu": "pt"}
    facts = confirmed(after(debian(), see(debian(), wanted)))
    prepared = see(facts, {})
    assert ours(prepared) is None
    words = {file.path: file.content for file in prepared.files}[bootcheck.WORDS]
    assert words == "+inferbase.trial\n-iommu=pt\n"
    assert prepared.changes[-1].text == "-iommu=pt"
    assert not see(confirmed(after(facts, prepared)), {}).changes


def test_a_second_change_before_the_restart_keeps_the_first_way_back() -> None:
    armed = after(debian(), see(debian(), {"iommu": "pt"}))
    armed = debian({**armed.files, grub.ENVIRONMENT: "next_entry=0\n"})
    prepared = see(armed, {"iommu": "off"})
    assert prepared.changes[-1].undo == (
        Run(("grub-editenv", grub.ENVIRONMENT, "set", "next_entry=0"), quiet=True),
    )
    assert {file.path for file in prepared.files} == {grub.OURS, bootcheck.WORDS}


LIVE = [
    # settings, words of the kernel that runs, files, verdict, our drop-in has it
    ({"quiet": True}, "", {}, "ok", False),
    ({"console": "ttyS0"}, "", {}, "ok", False),
    ({"quiet": True}, "", {"/proc/cmdline": "ro\n"}, "pending", False),
    ({"iommu": "pt"}, "iommu=pt", {}, "not persisted", True),
    ({"iommu": "pt"}, "iommu=pt iommu=off", {}, "differs", True),
    ({"nosmt": False}, "", {}, "ok", False),
    ({"nosmt": False}, "nosmt", {}, "pending", False),
    ({"transparent-hugepage": "never"}, "", {}, "differs", True),
    ({"quiet": False}, "", {}, "overridden", False),
    ({"loglevel": 3}, "", {CLOUD: 'GRUB_CMDLINE_LINUX_DEFAULT="loglevel=7"\n'}, "overridden", True),
    ({"quiet": True}, "", {CLOUD: 'GRUB_CMDLINE_LINUX_DEFAULT="a"\n'}, "not persisted", True),
    ({"a": True}, "", {CLOUD: 'GRUB_CMDLINE_LINUX_DEFAULT="${GRUB_CMDLINE_LINUX} a"'}, "pending",
     False),
    ({"a": 1}, "", {CLOUD: "export GRUB_CMDLINE_LINUX+=' a=1'  # why\n"}, "pending", False),
    ({"a": 1}, "", {"/etc/default/grub.d/99-late.cfg": "GRUB_CMDLINE_LINUX=b\n"}, "overridden",
     True),
    ({"isolcpus": "managed_irq,domain,2-3"}, "", {}, "differs", True),
    ({"isolcpus": "2-4"}, "", {}, "unsupported", False),
    ({"memmap": "4G;reboot"}, "", {}, "unsupported", False),
    ({"iommu": "pt"}, "iommu=pt", {CLOUD: 'GRUB_CMDLINE_LINUX="$(words)"\n'}, "unknown", False),
    ({"iommu": "pt"}, "", {CLOUD: 'GRUB_CMDLINE_LINUX="$WORDS"\n'}, "unknown", False),
    ({"iommu": "pt"}, "", {grub.DEFAULTS: None}, "unknown", False),
    ({"iommu": "pt"}, "", {bootloader.LOADER_INFO: INFO, "two": ""}, "unknown", False),
]  # fmt: skip


@pytest.mark.parametrize(("wanted", "live", "files", "verdict", "written"), LIVE)
def test_verdicts(
    wanted: Mapping[str, Any],
    live: str,
    files: Mapping[str, str | None],
    verdict: str,
    written: bool,
) -> None:
    facts = debian(files, live)
    if "two" in files:
        facts = Facts(facts.files, stats={**facts.stats, bls.KERNEL_INSTALL: FILE})
    prepared = see(facts, wanted)
    assert verdicts(prepared) == dict.fromkeys(wanted, verdict)
    assert bool(prepared.changes) == written
    if verdict in ("overridden", "unsupported", "unknown"):
        assert prepared.findings[0].remedy


def test_overridden_names_the_file() -> None:
    late = 'GRUB_CMDLINE_LINUX_DEFAULT="loglevel=7"\n'
    [finding] = see(debian({CLOUD: late}), {"loglevel": 3}).findings
    assert (
        finding.remedy
        == f"loglevel=7 comes from {CLOUD}: remove it from {CLOUD} and run update-grub"
    )


def test_what_failed_is_told() -> None:
    result = "failed\t2026-11-21T12:00:00Z\tsshd was not active\t+iommu=pt +inferbase.trial \n"
    prepared = see(debian({bootcheck.RESULT: result}), {"iommu": "pt", "nosmt": True})
    remedies = {finding.wanted.key: finding.remedy for finding in prepared.findings}
    assert remedies["iommu"] == (
        "tried and taken back at 2026-11-21T12:00:00Z: sshd was not active"
    )
    assert remedies["nosmt"] == ""


@pytest.mark.parametrize(
    ("mounts", "once"),
    [
        (MOUNTS, True),
        ("/dev/nvme0n1p2 / ext4 rw 0 0\n/dev/nvme0n1p1 /boot vfat rw 0 0\n", True),
        ("/dev/sda1 / btrfs rw 0 0\n/dev/sda2 /boot ext4 rw 0 0\n", True),
        ("/dev/sda1 / ext4 rw 0 0\n/dev/sda2 /boot/efi vfat rw 0 0\n", True),
        ("/dev/sda1 / btrfs rw 0 0\n", False),
        ("/dev/mapper/vg-root / ext4 rw 0 0\n", False),
        ("/dev/md0 / ext4 rw 0 0\n", False),
        ("rpool/ROOT / zfs rw 0 0\n", False),
        ("", False),
    ],
)
def test_tried_once_only_where_grub_can_forget(mounts: str, once: bool) -> None:
    prepared = see(debian({"/proc/mounts": mounts}), {"iommu": "pt"})
    paths = {file.path for file in prepared.files}
    assert ({grub.TRIAL, grub.ENTRY} <= paths) == once
    change = prepared.changes[-1]
    assert (Run(("grub-reboot", "0")) in change.do) == once
    assert Run((bootcheck.SCRIPT, "arm")) in change.do
    assert ("boot menu" in change.reboot) != once


@pytest.mark.parametrize(
    ("files", "entry"),
    [
        ({}, "0"),
        ({CLOUD: 'GRUB_DEFAULT="1>2"\n'}, "1>2"),
        ({CLOUD: "GRUB_DEFAULT=saved\n"}, "0"),
        ({CLOUD: "GRUB_DEFAULT=saved\n", grub.ENVIRONMENT: "saved_entry=gnulinux-x\n##"},
         "gnulinux-x"),
    ],
)  # fmt: skip
def test_the_users_default_is_what_is_tried(files: Mapping[str, str], entry: str) -> None:
    assert see(debian(files), {"iommu": "pt"}).changes[-1].do[-1] == Run(("grub-reboot", entry))


def test_grub_configuration_means_to_sh_what_we_read(tmp_path: Path) -> None:
    """The drop-ins are read by a shell: its answer is ours."""
    facts = debian({CLOUD: 'GRUB_CMDLINE_LINUX_DEFAULT="console=tty1 console=ttyS0"\n'})
    armed = after(facts, see(facts, {"hugepages": 4, "hugepagesz": "1G", "a.b": "x,y:1-2/3"}))
    script = "".join(armed.files[path] for path in (grub.DEFAULTS, CLOUD, grub.OURS, grub.TRIAL))
    names = "$GRUB_CMDLINE_LINUX $GRUB_CMDLINE_LINUX_DEFAULT $GRUB_DEFAULT"
    said = subprocess.run(
        ["sh", "-eu", "-c", f"{script}\necho {names}"], capture_output=True, text=True, check=True
    ).stdout.split()
    loader = grub.Grub(armed)
    mine = [word.text for word in loader.final(loader.ours)[0]]
    ordered = ["console=ttyS0", "a.b=x,y:1-2/3", "hugepagesz=1G", "hugepages=4"]
    assert mine == [*ordered, "console=tty1", "console=ttyS0"]
    assert said == [
        *ordered, "inferbase.trial", "panic=20", "console=tty1", "console=ttyS0",
        "inferbase-before",
    ]  # fmt: skip


def test_grubby() -> None:
    wanted = {"iommu": "pt", "crashkernel": "512M", "quiet": False}
    prepared = see(rhel(), wanted)
    assert verdicts(prepared) == {"iommu": "differs", "crashkernel": "differs", "quiet": "ok"}
    change = prepared.changes[-1]
    update = ("grubby", "--update-kernel=ALL")
    assert change.do == (
        Run((bootcheck.SCRIPT, "arm")),
        Run((*update, "--remove-args=crashkernel iommu quiet")),
        Run((*update, "--args=crashkernel=512M iommu=pt")),
    )
    back = ("grubby", "--update-kernel=/boot/vmlinuz-5.14")
    assert change.undo[:2] == (
        Run((*back, "--remove-args=crashkernel crashkernel=512M iommu iommu=pt quiet")),
        Run((*back, "--args=crashkernel=1G")),
    )
    texts = {file.path: file.content for file in prepared.files}
    assert texts[grub.DEFAULTS] == (
        'GRUB_CMDLINE_LINUX="ro crashkernel=512M iommu=pt"\nGRUB_ENABLE_BLSCFG=true\n'
    )
    assert texts[bls.RECORD] == "crashkernel=512M\niommu=pt\n"
    # What grubby makes of the entry, written by hand.
    entry = RHEL[ENTRY].replace("crashkernel=1G $tuned", "$tuned crashkernel=512M iommu=pt")
    done = after(rhel(), prepared)
    done = Facts({**done.files, ENTRY: entry}, stats=done.stats)
    again = see(done, wanted)
    assert set(verdicts(again).values()) == {"pending", "ok"}
    assert not again.changes
    # Nothing is wanted any more: ours go, what others brought stays.
    gone = see(confirmed(done), {})
    assert gone.changes[-1].do[1:] == (Run((*update, "--remove-args=crashkernel=512M iommu=pt")),)


def test_entries_that_only_root_may_read() -> None:
    facts = Facts(
        {grub.DEFAULTS: RHEL[grub.DEFAULTS], "/proc/cmdline": "ro\n"}, stats={bls.GRUBBY: FILE}
    )
    prepared = see(facts, {"iommu": "pt"})
    assert (verdicts(prepared), prepared.changes) == ({"iommu": "unknown"}, ())


def test_systemd_boot() -> None:
    wanted = {"iommu": "pt", "quiet": False}
    facts = systemd_boot({bls.KERNEL_LINE: "root=/dev/sda2 ro\nquiet iommu=off\n"})
    prepared = see(facts, wanted)
    assert verdicts(prepared) == {"iommu": "differs", "quiet": "differs"}
    [line] = [file for file in prepared.files if file.path == bls.KERNEL_LINE]
    assert (line.content, line.after) == ("root=/dev/sda2 ro iommu=pt\n", bls.INSTALL_ALL)
    words = {file.path: file.content for file in prepared.files}[bootcheck.WORDS]
    assert words == "+iommu=pt\n-quiet\n-iommu=off\n"
    again = see(after(facts, prepared), wanted)
    assert (set(verdicts(again).values()), again.changes) == ({"pending"}, ())


def test_systemd_boot_without_a_line_of_its_own() -> None:
    prepared = see(systemd_boot({}), {"iommu": "pt"})
    texts = {file.path: file.content for file in prepared.files}
    assert texts[bls.KERNEL_LINE] == "root=UUID=c17a ro console=ttyS0 quiet iommu=pt\n"
    assert not see(systemd_boot({}), {"console": "ttyS0"}).changes
