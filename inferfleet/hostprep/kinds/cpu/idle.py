"""Idle states of the processor: those that take too long to leave are off."""

from __future__ import annotations

from inferfleet.hostprep.facts import Facts, Look
from inferfleet.hostprep.kinds import boot
from inferfleet.hostprep.setting import Change, Finding, Wanted
from inferfleet.hostprep.steps import Write

KEY = "max-idle-latency"
_STATES = "/sys/devices/system/cpu/cpu[0-9]*/cpuidle/state*"
_LATENCY = f"{_STATES}/latency"
# A function of the script that runs at every start: it looks at the CPUs that there are then.
_AT_BOOT = f"""\
idle_latency() {{
  for state in {_STATES}; do
    [ -e "$state/disable" ] || continue
    if [ "$(cat "$state/latency")" -gt "$1" ]; then echo 1 >"$state/disable"; fi
  done
}}"""


def look() -> Look:
    """Latency and switch of every state of every CPU."""
    return Look((_LATENCY, f"{_STATES}/disable", f"{_STATES}/default_status", boot.SCRIPT))


def bootlines(wanted: Wanted) -> tuple[str, ...]:
    return _AT_BOOT, f"try idle_latency {wanted.value}"


def judge(wanted: Wanted, facts: Facts, rivals: str) -> tuple[Finding, list[Change]]:
    """The states beside what is wanted. rivals: programs that set them, too."""
    line = bootlines(wanted)[1]
    kept = line in (facts.text(boot.SCRIPT) or "").splitlines()
    persisted = f"{wanted.value} us" if kept else "-"
    now, want = _switches(wanted, facts)
    if not now:
        remedy = "this kernel has no idle states to switch: a virtual machine, or the firmware"
        return Finding(wanted, "-", persisted, "unsupported", remedy), []
    latencies = {path: int(facts.files[f"{path}/latency"]) for path in now}
    live = f"{max((latencies[path] for path in now if now[path] == '0'), default=0)} us"
    old = {path: value for path, value in now.items() if value != want[path]}
    if not old and kept:
        if rivals:
            remedy = f"{rivals} sets latencies, too: stop it with units"
            return Finding(wanted, live, persisted, "overridden", remedy), []
        return Finding(wanted, live, persisted, "ok"), []
    change = Change(
        (wanted.name,),
        f"{live} -> at most {wanted.value} us ({len(old)} states)",
        tuple(Write(f"{path}/disable", want[path]) for path in old),
        tuple(Write(f"{path}/disable", value) for path, value in old.items()),
    )
    return Finding(wanted, live, persisted, "differs"), [change] if old else []


def _switches(wanted: Wanted, facts: Facts) -> tuple[dict[str, str], dict[str, str]]:
    """By state, its `disable` now and as wanted. A quick state that the kernel itself keeps off
    stays so."""
    now, want = {}, {}
    for path, text in facts.matching(_LATENCY).items():
        state = path.rpartition("/")[0]
        switch = facts.value(f"{state}/disable")
        if not switch or not text.strip().isdigit():
            continue
        now[state] = "0" if switch == "0" else "1"
        default = facts.value(f"{state}/default_status")
        off = int(text) > wanted.value or (default == "disabled" and switch != "0")
        want[state] = "1" if off else "0"
    return now, want
