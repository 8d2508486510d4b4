"""Settings below /proc/sys: a drop-in of our own, written live, the later file that wins named."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from inferfleet.hostprep.facts import Facts, Look, matches
from inferfleet.hostprep.setting import Change, Finding, Ground, Judgement, Wanted
from inferfleet.hostprep.steps import PutFile, Write

OURS = "/etc/sysctl.d/90-inferbase.conf"
# sysctl.d(5): the first folder that has a name wins; all names are then read in their order.
FOLDERS = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d",
           "/lib/sysctl.d")  # fmt: skip
# sysctl(8) --system reads it after all others, systemd only where a link leads to it.
LAST = "/etc/sysctl.conf"

# What decides about packets, and so whether the machine can still be reached.
CUTTING = ("net.ipv4.", "net.ipv6.", "net.bridge.", "net.netfilter.")


@dataclass(frozen=True)
class Assignment:
    """A line of a sysctl file."""

    key: str
    value: str
    path: str
    line: int


def proc_path(key: str) -> str:
    """Where a key's value is; keys may hold * as sysctl.d has it."""
    return "/proc/sys/" + _slashed(key)


def assignments(path: str, text: str) -> Iterator[Assignment]:
    """The lines of a file that set something; a leading "-" only quiets errors."""
    for number, line in enumerate(text.splitlines(), 1):
        key, equals, value = line.partition("=")
        key = key.strip().removeprefix("-").strip()
        if equals and key and not line.lstrip().startswith(("#", ";")):
            # A key with a slash before any dot is a path: net/ipv4/conf/eth0.1/forwarding.
            slash, dot = key.find("/"), key.find(".")
            if slash >= 0 and (dot < 0 or slash < dot):
                key = _slashed(key)
            yield Assignment(key, _plain(value), path, number)


def effective(facts: Facts, ours: str | None = None) -> list[Assignment]:
    """All assignments in the order in which they take effect. ours: text of our own file."""
    texts = {path: text for path, text in facts.files.items() if _is_sysctl(path)}
    if ours is not None:
        texts[OURS] = ours
    chosen: dict[str, str] = {}
    for folder in FOLDERS:
        for path in texts:
            parent, _, name = path.rpartition("/")
            if parent == folder:
                chosen.setdefault(name, path)
    ordered = [chosen[name] for name in sorted(chosen)]
    if LAST in texts:
        ordered.append(LAST)
    return [found for path in ordered for found in assignments(path, texts[path])]


class Sysctl:
    """The kind `sysctl`."""

    def look(self, ground: Ground) -> Look:
        paths = [proc_path(wanted.key) for wanted in ground.of("sysctl")]
        if not paths:
            return Look((OURS,))
        return Look((*paths, OURS, LAST, *(f"{folder}/*.conf" for folder in FOLDERS)))

    def judge(self, ground: Ground, facts: Facts) -> Judgement:
        settings = ground.of("sysctl")
        coming = _coming(ground, facts)
        values = _values(settings, facts)
        there = [w for w in settings if coming or values[w.key] or _closed(w, facts)]
        ours = _content(there)
        now, later = effective(facts), effective(facts, ours)
        findings: list[Finding] = []
        changes: list[Change] = []
        for wanted in settings:
            found = values[wanted.key]
            findings.append(_finding(wanted, found, facts, now, later, wanted in there))
            if wanted in there:
                changes += _changes(wanted, found, facts)
        return Judgement(tuple(findings), (PutFile(OURS, ours),), tuple(changes))


def _content(settings: list[Wanted]) -> str | None:
    if not settings:
        return None
    lines = [f"# {w.why}\n{w.key} = {_plain(str(w.value))}\n" for w in settings]
    return "# Made by inferbase; `invoke hostprep.rollback` takes it away.\n" + "".join(lines)


