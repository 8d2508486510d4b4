"""systemd units: running, stopped or masked, now and at every start."""

from __future__ import annotations

from collections.abc import Mapping

from inferfleet.hostprep.facts import Facts, Look, literal
from inferfleet.hostprep.kinds.system import unitstate
from inferfleet.hostprep.kinds.system.unitstate import FOLDER, Unit
from inferfleet.hostprep.setting import Change, Finding, Ground, Judgement, Wanted

NO_SYSTEMD = "systemd does not answer on this machine"


class Units:
    """The kind `units`. Stopped is not masked: other units may still start a stopped one."""

    def look(self, ground: Ground) -> Look:
        names = [literal(wanted.key) for wanted in ground.of("units")]
        stats = [path for name in names for path in (f"{FOLDER}/{name}", *unitstate.stats(name))]
        return Look(probes=unitstate.probe(ground), stats=tuple(stats))

    def judge(self, ground: Ground, facts: Facts) -> Judgement:
        known = unitstate.units(facts)
        findings = [_finding(wanted, known, facts) for wanted in ground.of("units")]
        changes = [
            _change(finding.wanted, (known or {})[finding.wanted.key], facts)
            for finding in findings
            if finding.verdict == "differs"
        ]
        return Judgement(tuple(findings), (), tuple(changes))


def _finding(wanted: Wanted, known: Mapping[str, Unit] | None, facts: Facts) -> Finding:
    unit = (known or {}).get(wanted.key)
    if unit is None:
        return Finding(wanted, "-", "-", "unknown", NO_SYSTEMD)
    if not unit.there or (wanted.value == "running" and not unitstate.installed(unit, facts)):
        if wanted.value == "running":
            remedy = f"install the package that brings {wanted.key}"
            return Finding(wanted, "not there", "-", "absent", remedy)
        return Finding(wanted, "not there", "-", "ok")
    live, persisted = unit.active, unit.enabled or "-"
    if unit.load not in ("loaded", "masked"):
        remedy = f"systemd cannot load it ({unit.load}): see systemctl status {unit.name}"
        return Finding(wanted, live, persisted, "advice", remedy)
    if remedy := _refused(str(wanted.value), unit, facts):
        return Finding(wanted, live, persisted, "advice", remedy)
    return Finding(wanted, live, persisted, "ok" if _good(str(wanted.value), unit) else "differs")


def _good(value: str, unit: Unit) -> bool:
    if value == "running":
        return unit.starts and not unit.masked and (unit.active == "active" or unit.did_its_work)
    if value == "masked":
        return unit.enabled == "masked" and not unit.running
    return not unit.running and unit.enabled not in ("enabled", "enabled-runtime")


def _refused(value: str, unit: Unit, facts: Facts) -> str:
    """Why systemctl could not do it, or not such that it could be undone; "" when it can."""
    if _good(value, unit) and (value != "stopped" or not unit.starts):
        return ""
    own = facts.stats.get(f"{FOLDER}/{unit.name}")
    if value == "masked":
        if own and own.kind.startswith("regular"):
            return f"{own_file(unit)} is in the way of a mask: want it stopped, or move that file"
        return ""
    if value == "stopped" and unit.enabled in ("static", "indirect", "generated"):
        return f"it is {unit.enabled}, other units start it: want it masked instead"
    linked = own is not None and own.kind == "symbolic link" and not unit.masked
    if linked and (value == "running") != unit.starts:
        return f"{own_file(unit)} is a link that disabling would take away: change it by hand"
    return ""


def own_file(unit: Unit) -> str:
    """Where a unit file of the machine's owner lies."""
    return f"{FOLDER}/{unit.name}"


def _change(wanted: Wanted, unit: Unit, facts: Facts) -> Change:
    if wanted.value == "running":
        do, undo = unitstate.start(unit, facts)
    elif wanted.value == "stopped":
        do, undo = unitstate.stop(unit)
    else:
        do, undo = unitstate.mask(unit)
    text = f"{unit.active}, {unit.enabled or '-'} -> {wanted.value}"
    return Change((wanted.name,), text, do, undo)
