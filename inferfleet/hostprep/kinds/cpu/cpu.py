"""The processor: frequency here, idle states and hardware threads in modules beside this one."""

from __future__ import annotations

from collections.abc import Iterable

from inferfleet.hostprep.facts import Facts, Look, join, matches
from inferfleet.hostprep.kinds.cpu import idle, threads
from inferfleet.hostprep.kinds.kernel.sysfs import HEAD, tmpfiles_line
from inferfleet.hostprep.kinds.system import unitstate
from inferfleet.hostprep.setting import Change, Finding, Ground, Judgement, Wanted
from inferfleet.hostprep.steps import PutFile, Write

OURS = "/etc/tmpfiles.d/90-inferbase-cpu.conf"
_POLICY = "/sys/devices/system/cpu/cpufreq/policy*"
_FILES = {
    "governor": ("scaling_governor", "scaling_available_governors"),
    "energy-preference": (
        "energy_performance_preference",
        "energy_performance_available_preferences",
    ),
}


class Cpu:
    """The kind `cpu`."""

    def look(self, ground: Ground) -> Look:
        settings = ground.of("cpu")
        if not settings:
            return Look((OURS,))
        looks = [Look((OURS,), unitstate.probe(ground))]
        if any(wanted.key in _FILES for wanted in settings):
            names = [name for pair in _FILES.values() for name in pair]
            looks.append(Look(tuple(f"{_POLICY}/{name}" for name in names)))
        for wanted in settings:
            if wanted.key == idle.KEY:
                looks.append(idle.look())
            if wanted.key in threads.KEYS:
                looks.append(threads.look())
        return join(looks)

    def judge(self, ground: Ground, facts: Facts) -> Judgement:
        findings: list[Finding] = []
        changes: list[Change] = []
        lines: list[str] = []
        for wanted in _ordered(ground.of("cpu")):
            if wanted.key in _FILES:
                finding = _frequency(wanted, ground, facts)
                if _holds(finding):
                    lines.append(_line(wanted))
                    changes += _writes(wanted, ground, facts)
            elif wanted.key == idle.KEY:
                finding, more = idle.judge(wanted, facts, _rivals(ground, facts, ("tuned",)))
                changes += more
            else:
                finding, more, line = threads.judge(wanted, facts, facts.text(OURS) or "")
                changes += more
                lines += [line] if line else []
            findings.append(finding)
        text = HEAD + "".join(lines) if lines else None
        return Judgement(tuple(findings), (PutFile(OURS, text),), tuple(changes))

    def bootlines(self, ground: Ground, facts: Facts) -> tuple[str, ...]:
        """Idle states and threads by CPU, which no pattern of tmpfiles.d can name."""
        lines: list[str] = []
        for wanted in ground.of("cpu"):
            if wanted.key == idle.KEY and _holds(idle.judge(wanted, facts, "")[0]):
                lines += idle.bootlines(wanted)
            single = (
                wanted.key == threads.SINGLE and facts.value(threads.CONTROL) not in threads.NONE
            )
            if single and _holds(threads.judge(wanted, facts, "")[0]):
                lines += threads.bootlines(wanted)
        return tuple(lines)


def _holds(finding: Finding) -> bool:
    """Whether a start should set it; what was kept once stays so while it cannot be told."""
    if finding.verdict == "unknown":
        return finding.persisted != "-"
    return finding.verdict in ("ok", "differs", "overridden")


def _ordered(settings: Iterable[Wanted]) -> list[Wanted]:
    """The governor first: it decides which preferences the driver takes; then by key."""
    return sorted(settings, key=lambda wanted: (wanted.key != "governor", wanted.key))


