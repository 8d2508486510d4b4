"""hostprep.check of 60 settings on 8 machines beside `ssh host true`; hostprep.apply.

The machines are sshd processes of this one, so they share its kernel: what is wanted is what it
has. To apply everything, fifteen numbers are raised by one and ten files are written below
/etc/inferbase-benchmark; each round is undone by hostprep.rollback. It needs root, and a machine
whose host inferbase has not prepared.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.measure import (
    BenchmarkError,
    Sample,
    in_turns,
    median_ratio,
    median_seconds,
    run,
    run_together,
)
from benchmarks.servers import Farm, farm
from inferfleet.hostprep.kinds.kernel.sysfs import shown
from inferfleet.hostprep.setting import STATE

REPOSITORY = Path(__file__).resolve().parent.parent
INVOKE = Path(sys.executable).with_name("invoke")
SETTINGS = 60
OURS, SSH = "hostprep.check", "ssh host true"
TARGET = "/etc/inferbase-benchmark"
# Whole numbers for which one more or less makes no difference, none of which can cut us off.
RAISED = (
    "fs.aio-max-nr", "fs.inotify.max_queued_events", "fs.inotify.max_user_instances",
    "fs.inotify.max_user_watches", "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni",
    "kernel.shmmni", "net.core.netdev_budget", "net.core.netdev_max_backlog",
    "net.core.optmem_max", "net.core.somaxconn", "vm.dirty_expire_centisecs",
    "vm.max_map_count", "vm.vfs_cache_pressure",
)  # fmt: skip
PATTERNS = ("/proc/sys/vm/*", "/proc/sys/net/core/*", "/proc/sys/net/ipv4/*")
SYS_PATTERNS = ("/sys/kernel/mm/transparent_hugepage/*", "/sys/kernel/mm/ksm/*",
                "/sys/module/*/parameters/*")  # fmt: skip
_PLAIN = re.compile(r"[A-Za-z0-9_ /.+,:-]{1,40}")


class Tools:
    """The commands of the comparison, for a farm of machines."""

    def __init__(self, servers: Farm) -> None:
        self.farm = servers
        self.overlay = servers.folder / "overlay"

    def wants(self, settings: dict[str, Any], names: Sequence[str] | None = None) -> None:
        """Write the machine files of these machines, or of all."""
        for name in names or self.farm.names:
            path = self.overlay / "inventory" / f"{name}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            root = str(self.farm.root(name, "root"))
            path.write_text(
                json.dumps({"address": name, "root": root, "runtime": "process",
                            "services": {}, "hostprep": settings})
            )  # fmt: skip

    def task(self, task: str, names: Sequence[str], *words: str, expect: Sequence[int]) -> Sample:
        """`invoke hostprep.TASK` for these machines."""
        chosen = [word for name in names for word in ("--host", name)]
        env = self.farm.environment(INFERBASE_OVERLAY=str(self.overlay))
        command: list[str | Path] = [INVOKE, f"hostprep.{task}", *chosen, *words]
        return run(command, env=env, cwd=REPOSITORY, expect=expect)

    def ssh(self, names: Sequence[str]) -> Sample:
        """One `ssh host true` a machine, all at the same time."""
        commands = [["ssh", "-F", str(self.farm.ssh_config), name, "true"] for name in names]
        return run_together(commands, env=self.farm.environment(), cwd=self.farm.folder)


def as_it_is(count: int) -> dict[str, dict[str, str]]:
    """This many settings with the values that this machine has: two thirds sysctl."""
    sysctl = dict(_take(PATTERNS, count * 2 // 3))
    sysfs = dict(_take(SYS_PATTERNS, count - len(sysctl)))
    return {"sysctl": {_key(path): value for path, value in sysctl.items()}, "sysfs": sysfs}


def everything() -> dict[str, Any]:
    """As it is, but for numbers that are one higher, and files."""
    settings: dict[str, Any] = as_it_is(SETTINGS)
    for key in RAISED:
        path = Path("/proc/sys", key.replace(".", "/"))
        if path.exists():
            settings["sysctl"][key] = int(path.read_text()) + 1
    text = "".join(f"line {number} of a file\n" for number in range(40))
    settings["files"] = {f"{TARGET}/{number}.conf": {"content": text} for number in range(10)}
    return settings


def measure(rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    """The figures of host preparation."""
    if os.geteuid() != 0:
        raise BenchmarkError("needs root: it applies settings to this machine and undoes them")
    if glob(f"{STATE}/[0-9]*") or glob("/etc/*/90-inferbase.conf"):
        raise BenchmarkError("this machine's host is prepared already: run hostprep.rollback")
    with tempfile.TemporaryDirectory(prefix="hostprep-") as folder, farm(Path(folder), 8) as farmed:
        tools = Tools(farmed)
        names, first = farmed.names, farmed.names[:1]
        settings = as_it_is(SETTINGS)
        tools.wants(settings)
        tools.task("apply", first, "--yes", expect=(0,))  # the drop-ins of all: it is one machine
        try:
            checks = _checks(tools, names, rounds)
        finally:
            tools.task("rollback", first, "--yes", expect=(0,))
        tools.wants(everything(), first)
        applies = _applies(tools, first, rounds)
    samples = {**checks, **applies}
    figures = [
        Figure(f"{what}, 8 hosts, to parallel ssh",
               1 / median_ratio(checks[name], checks[SSH]), "times", 1.2)
        for name, what in ((OURS, "hostprep.check"), ("no-op", "apply without changes"))
    ]  # fmt: skip
    whole = median_seconds(applies["everything"])
    figures.append(Figure("hostprep.apply of everything, 1 host", whole, "s", 2))
    figures += [Figure(f"{name}, median", median_seconds(s), "s") for name, s in samples.items()]
    details = {
        "settings": sum(map(len, settings.values())),
        "seconds": {name: [round(s.seconds, 3) for s in taken] for name, taken in samples.items()},
        "cpu": {name: [round(s.cpu, 3) for s in taken] for name, taken in samples.items()},
    }
    return figures, details


def _checks(tools: Tools, names: Sequence[str], rounds: int) -> dict[str, list[Sample]]:
    """Exit status 0 proves that all is as wanted."""
    check = partial(tools.task, "check", names, expect=(0,))
    no_op = partial(tools.task, "apply", names, "--yes", expect=(0,))
    check(), no_op()  # what they keep for the next run
    return in_turns({OURS: check, SSH: partial(tools.ssh, names), "no-op": no_op}, rounds)


def _applies(tools: Tools, first: Sequence[str], rounds: int) -> dict[str, list[Sample]]:
    back = partial(tools.task, "rollback", first, "--yes", expect=(0,))
    taken = []
    for _ in range(rounds):
        try:
            taken.append(tools.task("apply", first, "--yes", expect=(0,)))
        finally:
            back()
    if glob(f"{TARGET}/*"):
        raise BenchmarkError(f"{TARGET} was not undone")
    os.rmdir(TARGET)
    return {"everything": taken}


def _take(patterns: Sequence[str], count: int) -> Iterator[tuple[str, str]]:
    """Files with one plain value, in the order of patterns and names."""
    for path in [path for pattern in patterns for path in sorted(glob(pattern))]:
        # What others may read without root, so that it costs the same on any machine.
        if count == 0 or not os.path.isfile(path) or not os.stat(path).st_mode & 0o004:
            continue
        try:
            value = shown(Path(path).read_text())
        except (OSError, UnicodeDecodeError):
            continue
        if _PLAIN.fullmatch(value) and Path(path).read_text().count("\n") <= 1:
            count -= 1
            yield path, value


def _key(path: str) -> str:
    return path.removeprefix("/proc/sys/").replace("/", ".")
