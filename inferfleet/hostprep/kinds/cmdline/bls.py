"""Boot entries in files of their own: grubby on RHEL and Fedora, systemd-boot with kernel-install.

grubby changes the entries of every kernel that is there; kernels that come later are started as
/etc/default/grub and /etc/kernel/cmdline say, so the words are recorded there too. systemd-boot's
entries are made of /etc/kernel/cmdline. Neither is tried once: the boot check goes back from a
machine that starts and is not healthy, but a kernel that does not start needs the boot menu.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from inferfleet.hostprep.facts import Facts
from inferfleet.hostprep.kinds.cmdline.cmdwords import MANY, Word, name_of, split
from inferfleet.hostprep.steps import PutFile, Run

ENTRIES = "/boot/loader/entries/*.conf"
GRUB_DEFAULTS = "/etc/default/grub"
GRUB_ENVIRONMENT = "/boot/grub2/grubenv"
KERNEL_LINE = "/etc/kernel/cmdline"
# The words that are ours: the files above are not, so nothing else tells.
RECORD = "/var/lib/inferbase/boot/ours"
GRUBBY = "/usr/sbin/grubby"
KERNEL_INSTALL = "/usr/bin/kernel-install"
# The entry of every kernel again, made of /etc/kernel/cmdline.
_INSTALL_ALL = (
    "set -e; for dir in /usr/lib/modules/*/; do version=${dir%/}; version=${version##*/}; "
    "for image in ${dir}vmlinuz /boot/vmlinuz-$version; do if [ -e $image ]; then "
    "kernel-install add $version $image; break; fi; done; done"
)
INSTALL_ALL = ("sh", "-c", _INSTALL_ALL)
_GRUB_LINE = re.compile(r'^GRUB_CMDLINE_LINUX=(["\']?)([^`"\']*)\1[ \t]*$', re.M)
_MANY = {name.replace("-", "_") for name in MANY}
# What the loader itself adds to the line that it starts a kernel with.
_LOADERS = {"BOOT_IMAGE", "initrd"}


class Entries:
    """Command lines of entries: path -> words. ours: the words among them that are ours."""

    once = False
    opaque = ""

    def __init__(self, facts: Facts, lines: dict[str, tuple[str, ...]]) -> None:
        self.facts, self.lines = facts, lines
        self.ours = tuple((facts.text(RECORD) or "").split())

    def final(self, ours: Sequence[str], drop: Sequence[str] = ()) -> tuple[tuple[Word, ...], ...]:
        """The command line of each entry, were these our words and those names dropped."""
        return tuple(
            tuple(Word(one, path) for one in self.edit(words, ours, drop))
            for path, words in self.lines.items()
        )

    def changed(self, ours: Sequence[str], drop: Sequence[str]) -> bool:
        """Whether these words of ours, and those names dropped, are something new."""
        edited = (self.edit(words, ours, drop) == words for words in self.lines.values())
        return (*ours,) != self.ours or not all(edited)

    def blame(self, origin: str) -> str:
        """What to do about a word of another file."""
        return f"remove it from {origin}"

    def edit(
        self, words: tuple[str, ...], ours: Sequence[str], drop: Sequence[str]
    ) -> tuple[str, ...]:
        """A line with our words at its end; as it is when there is nothing to change."""
        gone = self.gone(ours, drop)
        kept = [one for one in words if one not in gone and name_of(one) not in gone]
        last = {one if name_of(one) in _MANY else name_of(one): one for one in words}
        there = all(one in last.values() for one in ours)
        extra = any(one in gone or name_of(one) in gone - {*map(name_of, ours)} for one in words)
        return words if there and not extra else (*(w for w in kept if w not in ours), *ours)

    def gone(self, ours: Sequence[str], drop: Sequence[str]) -> set[str]:
        """Words that were ours, names that are dropped, names that have a new value."""
        old = {one for one in self.ours if one not in ours}
        return old | {*map(name_of, drop)} | ({*map(name_of, ours)} - _MANY)

    def record(self, ours: Sequence[str]) -> PutFile:
        """The file that says which words are ours."""
        return PutFile(RECORD, "".join(f"{one}\n" for one in ours) or None)


class Grubby(Entries):
    """The entries as grubby shows and changes them."""

    def __init__(self, facts: Facts) -> None:
        values = {}
        for line in (facts.text(GRUB_ENVIRONMENT) or "").splitlines():
            key, equals, value = line.partition("=")
            if equals and not key.startswith("#"):
                values[f"${key}"] = value
        lines = {}
        for path, text in facts.matching(ENTRIES).items():
            line = " ".join(re.findall(r"^options[ \t]+(.*)$", text, re.M))
            words = [one for part in split(line) for one in split(values.get(part, part))]
            # The rescue entry is changed with the others, and nobody starts it on purpose.
            if "-0-rescue" not in path:
                lines[path] = tuple(one for one in words if not one.startswith("$"))
        super().__init__(facts, lines)

    def files(self, ours: Sequence[str], drop: Sequence[str], trial: bool) -> list[PutFile]:
        """Our words recorded, for us and for kernels to come."""
        found = [self.record(ours)]
        text = self.facts.text(GRUB_DEFAULTS) or ""
        line = _GRUB_LINE.search(text)
        if line and "$" not in line[2]:
            words = split(line[2])
            edited = self.edit(words, ours, drop)
            if edited != words:
                new = f'GRUB_CMDLINE_LINUX="{" ".join(edited)}"'
                text = text[: line.start()] + new + text[line.end() :]
            found.append(PutFile(GRUB_DEFAULTS, text))
        kernel = self.facts.text(KERNEL_LINE)
        if kernel is not None:
            edited = self.edit(split(kernel), ours, drop)
            same = edited == split(kernel)
            found.append(PutFile(KERNEL_LINE, kernel if same else " ".join(edited) + "\n"))
        return found

    def steps(self, ours: Sequence[str], drop: Sequence[str]) -> tuple[list[Run], list[Run]]:
        """grubby on all entries, and back on each as it was."""
        gone = self.gone(ours, drop)
        undo = []
        for path, words in self.lines.items():
            kernel = re.search(r"^linux[ \t]+(\S+)", self.facts.text(path) or "", re.M)
            # An entry names its kernel as the boot partition has it.
            name = kernel[1] if kernel else "ALL"
            name = name if name == "ALL" or name.startswith("/boot/") else f"/boot{name}"
            old = [one for one in words if one in gone or name_of(one) in gone or one in ours]
            undo += _grubby(name, sorted({*gone, *ours}), old)
        return _grubby("ALL", sorted(gone), ours), list(dict.fromkeys(undo))


class SystemdBoot(Entries):
    """/etc/kernel/cmdline, and the entries that kernel-install makes of it."""

    def __init__(self, facts: Facts) -> None:
        text = facts.text(KERNEL_LINE)
        if text is not None:
            super().__init__(facts, {KERNEL_LINE: split(text.replace("\n", " "))})
            return
        # kernel-install takes the running kernel's line where there is no such file.
        words = split(facts.text("/proc/cmdline") or "")
        super().__init__(
            facts, {"/proc/cmdline": tuple(w for w in words if name_of(w) not in _LOADERS)}
        )

    def files(self, ours: Sequence[str], drop: Sequence[str], trial: bool) -> list[PutFile]:
        """Our words recorded, and in the line that entries are made of."""
        text = self.facts.text(KERNEL_LINE)
        words = next(iter(self.lines.values()))
        edited = self.edit(words, ours, drop)
        if edited != words or (ours and text is None):
            text = " ".join(edited) + "\n"
        line = PutFile(KERNEL_LINE, text, after=INSTALL_ALL, cuts=True)
        return [self.record(ours), line]

    def steps(self, ours: Sequence[str], drop: Sequence[str]) -> tuple[list[Run], list[Run]]:
        """Nothing: the files and what follows them do it all."""
        return [], []


def _grubby(kernel: str, gone: Sequence[str], new: Sequence[str]) -> list[Run]:
    """Two calls, because one keeps a word's old place and so its old order."""
    head = ("grubby", f"--update-kernel={kernel}")
    calls = [Run((*head, f"--remove-args={' '.join(gone)}"))] if gone else []
    return [*calls, Run((*head, f"--args={' '.join(new)}"))] if new else calls
