"""Kernel modules as /proc, modprobe.d and a dry run of modprobe tell of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from inferfleet.hostprep.facts import Facts, matches
from inferfleet.hostprep.setting import Ground

LOADED = "/proc/modules"
RELEASE = "/proc/sys/kernel/osrelease"
BUILT_IN = "/lib/modules/*/modules.builtin"
# modprobe.d(5): a name in an earlier folder hides the same name in later ones; the files are
# then read in the order of their names.
FOLDERS = ("/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d",
           "/usr/lib/modprobe.d", "/lib/modprobe.d")  # fmt: skip
CONFIGS = tuple(f"{folder}/*.conf" for folder in FOLDERS)
# Programs that build the boot image, which holds a copy of modprobe.d.
IMAGE_TOOLS = {
    "/usr/sbin/update-initramfs": ("update-initramfs", "-u"),
    "/usr/bin/dracut": ("dracut", "--force"),
    "/usr/sbin/dracut": ("dracut", "--force"),
}
PROBE = "modules"
_INSERTED = re.compile(r"insmod \S*/([^/\s]+)\.ko(?:\.\w+)?(?:\s|$)")


@dataclass(frozen=True)
class Line:
    """A line of modprobe.d: command (options, blacklist, install), module, the rest, file."""

    command: str
    module: str
    rest: str
    path: str


def plain(name: str) -> str:
    """A module's name as the kernel has it: - and _ are one."""
    return name.replace("-", "_")


def probe(ground: Ground) -> dict[str, tuple[str, ...]]:
    """What loading would insert, for all modules that are to be loaded; changes nothing."""
    names = [wanted.key for wanted in ground.of("modules") if wanted.value == "loaded"]
    return {PROBE: ("modprobe", "-a", "-n", "-v", "--", *names)} if names else {}


def inserted(facts: Facts) -> tuple[str, ...]:
    """Modules that loading all that are wanted would insert, in that order."""
    return tuple(dict.fromkeys(map(plain, _INSERTED.findall(facts.probe(PROBE).out))))


def users(facts: Facts) -> Mapping[str, int]:
    """Loaded modules, and how many users each has (-1: it can never be unloaded)."""
    found = {}
    for line in (facts.text(LOADED) or "").splitlines():
        name, _, count, *_ = (*line.split(), "", "", "")
        found[name] = int(count) if count.isdigit() else -1
    return found


def built_in(facts: Facts) -> frozenset[str]:
    """Modules that are part of the running kernel."""
    release = facts.value(RELEASE)
    text = facts.text(BUILT_IN.replace("*", release)) if release else None
    files = (line.rpartition("/")[2] for line in (text or "").splitlines())
    return frozenset(plain(file.removesuffix(".ko")) for file in files)


def lines(facts: Facts) -> Iterator[Line]:
    """All lines of modprobe.d in the order in which they count."""
    chosen: dict[str, str] = {}
    for pattern in CONFIGS:
        for path in facts.matching(pattern):
            chosen.setdefault(path.rpartition("/")[2], path)
    for _, path in sorted(chosen.items()):
        for text in facts.files[path].replace("\\\n", " ").splitlines():
            command, module, rest = (*text.split(None, 2), "", "", "")[:3]
            if module and not command.startswith("#"):
                yield Line(command, plain(module), rest.strip(), path)


def image_tool(facts: Facts) -> tuple[str, ...]:
    """The command that builds the boot image anew, () where there is none."""
    return next((argv for path, argv in IMAGE_TOOLS.items() if path in facts.stats), ())


def is_config(path: str) -> bool:
    return any(matches(path, pattern) for pattern in CONFIGS)
