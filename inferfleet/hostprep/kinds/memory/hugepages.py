"""Huge pages kept for hugetlbfs: the live pool, and a tmpfiles.d line that fills it at a start."""

from __future__ import annotations

from collections.abc import Sequence

from inferfleet.hostprep.facts import Facts, Look
from inferfleet.hostprep.kinds.kernel.sysfs import HEAD, tmpfiles_line
from inferfleet.hostprep.setting import Change, Finding, Ground, Judgement, Wanted
from inferfleet.hostprep.steps import PutFile, Write

OURS = "/etc/tmpfiles.d/90-inferbase-hugepages.conf"
MEMORY = "/proc/meminfo"
SIZES = {"2M": 2048, "1G": 1048576}
# What models.pin keeps of each model: real path, size, time, pages added, boot (remote/pages.sh).
PINNED = "/var/lib/inferbase/pages/*"
BOOT = "/proc/sys/kernel/random/boot_id"


class HugePages:
    """The kind `hugepages`. The kernel gives as many as it finds free memory in one piece for."""

    def look(self, ground: Ground) -> Look:
        settings = ground.of("hugepages")
        if not settings:
            return Look((OURS,))
        paths = [path for wanted in settings for path in (pool(wanted.key), _nodes(wanted.key))]
        return Look((OURS, MEMORY, PINNED, BOOT, *paths))

    def judge(self, ground: Ground, facts: Facts) -> Judgement:
        settings = ground.of("hugepages")
        findings = [_finding(wanted, facts) for wanted in settings]
        sound = [f.wanted for f in findings if f.verdict in ("ok", "differs")]
        # What was kept once stays so while it cannot be told, or not be had.
        kept = [f.wanted for f in findings if f.wanted in sound or f.persisted != "-"]
        changes = tuple(_change(w, facts) for w in sound if _count(w, facts) != _target(w, facts))
        return Judgement(tuple(findings), (PutFile(OURS, _text(kept)),), changes)


def pool(size: str) -> str:
    """The file that has the number of pages of a size (2M, 1G) on the whole machine."""
    return f"/sys/kernel/mm/hugepages/hugepages-{SIZES[size]}kB/nr_hugepages"


def pinned(facts: Facts) -> int:
    """Pages of 2 MiB that models.pin has added to the pool since the machine was started."""
    boot = facts.value(BOOT)
    found = (text.rstrip("\n").split("\t") for text in facts.matching(PINNED).values())
    added = (fields[3] for fields in found if len(fields) == 5 and fields[4] == boot)
    return sum(int(pages) for pages in added if pages.isdigit())


def available(facts: Facts) -> int | None:
    """Memory in KiB that programs could have without swapping; None when it is not told."""
    for line in (facts.text(MEMORY) or "").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable" and rest.split()[:1] and rest.split()[0].isdigit():
            return int(rest.split()[0])
    return None


def _finding(wanted: Wanted, facts: Facts) -> Finding:
    path = pool(wanted.key)
    kept = _line(wanted) in (facts.text(OURS) or "").splitlines(keepends=True)
    persisted = str(wanted.value) if kept else "-"
    if path not in facts.files:
        if path in facts.closed:
            return Finding(wanted, "-", persisted, "unknown", "only root may read it")
        remedy = f"this kernel has no huge pages of {wanted.key}"
        return Finding(wanted, "-", persisted, "unsupported", remedy)
    count = _count(wanted, facts)
    if count is None:
        return Finding(wanted, "-", persisted, "unknown", f"{path} holds no number")
    live = str(count)
    nodes = {node: facts.files[node].strip() for node in facts.matching(_nodes(wanted.key))}
    if len(nodes) > 1:
        live += " (" + ", ".join(f"{path.split('/')[5]} {n}" for path, n in nodes.items()) + ")"
    target = _target(wanted, facts)
    if target != wanted.value:
        live += f" ({target - wanted.value} of pinned models)"
    missing = target - count
    room = available(facts)
    if missing > 0 and room is not None and missing * SIZES[wanted.key] > room:
        fit = count + room // SIZES[wanted.key]
        remedy = (
            f"{missing} more pages are {missing * SIZES[wanted.key] >> 10} MiB, and "
            f"{room >> 10} MiB are free: want at most {fit}, or end what uses the memory"
        )
        return Finding(wanted, live, persisted, "advice", remedy)
    if missing > 0 and kept:
        remedy = (
            f"{missing} of {target} pages could not be had: memory is in pieces, which a "
            "start of the machine mends"
        )
        return Finding(wanted, live, persisted, "differs", remedy)
    if missing < 0 and kept:
        remedy = f"{-missing} more are in use or were asked for by another program"
        return Finding(wanted, live, persisted, "differs", remedy)
    return Finding(wanted, live, persisted, "ok" if kept and not missing else "differs")


def _change(wanted: Wanted, facts: Facts) -> Change:
    old = _count(wanted, facts)
    nodes = facts.matching(_nodes(wanted.key))
    # The kernel spreads pages over the nodes, which need not be as they were spread before.
    before = {path: text.strip() for path, text in nodes.items()} if len(nodes) > 1 else {}
    undo = [Write(path, count) for path, count in before.items()]
    return Change(
        (wanted.name,),
        f"{old} -> {_target(wanted, facts)}",
        (Write(pool(wanted.key), str(_target(wanted, facts))),),
        tuple(undo or [Write(pool(wanted.key), str(old))]),
    )


def _count(wanted: Wanted, facts: Facts) -> int | None:
    text = facts.value(pool(wanted.key)) or ""
    return int(text) if text.isdigit() else None


def _target(wanted: Wanted, facts: Facts) -> int:
    """The pool's size now: what is wanted, and what pinned models have added to it."""
    return int(wanted.value) + (pinned(facts) if wanted.key == "2M" else 0)


def _nodes(size: str) -> str:
    folder = f"hugepages-{SIZES[size]}kB"
    return f"/sys/devices/system/node/node*/hugepages/{folder}/nr_hugepages"


def _line(wanted: Wanted) -> str:
    return tmpfiles_line(pool(wanted.key), str(wanted.value))


def _text(settings: Sequence[Wanted]) -> str | None:
    return HEAD + "".join(map(_line, settings)) if settings else None
