"""Asks a machine who holds its memory: the script, and how its answer is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from inferfleet.capacity.held import Card, Container, Held, Holder, ModelFile
from inferfleet.errors import FleetError
from inferfleet.gpu.facts import GpuFacts, Process
from inferfleet.gpu.query import gpu_script, parse_answer
from inferfleet.release.release import Unit
from inferfleet.remote import program

SPLIT = "\x02"
MPS = "nvidia-cuda-mps-server"
_PROC = re.compile(r"/proc/(\d+)/(status|cgroup):(.*)", re.S)
_STAT = re.compile(r"(\d+) \(.*\) \S+ \d+ \d+ (\d+) ")
_CONTAINER = re.compile(r"[0-9a-f]{64}")
_UNIT = re.compile(r"/([^/]+)\.service(?=/|$)")


def held_script(
    root: str,
    project: str,
    models: Mapping[str, str],
    *,
    gpus: bool,
    pinned: bool,
) -> str:
    """The question. models: key -> path on the machine. gpus: ask the driver, too."""
    lines = "\n".join(f"{key}\t{path}" for key, path in sorted(models.items()))
    script = program("memory", root=root, pinned="yes" if pinned else "", models=lines)
    if gpus:
        script += f"\nprintf '\\002\\n'\n(\n{gpu_script(root, project)}\n)\n"
    return script


def parse_held(text: str, project: str, units: Mapping[str, Unit]) -> Held:
    """The answer. units: ours. Raises FleetError when it is cut short."""
    own, _, driver = text.partition(f"{SPLIT}\n")
    if own.rstrip("\n").rpartition("\n")[2] != "end":
        raise FleetError("asking for the memory was cut short", hint="run it again")
    answer = _Answer(own, project, units)
    facts, note = GpuFacts(), ""
    if driver:
        try:
            facts = parse_answer(driver, units)
            note = facts.note
        except FleetError as error:
            note = error.what
    holders = {label: replace(one) for label, one in answer.holders().items()}
    cards = []
    for gpu in facts.gpus:
        users = []
        for process in gpu.processes:
            label = answer.label(process.pid, process.name)
            if _alone(process):
                users.append(label)
            found = holders.get(label) or Holder(label, answer.service(label))
            amount = found.gpus.get(gpu.index, 0) + (process.memory or 0)
            holders[label] = replace(found, gpus={**found.gpus, gpu.index: amount})
        free = None
        if gpu.memory_total is not None and gpu.memory_used is not None:
            free = gpu.memory_total - gpu.memory_used
        cards.append(
            Card(gpu.index, gpu.uuid, gpu.memory_total, free, gpu.compute_mode or "default",
                 tuple(dict.fromkeys(users)))
        )  # fmt: skip
    return Held(
        total=answer.total,
        available=answer.available,
        holders=tuple(holders.values()),
        cards=tuple(cards),
        containers=tuple(answer.containers.values()),
        files={key: tuple(files) for key, files in answer.files.items()},
        note=note,
    )


def _alone(process: Process) -> bool:
    """Whether an exclusive GPU lets no other compute beside it: clients of MPS (M+C) share."""
    return process.kind in ("C", "C+G") and not process.name.endswith(MPS)


class _Answer:
    """The records of memory.sh."""

    def __init__(self, text: str, project: str, units: Mapping[str, Unit]) -> None:
        self._project, self._units = project, units
        self._names: dict[int, str] = {}
        self._anon: dict[int, int] = {}
        self._shared: dict[int, int] = {}
        self._groups: dict[int, list[str]] = {}
        self._sessions: dict[int, str] = {}
        self._children: dict[str, str] = {}
        self._limits: dict[str, int] = {}
        self.containers: dict[str, Container] = {}
        self.files: dict[str, list[ModelFile]] = {}
        for line in text.split("\n"):
            self._line(line)
        self.total = self._limits.get("MemTotal", 0)
        self.available = min(self._limits.get("MemAvailable", self.total), self.total)
        for limit, used, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            most = self._limits.get(limit, self.total)
            if most < self.total:
                taken = self._limits.get(used, 0) - self._limits.get(cache, 0)
                self.total = most
                self.available = max(min(self.available, most - taken), 0)

    def _line(self, line: str) -> None:
        if found := _PROC.match(line):
            self._process(int(found[1]), found[2], found[3])
        elif line.startswith("/proc/meminfo:"):
            key, _, amount = line.removeprefix("/proc/meminfo:").partition(":")
            self._limits[key] = _kib(amount)
        elif line.startswith("/sys/fs/cgroup/"):
            key, _, amount = line.rpartition("/")[2].partition(":")
            if key == "memory.stat":
                key, _, amount = amount.partition(" ")
            if amount.isdigit():
                self._limits[key] = int(amount)
        elif found := _STAT.match(line):
            self._sessions[int(found[1])] = found[2]
        else:
            self._record(line.split("\t"))

    def _process(self, pid: int, file: str, rest: str) -> None:
        if file == "cgroup":
            self._groups.setdefault(pid, []).append(rest)
            return
        key, _, value = rest.partition(":")
        if key == "Name":
            self._names[pid] = value.strip()
        elif key == "RssAnon":
            self._anon[pid] = _kib(value)
        elif key == "RssShmem":
            self._shared[pid] = _kib(value)

    def _record(self, fields: list[str]) -> None:
        match fields:
            case ["child", name, pid]:
                self._children[pid] = name
            case ["container", identity, name, state, project, service, image, mounts]:
                self.containers[identity] = Container(
                    name, image, state == "running", project, service, tuple(mounts.split(","))
                )
            case ["cpus", identity, cpus] if identity in self.containers:
                self.containers[identity] = replace(self.containers[identity], cpus=cpus)
            case ["model", key, size, time, path] if size.isdigit() and time.isdigit():
                self.files.setdefault(key, []).append(ModelFile(path, int(size), int(time)))

    def holders(self) -> dict[str, Holder]:
        """By label. Pages that processes share count once, as the largest of them has them."""
        own: dict[str, int] = {}
        shared: dict[str, int] = {}
        for pid, amount in self._anon.items():
            label = self.label(pid, self._names.get(pid, ""))
            own[label] = own.get(label, 0) + amount
            shared[label] = max(shared.get(label, 0), self._shared.get(pid, 0))
        return {
            label: Holder(label, self.service(label), own[label] + shared[label]) for label in own
        }

    def service(self, label: str) -> str:
        return label if label in self._units else ""

    def label(self, pid: int, name: str) -> str:
        """The service that a process belongs to, or words that name its owner."""
        groups = self._groups.get(pid, ())
        for identity in _all(_CONTAINER, groups):
            if identity in self.containers:
                one = self.containers[identity]
                if one.project == self._project and one.service in self._units:
                    return one.service
                return f"container {one.name} ({one.image})"
        units = [unit for unit in _all(_UNIT, groups) if not unit.startswith("user@")]
        for service, unit in self._units.items():
            if unit.runtime == "systemd" and unit.name in units:
                return service
            if unit.runtime == "process" and unit.name in (
                self._children.get(self._sessions.get(pid, "")),
                self._children.get(str(pid)),
            ):
                return service
        if units:
            return f"{units[-1]}.service"
        return f"process {pid} ({name or self._names.get(pid, 'unknown')})"


def _all(pattern: re.Pattern[str], texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for found in pattern.finditer(text):
            yield found[1] if pattern.groups else found[0]


def _kib(text: str) -> int:
    number = text.split()[0] if text.split() else ""
    return int(number) * 1024 if number.isdigit() else 0
