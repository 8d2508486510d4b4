"""Which boot loader a machine has, told by its files: one of those we know, or none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from inferfleet.hostprep.facts import Facts, Look
from inferfleet.hostprep.kinds.cmdline import bls, grub
from inferfleet.hostprep.kinds.cmdline.cmdwords import Word
from inferfleet.hostprep.steps import PutFile, Run

# The loader that started the machine writes its name there, where it is of that kind.
# https://systemd.io/BOOT_LOADER_INTERFACE/
LOADER_INFO = "/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
_BLS_ON = re.compile(r"^GRUB_ENABLE_BLSCFG=[\"']?(true|y|yes|1)[\"']?\s*$", re.M)


class Loader(Protocol):
    """A boot loader's configuration. ours: our words in it now. once: whether a new command line
    can be tried at one start alone. opaque: a file that only a shell can follow, or ""."""

    ours: tuple[str, ...]
    once: bool
    opaque: str

    def final(self, ours: Sequence[str], drop: Sequence[str] = ()) -> tuple[tuple[Word, ...], ...]:
        """The command line of each entry, were these our words and those names dropped."""

    def changed(self, ours: Sequence[str], drop: Sequence[str]) -> bool:
        """Whether these words of ours, and those names dropped, are something new."""

    def files(self, ours: Sequence[str], drop: Sequence[str], trial: bool) -> list[PutFile]:
        """The files that say so. trial: whether the boot check has yet to confirm them."""

    def steps(self, ours: Sequence[str], drop: Sequence[str]) -> tuple[list[Run], list[Run]]:
        """What else must be run, and how that is undone."""

    def blame(self, origin: str) -> str:
        """What to do about a word of another file."""


def look() -> Look:
    """What find_loader needs to know, and the files that loaders change."""
    return Look(
        paths=(
            grub.DEFAULTS, grub.DROP_INS, grub.OURS, grub.TRIAL, grub.ENTRY, grub.ENVIRONMENT,
            bls.ENTRIES, bls.GRUB_ENVIRONMENT, bls.KERNEL_LINE, bls.RECORD,
            LOADER_INFO, "/proc/cmdline", "/proc/mounts",
        ),
        stats=(grub.TOOL, grub.MENU, bls.GRUBBY, bls.KERNEL_INSTALL),
    )  # fmt: skip


def find_loader(facts: Facts) -> tuple[Loader | None, str]:
    """The one loader, or None and why not."""
    found: list[str] = []
    defaults = facts.text(grub.DEFAULTS)
    entries = _BLS_ON.search(defaults or "") is not None
    if defaults is not None and not entries and {grub.TOOL, grub.MENU} <= facts.stats.keys():
        found.append("GRUB with update-grub")
    if entries and bls.GRUBBY in facts.stats:
        found.append("GRUB with grubby")
    info = (facts.text(LOADER_INFO) or "").replace("\0", "")
    if "systemd-boot" in info and bls.KERNEL_INSTALL in facts.stats:
        found.append("systemd-boot")
    if len(found) != 1:
        what = " and ".join(found) if found else "no boot loader that inferbase knows"
        return None, f"this machine has {what}"
    if found[0] == "GRUB with update-grub":
        return grub.Grub(facts), ""
    if found[0] == "systemd-boot":
        return bls.SystemdBoot(facts), ""
    loader = bls.Grubby(facts)
    return (loader, "") if loader.lines else (None, f"only root may read {bls.ENTRIES}")
