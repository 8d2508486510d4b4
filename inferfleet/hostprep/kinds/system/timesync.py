"""The clock: kept by a program that asks others for the time."""

from __future__ import annotations

from inferfleet.hostprep.facts import Facts, Look
from inferfleet.hostprep.kinds.system import unitstate
from inferfleet.hostprep.kinds.system.units import NO_SYSTEMD
from inferfleet.hostprep.kinds.system.unitstate import CLOCKS, Unit
from inferfleet.hostprep.setting import Change, Finding, Ground, Judgement, Wanted

UPTIME = "/proc/uptime"
# systemd leaves the name of the container's kind there; a container has no clock of its own.
CONTAINER = "/run/systemd/container"
# Polls of NTP are up to 1024 s apart (RFC 5905); a first answer takes far less.
PATIENCE = 600.0
_TIMEDATE = ("timedatectl", "show", "--property=NTPSynchronized")
_CHRONY = ("chronyc", "-n", "tracking")


class Time:
    """The kind `time`. A clock service that is there is used; none is installed."""

    def look(self, ground: Ground) -> Look:
        if not ground.of("time"):
            return Look()
        probes = {**unitstate.probe(ground), "timedatectl": _TIMEDATE, "chronyc": _CHRONY}
        links = [path for name in CLOCKS for path in unitstate.stats(name)]
        return Look((UPTIME, CONTAINER), probes, tuple(links))

    def judge(self, ground: Ground, facts: Facts) -> Judgement:
        findings, changes = [], []
        for wanted in ground.of("time"):
            finding, unit = _judge(wanted, facts)
            findings.append(finding)
            if finding.verdict == "differs" and unit:
                do, undo = unitstate.start(unit, facts)
                state = f"{unit.active}, {unit.enabled or '-'}"
                text = f"{unit.name}: {state} -> running"
                changes.append(Change((wanted.name,), text, do, undo))
        return Judgement(tuple(findings), (), tuple(changes))


def _judge(wanted: Wanted, facts: Facts) -> tuple[Finding, Unit | None]:
    synced = _synchronized(facts)
    live = {True: "synchronized", False: "not synchronized", None: "-"}[synced]
    known = unitstate.units(facts)
    units = [known[name] for name in CLOCKS if name in known] if known else []
    there = [unit for unit in units if unitstate.installed(unit, facts)]
    there.sort(key=lambda unit: unit.masked)
    serving = [unit for unit in there if unit.running]
    persisted = next((unit.name for unit in serving or there if unit.starts), "-")
    if not wanted.value:
        return Finding(wanted, live, persisted, "ok"), None
    if kind := facts.value(CONTAINER):
        remedy = f"the clock is that of the host around this {kind} container: set it there"
        return Finding(wanted, live, "-", "ok" if synced else "unsupported", remedy), None
    if known is None:
        return Finding(wanted, live, "-", "unknown", NO_SYSTEMD), None
    if not there:
        remedy = "install chrony or systemd-timesyncd"
        return Finding(wanted, live, "-", "absent", remedy), None
    unit = next((one for one in serving if one.starts), (serving or there)[0])
    if not serving or not unit.starts:
        return Finding(wanted, live, persisted, "differs"), unit
    if synced is None:
        remedy = "neither timedatectl nor chronyc tells"
        return Finding(wanted, live, persisted, "unknown", remedy), None
    if synced:
        return Finding(wanted, live, persisted, "ok"), None
    age = _seconds(facts.value(UPTIME)) - unit.since / 1e6
    if 0 <= age < PATIENCE:
        remedy = f"{unit.name} was started {age:.0f} s ago: look again later"
        return Finding(wanted, live, persisted, "unknown", remedy), None
    remedy = f"{unit.name} gets no time: see its log, and whether UDP port 123 is open outwards"
    return Finding(wanted, live, persisted, "advice", remedy), None


def _synchronized(facts: Facts) -> bool | None:
    """Whether the kernel or chrony say that the clock is right; None when neither says."""
    kernel, chrony = facts.probe("timedatectl"), facts.probe("chronyc")
    answers = []
    if kernel.good and "NTPSynchronized=" in kernel.out:
        answers.append("NTPSynchronized=yes" in kernel.out.splitlines())
    for line in chrony.out.splitlines() if chrony.good else ():
        name, _, value = line.partition(":")
        if name.strip() == "Leap status":
            answers.append(value.strip() != "Not synchronised")
    return any(answers) if answers else None


def _seconds(text: str | None) -> float:
    word = (text or "").split(" ")[0]
    return float(word) if word.replace(".", "", 1).isdigit() else 0.0
