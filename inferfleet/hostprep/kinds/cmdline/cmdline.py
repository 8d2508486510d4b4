"""The kernel command line: kept by the boot loader, in force after a restart.

A change is made in the boot loader's own configuration (kinds/grub.py, kinds/bls.py), and a boot
check (kinds/bootcheck.py, remote/bootcheck.sh) is put beside it. Where GRUB can, the new line is
started once from a menu of its own while the old menu stays the default: a line that panics, hangs
or brings up a machine that is not healthy is left by any restart, the boot check's own included,
and the old system then undoes the generation. Where the loader cannot, the boot check undoes it
and restarts. Every file is renamed into place, and the default changes only after the new line has
been seen to work, so that a power cut at any point leaves an old line that starts.
"""

from __future__ import annotations

from collections.abc import Sequence

from inferfleet.hostprep.facts import Facts, Look, join
from inferfleet.hostprep.kinds.cmdline import bootcheck, bootloader
from inferfleet.hostprep.kinds.cmdline.bootloader import Loader
from inferfleet.hostprep.kinds.cmdline.cmdwords import (
    Word,
    met,
    name_of,
    ordered,
    refusal,
    shown,
    split,
    word_of,
)
from inferfleet.hostprep.setting import Change, Finding, Ground, Judgement, Wanted

POSSIBLE = "/sys/devices/system/cpu/possible"
_ONCE = "tried at the next start; the old command line stays the default until it is confirmed"
_NOT_ONCE = (
    "from the next start on; this boot loader cannot try it once, so a kernel that does not "
    "start needs the boot menu"
)


class Cmdline:
    """The kind `cmdline`."""

    def look(self, ground: Ground) -> Look:
        return join([bootloader.look(), bootcheck.look(), Look((POSSIBLE,))])

    def judge(self, ground: Ground, facts: Facts) -> Judgement:
        settings = ordered(ground.of("cmdline"))
        live = split(facts.text("/proc/cmdline") or "")
        loader, reason = bootloader.find_loader(facts)
        if loader is not None and loader.opaque:
            reason = f"only a shell can tell what {loader.opaque} makes of the kernel command line"
        if loader is None or reason:
            return Judgement(tuple(_unknown(w, live, reason) for w in settings))
        refused = {w.name: refusal(w, facts.value(POSSIBLE)) for w in settings}
        good = [w for w in settings if not refused[w.name]]
        drop = [name_of(w.key) for w in good if w.value is False]
        ours = _ours(good, loader, drop)
        now, later = _words(loader.final(loader.ours)), _words(loader.final(ours, drop))
        words = facts.text(bootcheck.WORDS)
        changes: tuple[Change, ...] = ()
        findings = tuple(
            _finding(w, good, live, loader, ours, drop, facts) if w in good
            else Finding(w, shown(w.key, live), "-", "unsupported", refused[w.name])
            for w in settings
        )  # fmt: skip
        if loader.changed(ours, drop):
            new, gone = [w for w in later if w not in now], [w for w in now if w not in later]
            fresh = bootcheck.lines(ours, gone, loader.once)
            if fresh:
                words = fresh
                text = " ".join([f"+{one}" for one in new] + [f"-{one}" for one in gone])
                changes = (_change(loader, ours, drop, findings, facts, text or "the same words"),)
        files = (
            *bootcheck.files(words, ground.state),
            *loader.files(ours, drop, words is not None),
        )
        return Judgement(findings, files, changes)


def _ours(settings: Sequence[Wanted], loader: Loader, drop: Sequence[str]) -> tuple[str, ...]:
    """The words that we must bring: those that nobody else does, a page size with its count."""
    others = [[word.text for word in line] for line in loader.final((), drop)]
    missing = {
        w.key for w in settings
        if w.value is not False and not all(met(w, line, settings) for line in others)
    }  # fmt: skip
    if missing & {"hugepages", "hugepagesz"}:
        missing |= {"hugepages", "hugepagesz"}
    return tuple(word_of(w) for w in settings if w.key in missing and w.value is not False)


def _finding(
    wanted: Wanted,
    settings: Sequence[Wanted],
    live: Sequence[str],
    loader: Loader,
    ours: Sequence[str],
    drop: Sequence[str],
    facts: Facts,
) -> Finding:
    now = loader.final(loader.ours)
    later = loader.final(ours, drop)
    seen, kept = shown(wanted.key, live), _kept(wanted, now)
    culprit = next((_culprit(wanted, line) for line in later
                    if not met(wanted, [w.text for w in line], settings)), None)  # fmt: skip
    if culprit is not None:
        remedy = f"{culprit.text} comes from {culprit.origin}: {loader.blame(culprit.origin)}"
        return Finding(wanted, seen, kept, "overridden", remedy)
    running = met(wanted, live, settings)
    if not all(met(wanted, [word.text for word in line], settings) for line in now):
        return Finding(wanted, seen, kept, "differs", _tried(wanted, facts))
    if bootcheck.watching(facts) and running and word_of(wanted) in loader.ours:
        return Finding(wanted, seen, kept, "pending", "the boot check has not confirmed it yet")
    return Finding(wanted, seen, kept, "ok" if running else "pending")


def _kept(wanted: Wanted, lines: Sequence[Sequence[Word]]) -> str:
    """What the loader's configuration has of a parameter, for people."""
    return " or ".join(
        dict.fromkeys(shown(wanted.key, [word.text for word in line]) for line in lines)
    )


def _culprit(wanted: Wanted, line: Sequence[Word]) -> Word:
    """The word that keeps a setting from being as it is wanted."""
    found = [word for word in line if name_of(word.text) == name_of(wanted.key)]
    return found[-1] if found else Word(word_of(wanted), "a file that sets the whole line anew")


def _tried(wanted: Wanted, facts: Facts) -> str:
    """That this very word was tried, and what came of it; "" when it was not."""
    last = bootcheck.failure(facts)
    sign = "-" if wanted.value is False else "+"
    if last is None or f"{sign}{word_of(wanted)}" not in last.words:
        return ""
    return f"tried and taken back at {last.when}: {last.why}"


def _change(
    loader: Loader,
    ours: Sequence[str],
    drop: Sequence[str],
    findings: Sequence[Finding],
    facts: Facts,
    text: str,
) -> Change:
    names = tuple(f.wanted.name for f in findings if f.verdict == "differs")
    arm, disarm = bootcheck.arm(facts)
    do, undo = loader.steps(ours, drop)
    reboot = _ONCE if loader.once else _NOT_ONCE
    # The way back is known before the loader is told of the new line.
    return Change(
        names or ("kernel command line",), text, (*arm, *do), (*undo, *disarm), reboot, cuts=True
    )


def _words(lines: Sequence[Sequence[Word]]) -> list[str]:
    return list(dict.fromkeys(word.text for line in lines for word in line))


def _unknown(wanted: Wanted, live: Sequence[str], reason: str) -> Finding:
    is_there = met(wanted, live)
    verb = "leave out" if wanted.value is False else "add"
    remedy = f"{reason}: {verb} {word_of(wanted)} in its configuration yourself"
    if is_there:
        remedy = f"{reason}: whether a restart keeps it cannot be told"
    return Finding(wanted, shown(wanted.key, live), "-", "unknown", remedy)
