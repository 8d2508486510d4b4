"""Kernel command lines as words: what a line holds, and whether it is as a setting wants it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from inferfleet.hostprep.setting import Wanted

# Each of these counts beside the others of its name; of every other name the last one counts.
# Documentation/admin-guide/kernel-parameters.txt of Linux, kernel-command-line(7) of systemd.
MANY = frozenset(
    {
        "console", "earlycon", "hugepages", "hugepagesz", "initcall_blacklist", "memmap",
        "module_blacklist", "modprobe.blacklist", "rd.driver.blacklist", "rd.luks.uuid",
        "rd.lvm.lv", "rd.md.uuid", "systemd.mask", "systemd.setenv", "systemd.wants",
    }
)  # fmt: skip
# Lists of CPUs, with flags in front: isolcpus=managed_irq,domain,2-5.
CPU_LISTS = frozenset({"irqaffinity", "isolcpus", "nohz_full", "rcu_nocbs"})
# Boot loaders paste words into scripts of their own, where these end a command.
_REFUSED = re.compile(r"[{}|&;<>#]")
_WORD = re.compile(r'(?:[^\s"]|"[^"]*(?:"|$))+')
_CPUS = re.compile(r"(?:^|,)(\d+)(?:-(\d+))?(?:/\d+)?(?::\d+(?:/\d+)?)?(?=,|$)")


@dataclass(frozen=True)
class Word:
    """A word of a persisted command line, and the file that it comes from."""

    text: str
    origin: str = ""


def split(line: str) -> tuple[str, ...]:
    """The words that the kernel takes for itself: blanks in double quotes separate none, and
    what stands behind -- is for init."""
    words = _WORD.findall(line)
    return tuple(words[: words.index("--")] if "--" in words else words)


def name_of(word: str) -> str:
    """A parameter's name; the kernel takes - and _ for the same."""
    return word.partition("=")[0].replace("-", "_")


def word_of(wanted: Wanted) -> str:
    """The word that a setting asks for, or whose absence it asks for."""
    return wanted.key if isinstance(wanted.value, bool) else f"{wanted.key}={wanted.value}"


def ordered(settings: Iterable[Wanted]) -> list[Wanted]:
    """In the order in which their words must stand: hugepages counts pages of the size that
    stands before it."""
    return sorted(settings, key=lambda w: f"{w.key}z~" if w.key == "hugepages" else w.key)


def met(wanted: Wanted, words: Sequence[str], settings: Sequence[Wanted] = ()) -> bool:
    """Whether a line is as a setting wants it. settings: all of them; a page size among them is
    the one that hugepages counts."""
    name = name_of(wanted.key)
    found = [word for word in words if name_of(word) == name]
    if wanted.value is False:
        return not found
    word = word_of(wanted)
    if name == "hugepages":
        size = next((word_of(w) for w in settings if w.key == "hugepagesz" and w.value), "")
        return any(one == word and size in ("", before) for one, before in _pages(words))
    if name in MANY:
        return any(_same(one, word) for one in found)
    return bool(found) and _same(found[-1], word)


def shown(key: str, words: Sequence[str]) -> str:
    """What a line has of a parameter, for people."""
    found = [word.partition("=")[2] or "yes" for word in words if name_of(word) == name_of(key)]
    return ", ".join(dict.fromkeys(found)) or "-"


def refusal(wanted: Wanted, possible: str | None) -> str:
    """Why no machine, or not this one, can take a setting; "" when it can. possible: the text of
    /sys/devices/system/cpu/possible."""
    if wanted.value is False:
        return ""
    bad = _REFUSED.search(str(wanted.value))
    if bad:
        return f"boot loaders take {bad[0]} for the end of a command: leave it out of the value"
    if wanted.key not in CPU_LISTS or possible is None:
        return ""
    last = max((int(text) for text in re.findall(r"\d+", possible)), default=0)
    over = [
        number
        for first, end in _CPUS.findall(str(wanted.value))
        for number in (first, end)
        if number and int(number) > last
    ]
    return f"this machine has CPUs {possible}, not {over[0]}" if over else ""


def _same(one: str, other: str) -> bool:
    return name_of(one) == name_of(other) and one.partition("=")[1:] == other.partition("=")[1:]


def _pages(words: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Each word hugepages=N with the word hugepagesz=SIZE that it counts."""
    size = ""
    for word in words:
        if name_of(word) == "hugepagesz":
            size = word
        elif name_of(word) == "hugepages":
            yield word, size
