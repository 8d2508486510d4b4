"""Swap space: off now and at every start, or only as compressed memory."""

from __future__ import annotations

from inferfleet.hostprep.facts import Facts, Look
from inferfleet.hostprep.kinds.memory import swaps, zram
from inferfleet.hostprep.kinds.memory.hugepages import MEMORY, available
from inferfleet.hostprep.kinds.storage.mounted import FSTAB
from inferfleet.hostprep.kinds.system import unitstate
from inferfleet.hostprep.setting import Change, Finding, Ground, Judgement, Wanted
from inferfleet.hostprep.steps import PutFile


class Swap:
    """The kind `swap`. Nothing is swapped in that the memory could not hold."""

    def look(self, ground: Ground) -> Look:
        own = (FSTAB, swaps.TABLE, zram.DEVICE, *swaps.DROP_INS, *zram.FILES)
        if not ground.of("swap"):
            return Look(own)
        return Look((*own, MEMORY), unitstate.probe(ground), (swaps.GENERATOR, zram.MODULE))

    def judge(self, ground: Ground, facts: Facts) -> Judgement:
        wanted = {one.key: one for one in ground.of("swap")}
        active, size = wanted.get("active"), wanted.get("zram")
        off = size is not None or (active is not None and active.value is False)
        findings = []
        if size is not None:
            findings.append(_zram(size, active, facts))
        if active is not None:
            findings.append(_active(active, size, facts))
        if any(finding.verdict in ("advice", "unknown") for finding in findings if off):
            return Judgement(tuple(findings))
        files = list(swaps.files_off(facts, zram.ours(facts)) if off else swaps.files_left(facts))
        files += zram.files(size.value if size else None)
        changes = [zram.change(size.name, facts, size.value) if size else zram.removal(facts)]
        if size or active:
            changes.append(_others((size or active).name, off, facts))  # type: ignore[union-attr]
        return Judgement(
            tuple(sorted(findings, key=lambda finding: finding.wanted.key)),
            _checked(files, facts),
            tuple(change for change in changes if change),
        )


def _active(wanted: Wanted, size: Wanted | None, facts: Facts) -> Finding:
    found = swaps.spaces(facts)
    live, sources = swaps.shown(found), swaps.at_start(facts)
    persisted = ", ".join(sources) or "none"
    if swaps.TABLE not in facts.files:
        return Finding(wanted, "-", persisted, "unknown", f"{swaps.TABLE} cannot be read")
    if wanted.value:
        if size is not None:
            return Finding(wanted, live, persisted, "ok" if zram.ours(facts) else "differs")
        marked = swaps.MARK in (facts.text(FSTAB) or "")
        if marked or swaps.ALL_SWAPS in facts.files:
            return Finding(wanted, live, persisted, "differs")
        if found or sources:
            return Finding(wanted, live, persisted, "ok" if found else "pending")
        remedy = f"make swap space (mkswap) and name it in {FSTAB}, or want zram"
        return Finding(wanted, live, persisted, "advice", remedy)
    if size is not None:
        remedy = "swap.zram is swap, too: leave one of them out"
        return Finding(wanted, live, persisted, "advice", remedy)
    if remedy := _no_room(found, facts):
        return Finding(wanted, live, persisted, "advice", remedy)
    good = not found and not sources and zram.size_kept(facts) is None
    return Finding(wanted, live, persisted, "ok" if good else "differs")


def _zram(wanted: Wanted, active: Wanted | None, facts: Facts) -> Finding:
    found, space = swaps.spaces(facts), zram.ours(facts)
    kept = zram.size_kept(facts)
    sources = [*swaps.at_start(facts), *([f"zram {kept >> 20} MiB"] if kept else [])]
    live, persisted = swaps.shown(found), ", ".join(sources) or "none"
    if swaps.TABLE not in facts.files:
        return Finding(wanted, "-", persisted, "unknown", f"{swaps.TABLE} cannot be read")
    if active is not None and active.value is False:
        remedy = "swap.active is false: leave one of them out"
        return Finding(wanted, live, persisted, "advice", remedy)
    if remedy := _no_room([one for one in found if one != space], facts):
        return Finding(wanted, live, persisted, "advice", remedy)
    good = space is not None and zram.right(space, wanted.value) and len(found) == 1
    good = good and kept == wanted.value and len(sources) == 1
    return Finding(wanted, live, persisted, "ok" if good else "differs")


def _no_room(leaving: list[swaps.Space], facts: Facts) -> str:
    """Why what is swapped out there cannot come back into memory, "" when it can."""
    used = sum(space.used for space in leaving)
    room = available(facts)
    if room is None:
        return f"{MEMORY} does not tell how much memory is free" if used else ""
    if used < room:
        return ""
    return (
        f"{used >> 10} MiB are swapped out and {room >> 10} MiB of memory are free: end what uses "
        "the memory first"
    )


def _others(name: str, off: bool, facts: Facts) -> Change | None:
    """All swap space but ours off, or what /etc/fstab names on when none is."""
    found = [space for space in swaps.spaces(facts) if space != zram.ours(facts)]
    if off and found:
        return Change(
            (name,),
            f"{swaps.shown(found)} -> none",
            tuple(space.off for space in found),
            tuple(space.on for space in found),
        )
    if not off and not found and swaps.MARK in (facts.text(FSTAB) or ""):
        return Change((name,), f"none -> as {FSTAB} names it", (swaps.ALL_ON,), (swaps.ALL_OFF,))
    return None


def _checked(files: list[PutFile], facts: Facts) -> tuple[PutFile, ...]:
    """Without files that only root may read: what cannot be seen is left alone."""
    return tuple(file for file in files if file.path not in facts.closed)
