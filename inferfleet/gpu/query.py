"""GPUs of a machine in one round trip: the script, and how its answer is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from inferfleet.errors import FleetError
from inferfleet.gpu.facts import FOREIGN, Gpu, GpuFacts, Xid
from inferfleet.gpu.report import parse_report
from inferfleet.gpu.trouble import explain
from inferfleet.release.release import Unit
from inferfleet.remote import program

SECONDS = 120.0
_XID = re.compile(r"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)\): (\d+),?\s*(.*)")
_LISTED = re.compile(r"\s*(?:GPU (\d+):|MIG (\S+)\s+Device\s+(\d+):)")
_CONTAINER = re.compile(r"[0-9a-f]{64}")
_SERVICE = re.compile(r"/([^/]+)\.service(?:/|$)")


@dataclass
class _Answer:
    code: int | None = None
    report: list[str] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)
    groups: dict[int, tuple[str, str]] = field(default_factory=dict)
    children: dict[str, str] = field(default_factory=dict)
    containers: dict[str, str] = field(default_factory=dict)
    log: list[str] | None = None


def gpu_script(root: str, project: str, pids: tuple[int, ...] | None = None) -> str:
    """What a machine is asked. pids: only whose these are; None: everything, through nvidia-smi."""
    return program(
        "gpu",
        root=root,
        project=project,
        pids=" ".join(map(str, pids or ())),
        ask="yes" if pids is None else "no",
    )


def parse_answer(text: str, units: Mapping[str, Unit], facts: GpuFacts | None = None) -> GpuFacts:
    """The answer of gpu_script. facts: the GPUs, where they are already known.

    Raises FleetError when it is cut short, and when nvidia-smi is there and fails. Without
    nvidia-smi there are no GPUs, and the note says so.
    """
    if text.rstrip("\n").rpartition("\n")[2] != "end":
        raise FleetError("asking for the GPUs was cut short", hint="run it again")
    answer = _read(text)
    if facts is None:
        facts = _facts(answer)
    total, free = answer.memory.get("MemTotal:"), answer.memory.get("MemAvailable:")
    xids = None if answer.log is None else tuple(x for line in answer.log if (x := _xid(line)))
    gpus = tuple(_owned(gpu, answer, units) for gpu in facts.gpus)
    return replace(facts, gpus=gpus, xids=xids, host_total=total, host_available=free)


def _facts(answer: _Answer) -> GpuFacts:
    if answer.code is None:
        return GpuFacts(note="no NVIDIA driver: nvidia-smi is not installed")
    report = "\n".join(answer.report)
    if "<nvidia_smi_log" not in report:
        raise explain(report, answer.code)
    facts = parse_report(report)
    profiles = _profiles(answer.listed)
    gpus = []
    for gpu in facts.gpus:
        instances = tuple(
            replace(one, profile=profiles.get((gpu.index, one.index))) for one in gpu.mig.instances
        )
        gpus.append(replace(gpu, mig=replace(gpu.mig, instances=instances)))
    return replace(facts, gpus=tuple(gpus))


def _read(text: str) -> _Answer:
    answer, reporting = _Answer(), False
    for line in text.split("\n"):
        if reporting:
            reporting = line != "\x01"
            if reporting:
                answer.report.append(line)
            continue
        kind, *fields = line.split("\t")
        match kind, fields:
            case "smi", [code]:
                answer.code = int(code) if code.isdigit() else None
                reporting = True
            case "list", [one]:
                answer.listed.append(one)
            case "memory", [key, size] if size.isdigit():
                answer.memory[key] = int(size) * 1024
            case "process", [pid, session, *rest] if pid.isdigit():
                answer.groups[int(pid)] = (session, "\t".join(rest))
            case "child", [name, pid]:
                answer.children[pid] = name
            case "container", [identity, service]:
                answer.containers[identity] = service
            case "log", _:
                answer.log = []
            case "xid", [one] if answer.log is not None:
                answer.log.append(one)
    return answer


def _xid(line: str) -> Xid | None:
    found = _XID.search(line)
    return Xid(found[1], int(found[2]), found[3].strip()) if found else None


def _profiles(lines: list[str]) -> dict[tuple[int, int], str]:
    """(GPU, MIG device) -> profile, as nvidia-smi -L lists them."""
    found: dict[tuple[int, int], str] = {}
    gpu = -1
    for line in lines:
        match = _LISTED.match(line)
        if match and match[1]:
            gpu = int(match[1])
        elif match:
            found[gpu, int(match[3])] = match[2]
    return found


def _owned(gpu: Gpu, answer: _Answer, units: Mapping[str, Unit]) -> Gpu:
    owners = {pid: _owner(pid, answer, units) for pid in (p.pid for p in gpu.processes)}
    return replace(gpu, processes=tuple(replace(p, owner=owners[p.pid]) for p in gpu.processes))


def _owner(pid: int, answer: _Answer, units: Mapping[str, Unit]) -> str:
    session, group = answer.groups.get(pid, ("", ""))
    # First what we have started ourselves: this machine may be a container, too.
    known = (answer.children.get(session), answer.children.get(str(pid)))
    for name, one in units.items():
        if one.runtime == "process" and one.name in known:
            return name
    container = _CONTAINER.search(group)
    if container:
        service = answer.containers.get(container[0], FOREIGN)
        return service if service in units else FOREIGN
    unit = _SERVICE.search(group)
    for name, one in units.items():
        if one.runtime == "systemd" and unit and unit[1] == one.name:
            return name
    return FOREIGN