def _finding(
    wanted: Wanted,
    found: Mapping[str, str],
    facts: Facts,
    now: list[Assignment],
    later: list[Assignment],
    there: bool,
) -> Finding:
    value = _plain(str(wanted.value))
    live = ", ".join(dict.fromkeys(found.values())) or "-"
    last = _winner(wanted.key, now)
    persisted = last.value if last else "-"
    if _closed(wanted, facts) and not found:
        return Finding(wanted, "-", persisted, "unknown", "only root may read it")
    if not there:
        remedy = "the kernel has no such key: check its spelling, or load the module that has it"
        return Finding(wanted, "-", persisted, "absent", remedy)
    final = _rival(wanted, value, later)
    if final is not None:
        remedy = f"{final.path}:{final.line} sets {final.value} later: change or remove that line"
        return Finding(wanted, live, persisted, "overridden", remedy)
    good = bool(found) and all(one == value for one in found.values()) and persisted == value
    return Finding(wanted, live, persisted, "ok" if good else "differs")


def _changes(wanted: Wanted, found: Mapping[str, str], facts: Facts) -> Iterator[Change]:
    value = _plain(str(wanted.value))
    old = {path: one for path, one in found.items() if one != value}
    if old:
        words = ", ".join(dict.fromkeys(old.values()))
        yield Change(
            (wanted.name,),
            f"{words} -> {value}",
            tuple(Write(path, value) for path in old),
            tuple(Write(path, one) for path, one in old.items()),
            cuts=wanted.key.startswith(CUTTING),
        )
    elif not found and "*" not in wanted.key and not _closed(wanted, facts):
        # Its module is loaded by the same run; unloading it takes the value away again.
        do = (Write(proc_path(wanted.key), value),)
        cuts = wanted.key.startswith(CUTTING)
        yield Change((wanted.name,), f"- -> {value}", do, (), cuts=cuts)


def _winner(key: str, ordered: list[Assignment]) -> Assignment | None:
    """The last line that names the key; without one the last pattern, wherever it stands."""
    same = [one for one in ordered if one.key == key]
    found = same or [one for one in ordered if matches(_slashed(key), _slashed(one.key))]
    return found[-1] if found else None


def _rival(wanted: Wanted, value: str, later: list[Assignment]) -> Assignment | None:
    """The line of another file that decides, for a pattern about at least one of its keys."""
    final = _winner(wanted.key, later)
    if final is not None and final.value != value:
        return final
    if "*" not in wanted.key:
        return None
    pattern = _slashed(wanted.key)
    others = (one.key for one in later if one.path != OURS and "*" not in one.key)
    keys = {key for key in others if matches(_slashed(key), pattern)}
    winners = (_winner(key, later) for key in sorted(keys))
    return next((one for one in winners if one is not None and one.value != value), None)


def _values(settings: Sequence[Wanted], facts: Facts) -> dict[str, dict[str, str]]:
    """By key, the values by path; a pattern has none of the keys that are wanted by name."""
    named = {proc_path(wanted.key) for wanted in settings if "*" not in wanted.key}
    found: dict[str, dict[str, str]] = {}
    for wanted in settings:
        at = proc_path(wanted.key)
        if "*" in at:
            texts = {path: t for path, t in facts.matching(at).items() if path not in named}
        else:
            texts = {at: facts.files[at]} if at in facts.files else {}
        found[wanted.key] = {path: _plain(text) for path, text in texts.items()}
    return found


def _closed(wanted: Wanted, facts: Facts) -> bool:
    return any(matches(path, proc_path(wanted.key)) for path in facts.closed)


def _coming(ground: Ground, facts: Facts) -> bool:
    """Whether a module will be loaded that may bring the key."""
    loaded = {line.split()[0] for line in (facts.text("/proc/modules") or "").splitlines() if line}
    wanted = {w.key.replace("-", "_") for w in ground.of("modules") if w.value == "loaded"}
    return bool(wanted - loaded)


def _is_sysctl(path: str) -> bool:
    return path == LAST or any(matches(path, f"{folder}/*.conf") for folder in FOLDERS)


def _slashed(key: str) -> str:
    """The key as a path and the other way: dots of names are slashes between dots."""
    return key.translate({46: "/", 47: "."})


def _plain(text: str) -> str:
    """White space as one blank: the kernel prints tabs where people write blanks."""
    return re.sub(r"\s+", " ", text).strip()
