"""Hardware threads: of all cores by the kernel's switch, of some by taking siblings off line."""

from __future__ import annotations

import re

from inferfleet.amounts import cpuset_cpus
from inferfleet.hostprep.facts import Facts, Look
from inferfleet.hostprep.kinds import boot
from inferfleet.hostprep.kinds.kernel.sysfs import tmpfiles_line
from inferfleet.hostprep.setting import Change, Finding, Wanted
from inferfleet.hostprep.steps import Write

SINGLE = "single-thread"
KEYS = ("smt", SINGLE)
# What the kernel's switch says where cores have one thread each.
NONE = ("notsupported", "notimplemented")
_CPU = "/sys/devices/system/cpu"
CONTROL = f"{_CPU}/smt/control"
_ONLINE = f"{_CPU}/cpu[0-9]*/online"
_SIBLINGS = f"{_CPU}/cpu[0-9]*/topology/thread_siblings_list"
# An off-line CPU has no topology, so the first of two siblings that are named stays on line.
_AT_BOOT = f"""\
single_thread() {{
  for cpu in "$@"; do
    siblings=$(cat {_CPU}/cpu$cpu/topology/thread_siblings_list 2>/dev/null) || continue
    for part in $(echo "$siblings" | tr , ' '); do
      other=${{part%-*}}
      while [ "$other" -le "${{part#*-}}" ]; do
        if [ "$other" != "$cpu" ]; then echo 0 >{_CPU}/cpu$other/online; fi
        other=$((other + 1))
      done
    done
  done
}}"""


def look() -> Look:
    """Which CPUs are on line, and which share a core."""
    present = f"{_CPU}/present"
    return Look((CONTROL, present, f"{_CPU}/online", _ONLINE, _SIBLINGS, boot.SCRIPT))


def bootlines(wanted: Wanted) -> tuple[str, ...]:
    cpus = " ".join(map(str, sorted(cpuset_cpus(str(wanted.value)))))
    return _AT_BOOT, f"try single_thread {cpus}"


def judge(wanted: Wanted, facts: Facts, tmpfiles: str) -> tuple[Finding, list[Change], str]:
    """(finding, changes, line of tmpfiles.d or ""). tmpfiles: our file as it is."""
    if wanted.key == SINGLE:
        return *_single(wanted, facts), ""
    line = tmpfiles_line(CONTROL, "on" if wanted.value else "off")
    kept = line in tmpfiles.splitlines(keepends=True)
    persisted = ("on" if wanted.value else "off") if kept else "-"
    live = facts.value(CONTROL)
    if not live:
        remedy = "the kernel does not tell of hardware threads"
        return Finding(wanted, "-", persisted, "unknown", remedy), [], line if kept else ""
    if live in (*NONE, "forceoff"):
        # Nothing can switch them on before the firmware or the command line lets it.
        verdict, remedy = ("unsupported", "") if live != "forceoff" else (
            "advice", "the kernel was started with nosmt=force: take that out")  # fmt: skip
        if not wanted.value:
            return Finding(wanted, live, persisted, "ok"), [], ""
        return Finding(wanted, live, persisted, verdict, remedy), [], ""  # type: ignore[arg-type]
    value = "on" if wanted.value else "off"
    verdict = "ok" if live == value and kept else "differs"
    finding = Finding(wanted, live, persisted, verdict)  # type: ignore[arg-type]
    if live == value:
        return finding, [], line
    change = Change((wanted.name,), f"{live} -> {value}", (Write(CONTROL, value),),
                    (Write(CONTROL, live), *_as_before(facts)))  # fmt: skip
    return finding, [change], line


def _as_before(facts: Facts) -> list[Write]:
    """The switch for all turns on what was off line one by one."""
    files = facts.matching(_ONLINE)
    return [Write(path, "0") for path, text in files.items() if text.strip() == "0"]


def _single(wanted: Wanted, facts: Facts) -> tuple[Finding, list[Change]]:
    kept = bootlines(wanted)[1] in (facts.text(boot.SCRIPT) or "").splitlines()
    persisted = str(wanted.value) if kept else "-"
    asked = cpuset_cpus(str(wanted.value))
    present = facts.value(f"{_CPU}/present")
    if not present or not facts.matching(_SIBLINGS):
        remedy = "the kernel does not tell of hardware threads"
        return Finding(wanted, "-", persisted, "unknown", remedy), []
    if missing := sorted(asked - cpuset_cpus(present)):
        remedy = f"there is no CPU {', '.join(map(str, missing))}, only {present}"
        return Finding(wanted, "-", persisted, "advice", remedy), []
    if facts.value(CONTROL) in NONE:
        return Finding(wanted, "one thread for each core", persisted, "ok"), []
    extra = _extra(asked, facts)
    fixed = [cpu for cpu in extra if f"{_CPU}/cpu{cpu}/online" not in facts.files]
    live = f"siblings {', '.join(map(str, extra))} on line" if extra else "one thread for each core"
    if fixed:
        remedy = f"CPU {fixed[0]} cannot be taken off line: name it instead of its sibling"
        return Finding(wanted, live, persisted, "unsupported", remedy), []
    if not extra:
        return Finding(wanted, live, persisted, "ok" if kept else "differs"), []
    change = Change(
        (wanted.name,),
        f"CPUs {', '.join(map(str, extra))} off line",
        tuple(Write(f"{_CPU}/cpu{cpu}/online", "0") for cpu in extra),
        tuple(Write(f"{_CPU}/cpu{cpu}/online", "1") for cpu in reversed(extra)),
    )
    return Finding(wanted, live, persisted, "differs"), [change]


def _extra(asked: frozenset[int], facts: Facts) -> list[int]:
    """Siblings that are on line and should not be; the first CPU of a core that is named stays."""
    extra: set[int] = set()
    for path, text in sorted(facts.matching(_SIBLINGS).items(), key=lambda pair: _number(pair[0])):
        cpu = _number(path)
        if cpu in asked and cpu not in extra:
            extra |= cpuset_cpus(text.strip()) - {cpu}
    online = facts.value(f"{_CPU}/online")
    return sorted(extra & cpuset_cpus(online) if online else extra)


def _number(path: str) -> int:
    found = re.search(r"/cpu([0-9]+)/", path)
    return int(found[1]) if found else -1
