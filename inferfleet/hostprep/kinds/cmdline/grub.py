"""GRUB whose menu update-grub makes of /etc/default/grub.d (Debian, Ubuntu).

Our words stand in a drop-in, appended to GRUB_CMDLINE_LINUX, which no cloud image overwrites.
A new command line is tried once where GRUB can take back such an order, which needs a plain disk
partition: the menu from before is kept whole as a file beside the new menu and is what GRUB
starts by default, and the first entry of the new menu is ordered for the next start only. GRUB
forgets the order before the kernel runs, so whatever happens then, the next start is the old one.
When the boot check is content, the menu is made again without all this. A menu is made beside
its place and renamed over it, which update-grub does not do: no power cut leaves half a menu.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from inferfleet.hostprep.facts import Facts
from inferfleet.hostprep.kinds.cmdline.cmdwords import Word, split
from inferfleet.hostprep.steps import PutFile, Run

DEFAULTS = "/etc/default/grub"
DROP_INS = "/etc/default/grub.d/*.cfg"
OURS = "/etc/default/grub.d/90-inferbase.cfg"
# Sourced after every drop-in that begins with a digit, so that its GRUB_DEFAULT counts.
TRIAL = "/etc/default/grub.d/zz-inferbase-trial.cfg"
ENTRY = "/etc/grub.d/42_inferbase"
MENU = "/boot/grub/grub.cfg"
ENVIRONMENT = "/boot/grub/grubenv"
TOOL = "/usr/sbin/update-grub"
MARK = "inferbase.trial"
HEAD = "# Made by inferbase; `invoke hostprep.rollback` takes it away.\n"
# A kernel that panics starts the machine again, so that the old menu is next. Seconds.
PANIC_SECONDS = 20
_ID = "inferbase-before"
_BEFORE = "inferbase-before.cfg"
OLD_MENU = f"/boot/grub/{_BEFORE}"
# What follows a change of any of these files. One line, because it is shown as one.
_SETTLE = (
    "set -e; cd /boot/grub; cp -p grub.cfg inferbase-new.cfg; "
    f"if [ -e {TRIAL} ] && [ ! -e {_BEFORE} ]; then sync inferbase-new.cfg; "
    f"mv inferbase-new.cfg {_BEFORE}; cp -p grub.cfg inferbase-new.cfg; fi; "
    "grub-mkconfig -o /boot/grub/inferbase-new.cfg; sync inferbase-new.cfg; "
    f"mv inferbase-new.cfg grub.cfg; [ -e {TRIAL} ] || rm -f {_BEFORE}; sync ."
)
SETTLE = ("sh", "-c", _SETTLE)
_ENTRY = f"""\
#!/bin/sh
{HEAD}# The whole menu from before a change of the kernel command line: the default until the boot
# check has confirmed the change.
cat <<'END'
menuentry 'Before the last change by inferbase' --unrestricted --id {_ID} {{
	configfile ${{prefix}}/{_BEFORE}
}}
END
"""
# GRUB writes its environment by block numbers: not on LVM, RAID, btrfs or ZFS.
_WRITABLE = {"ext2", "ext3", "ext4", "xfs", "vfat"}
_PARTITION = re.compile(r"/dev/((sd|vd|xvd|hd)[a-z]+\d+|(nvme\d+n|mmcblk)\d+p\d+)")
_LINE = re.compile(r"\s*(?:export\s+)?(GRUB_[A-Z_]+)(\+?)=(.*)")
_PIECE = re.compile(r"\$\{?([A-Za-z_]\w*)\}?")
_QUOTED = re.compile(r"""\s*(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([^\s"'#;]*))\s*(?:#.*|;\s*)?""")


class Grub:
    """What GRUB's configuration says. opaque: a file that sets the command line in a way that
    only a shell can follow, "" for none."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self.opaque = ""
        text = facts.text(OURS)
        self.ours = _words_of(text) if text else ()
        self.once = self._can_try_once()
        self.final(self.ours)

    def final(self, ours: Sequence[str], drop: Sequence[str] = ()) -> tuple[tuple[Word, ...], ...]:
        """The one command line of its menu, were these our words. Others' words stay."""
        values = self._values(ours)
        names = ("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT")
        return (tuple(word for name in names for word in values.get(name, ())),)

    def blame(self, origin: str) -> str:
        """What to do about a word of another file."""
        return f"remove it from {origin} and run update-grub"

    def changed(self, ours: Sequence[str], drop: Sequence[str]) -> bool:
        """Whether these are other words than ours now; what others wrote is not dropped."""
        return (*ours,) != self.ours

    def files(self, ours: Sequence[str], drop: Sequence[str], trial: bool) -> list[PutFile]:
        """The drop-in, and what makes the old menu the default while a trial is open."""
        content = f'{HEAD}GRUB_CMDLINE_LINUX="${{GRUB_CMDLINE_LINUX}} {" ".join(ours)}"\n'
        once = trial and self.once
        return [
            PutFile(ENTRY, _ENTRY if once else None, 0o755, after=SETTLE),
            PutFile(TRIAL, self._trial(ours) if once else None, after=SETTLE),
            PutFile(OURS, content if ours else None, after=SETTLE, cuts=True),
        ]

    def steps(self, ours: Sequence[str], drop: Sequence[str]) -> tuple[list[Run], list[Run]]:
        """Order the new menu's entry for the next start alone; and take that back."""
        if not self.once:
            return [], []
        before = self._environment("next_entry")
        back = ("set", f"next_entry={before}") if before else ("unset", "next_entry")
        return (
            # A menu that pays no heed to the order would start the old entry and try nothing.
            [Run(("grep", "-q", "next_entry", MENU)), Run(("grub-reboot", self._default()))],
            [Run(("grub-editenv", ENVIRONMENT, *back), quiet=True)],
        )

    def _trial(self, ours: Sequence[str]) -> str:
        words = [MARK]
        line = self.final(ours)[0]
        if not any(word.text.startswith("panic=") for word in line):
            words.append(f"panic={PANIC_SECONDS}")
        return (
            f"{HEAD}# There until the boot check has confirmed the new command line.\n"
            f"GRUB_DEFAULT={_ID}\n"
            f'GRUB_CMDLINE_LINUX="${{GRUB_CMDLINE_LINUX}} {" ".join(words)}"\n'
        )

    def _default(self) -> str:
        """What GRUB starts by default, of the menu that is being made."""
        found = " ".join(w.text for w in self._values(self.ours).get("GRUB_DEFAULT", ())) or "0"
        return (self._environment("saved_entry") or "0") if found == "saved" else found

    def _environment(self, name: str) -> str:
        for line in (self._facts.text(ENVIRONMENT) or "").splitlines():
            key, _, value = line.partition("=")
            if key == name:
                return value
        return ""

    def _can_try_once(self) -> bool:
        mounts = (
            line.split()[:3] for line in (self._facts.text("/proc/mounts") or "").splitlines()
        )
        under = [
            (len(fields[1]), fields[0], fields[2])
            for fields in mounts
            if len(fields) == 3 and MENU.startswith(fields[1].rstrip("/") + "/")
        ]
        _, device, kind = max(under, default=(0, "", ""))
        return kind in _WRITABLE and _PARTITION.fullmatch(device) is not None

    def _values(self, ours: Sequence[str]) -> dict[str, tuple[Word, ...]]:
        """GRUB's variables after all files, our own with these words. Sets opaque."""
        paths = [path for path in self._facts.matching(DROP_INS) if path not in (OURS, TRIAL)]
        values: dict[str, tuple[Word, ...]] = {}
        for path in [DEFAULTS, *sorted([*paths, OURS])]:
            if path == OURS:
                added = tuple(Word(text, OURS) for text in ours)
                values["GRUB_CMDLINE_LINUX"] = values.get("GRUB_CMDLINE_LINUX", ()) + added
                continue
            for line in (self._facts.text(path) or "").splitlines():
                found = _LINE.fullmatch(line)
                if found is None:
                    continue
                name, plus, text = found.groups()
                words = _value(text, values, path)
                if words is not None:
                    values[name] = (values.get(name, ()) if plus else ()) + words
                elif name.startswith("GRUB_CMDLINE_LINUX"):
                    self.opaque = path
        return values


def _value(text: str, values: dict[str, tuple[Word, ...]], path: str) -> tuple[Word, ...] | None:
    """The words of an assignment's right side; None when only a shell could tell."""
    quoted = _QUOTED.fullmatch(text)
    if quoted is None or "`" in text or "$(" in text:
        return None
    if quoted[2] is not None:
        return tuple(Word(one, path) for one in split(quoted[2]))
    plain = quoted[1] if quoted[1] is not None else quoted[3]
    words: list[Word] = []
    for index, piece in enumerate(_PIECE.split(plain)):
        if index % 2:
            if not piece.startswith("GRUB_"):
                return None
            words += values.get(piece, ())
        elif "$" in piece:
            return None
        else:
            words += (Word(one, path) for one in split(piece.replace('\\"', '"')))
    return tuple(words)


def _words_of(text: str) -> tuple[str, ...]:
    """Our words, from the drop-in that we wrote."""
    found = re.search(r'^GRUB_CMDLINE_LINUX="\$\{GRUB_CMDLINE_LINUX\} (.*)"$', text, re.M)
    return split(found[1]) if found else ()
