"""The boot check: a unit that is there from a change of the kernel command line until a start of
the machine has shown that it is well with it, and that goes back to the old line if it is not.

What it does is in remote/bootcheck.sh. It is pulled in by sysinit.target, and by emergency.target
for a start that comes no further. Its files are its own to remove: it disarms itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from inferfleet.hostprep.facts import Facts, Look
from inferfleet.hostprep.kinds.cmdline import grub
from inferfleet.hostprep.steps import PutFile, Run
from inferfleet.remote import program

HOME = "/var/lib/inferbase/boot"
WORDS = f"{HOME}/words"
ARMED = f"{HOME}/armed"
GENERATION = f"{ARMED}/generation"
RESULT = f"{HOME}/result"
SCRIPT = "/usr/local/lib/inferbase/boot-check"
UNIT = "inferbase-boot-check.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
PULLS = tuple(
    f"/etc/systemd/system/{target}.target.d/50-inferbase-boot-check.conf"
    for target in ("sysinit", "emergency")
)
# No part of the file system may be hidden or closed, nor a capability taken away: it undoes
# whatever a generation did, and makes the boot menu. So it scores as badly as it must.
_UNIT = f"""\
{grub.HEAD}[Unit]
Description=confirm the new kernel command line, or go back to the old one (inferbase)
DefaultDependencies=no
After=local-fs.target
Conflicts=shutdown.target
Before=shutdown.target
IgnoreOnIsolate=yes

[Service]
# A start has ended when its jobs have: this one, which waits for that, must not be a job for long.
Type=exec
ExecStart=/bin/sh {SCRIPT}
TimeoutStopSec=10
NoNewPrivileges=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
RestrictNamespaces=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @debug @keyring @obsolete
SystemCallErrorNumber=EPERM
RestrictAddressFamilies=AF_UNIX AF_NETLINK
IPAddressDeny=any
ProtectHostname=yes
KeyringMode=private
"""
_PULL = f"{grub.HEAD}[Unit]\nWants={UNIT}\n"


@dataclass(frozen=True)
class Outcome:
    """What came of a change that was not confirmed. words: as they were to be, and not to be."""

    when: str
    why: str
    words: tuple[str, ...]


def look() -> Look:
    """Its files, and what it has written."""
    return Look((WORDS, SCRIPT, UNIT_FILE, *PULLS, GENERATION, RESULT))


def watching(facts: Facts) -> bool:
    """Whether a change has yet to be confirmed."""
    return facts.text(WORDS) is not None


def files(words: str | None, state: str) -> list[PutFile]:
    """Its files, with these lines about the new command line; None: it is not wanted. state: the
    folder of generations."""
    script = program(
        "lock", "bootcheck",
        state=state, home=HOME, trial=f"{grub.TRIAL} {grub.ENTRY}", menu=grub.OLD_MENU,
        settle=grub.SETTLE[2], install=" ".join((SCRIPT, UNIT_FILE, *PULLS)),
        proc="/proc", mine="", claim="",
    )  # fmt: skip
    on = words is not None
    return [
        PutFile(WORDS, words),
        PutFile(SCRIPT, script if on else None, 0o755),
        PutFile(UNIT_FILE, _UNIT if on else None),
        *(PutFile(path, _PULL if on else None) for path in PULLS),
    ]


def lines(there: Iterable[str], gone: Iterable[str], mark: bool) -> str:
    """What the new command line must have and must not have. mark: it has a word that says that
    it is being tried."""
    new = [*there, grub.MARK] if mark else there
    return "".join([f"+{one}\n" for one in new] + [f"-{one}\n" for one in gone])


def arm(facts: Facts) -> tuple[list[Run], list[Run]]:
    """Have it watch the next start; and not. One that already watches goes on."""
    armed = facts.text(GENERATION) is not None
    return [Run((SCRIPT, "arm"))], [] if armed else [Run(("rm", "-rf", ARMED))]


def failure(facts: Facts) -> Outcome | None:
    """Why the last change was taken back; None when it was not."""
    fields = (facts.text(RESULT) or "").rstrip("\n").split("\t")
    if fields[0] != "failed" or len(fields) != 4:
        return None
    return Outcome(fields[1], fields[2], tuple(fields[3].split()))