def _frequency(wanted: Wanted, ground: Ground, facts: Facts) -> Finding:
    name, choices = _FILES[wanted.key]
    found = facts.matching(f"{_POLICY}/{name}")
    kept = _line(wanted) in (facts.text(OURS) or "").splitlines(keepends=True)
    persisted = str(wanted.value) if kept else "-"
    if not found and any(matches(path, f"{_POLICY}/{name}") for path in facts.closed):
        return Finding(wanted, "-", persisted, "unknown", "only root may read it")
    if not found:
        remedy = "no driver lets the system set it: a virtual machine, or the firmware keeps it"
        return Finding(wanted, "-", persisted, "unsupported", remedy)
    live = ", ".join(sorted({text.strip() for text in found.values()}))
    offered = {word for text in facts.matching(f"{_POLICY}/{choices}").values()
               for word in text.split()}  # fmt: skip
    if offered and wanted.value not in offered and not str(wanted.value).isdigit():
        remedy = f"the driver offers {', '.join(sorted(offered))}"
        return Finding(wanted, live, persisted, "unsupported", remedy)
    if wanted.key == "energy-preference" and _held(wanted, ground, facts):
        remedy = "the governor performance holds it at performance: want another governor"
        return Finding(wanted, live, persisted, "advice", remedy)
    if live != str(wanted.value) or not kept:
        return Finding(wanted, live, persisted, "differs")
    if rivals := _rivals(ground, facts, ()):
        remedy = f"{rivals} sets it, too: stop it with units, or leave this setting out"
        return Finding(wanted, live, persisted, "overridden", remedy)
    return Finding(wanted, live, persisted, "ok")


def _held(wanted: Wanted, ground: Ground, facts: Facts) -> bool:
    """Drivers with preferences refuse any other one under the governor performance."""
    governor = next((str(w.value) for w in ground.of("cpu") if w.key == "governor"), "")
    found = facts.matching(f"{_POLICY}/scaling_governor").values()
    now = {governor} if governor else {text.strip() for text in found}
    return wanted.value != "performance" and "performance" in now


def _writes(wanted: Wanted, ground: Ground, facts: Facts) -> list[Change]:
    old = _others(wanted, facts)
    if not old:
        return []
    value, (name, _) = str(wanted.value), _FILES[wanted.key]
    undo = [Write(path, text) for path, text in old.items()]
    if wanted.key == "governor":
        # Drivers change the preference with the governor, and refuse it under another one.
        preference, _ = _FILES["energy-preference"]
        undo += [
            Write(path, text.strip())
            for path, text in facts.matching(f"{_POLICY}/{preference}").items()
            if path.replace(preference, name) in old
        ]
    else:
        governors = (_others(w, facts) for w in ground.of("cpu") if w.key == "governor")
        changed = {path.rpartition("/")[0] for found in governors for path in found}
        undo = [step for step in undo if step.path.rpartition("/")[0] not in changed]
    count = f" ({len(old)} policies)" if len(old) > 1 else ""
    text = f"{', '.join(sorted(set(old.values())))} -> {value}{count}"
    return [Change((wanted.name,), text, tuple(Write(path, value) for path in old), tuple(undo))]


def _others(wanted: Wanted, facts: Facts) -> dict[str, str]:
    """Files of policies that have another value."""
    found = facts.matching(f"{_POLICY}/{_FILES[wanted.key][0]}")
    return {path: text.strip() for path, text in found.items() if text.strip() != wanted.value}


def _rivals(ground: Ground, facts: Facts, only: tuple[str, ...]) -> str:
    """Programs that set the same and run, or will; not those that this run stops."""
    known = unitstate.units(facts) or {}
    stopped = {w.key for w in ground.of("units") if w.value in ("stopped", "masked")}
    found = [
        name
        for name in unitstate.CPU_TOOLS
        if name in known and name not in stopped and (not only or name.split(".")[0] in only)
        if known[name].active == "active" or known[name].enabled == "enabled"
    ]
    return ", ".join(found)


def _line(wanted: Wanted) -> str:
    return tmpfiles_line(f"{_POLICY}/{_FILES[wanted.key][0]}", str(wanted.value))
