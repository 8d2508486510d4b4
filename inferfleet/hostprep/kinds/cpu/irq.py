"""CPUs that take interrupts, found by a word of their name, and kept from irqbalance.

irqbalance moves every interrupt that it is not told to leave alone, and its list of banned CPUs
only keeps other interrupts away from ours: so a policy script bans ours by name, too.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from inferfleet.amounts import cpuset_cpus
from inferfleet.hostprep.facts import Facts, Look
from inferfleet.hostprep.kinds import boot
from inferfleet.hostprep.setting import Change, Finding, Ground, Judgement, Wanted
from inferfleet.hostprep.steps import PutFile, Run

INTERRUPTS = "/proc/interrupts"
AFFINITY = "/proc/irq/*/smp_affinity_list"
ONLINE = "/sys/devices/system/cpu/online"
# Numbers that refused a write since the last start; numbers change with a start, and so does /run.
REFUSED = "/run/inferbase/irq-refused"
DROP_IN = "/etc/systemd/system/irqbalance.service.d/90-inferbase.conf"
POLICY = "/usr/local/lib/inferbase/irqbalance-policy"
# Variables in these files win over those of a drop-in (Debian's and Red Hat's place).
DEFAULTS = ("/etc/default/irqbalance", "/etc/sysconfig/irqbalance")
# systemd makes these for a unit that runs (cgroup v2, v1), and this link for one that will.
SIGNS = (
    "/sys/fs/cgroup/system.slice/irqbalance.service",
    "/sys/fs/cgroup/systemd/system.slice/irqbalance.service",
    "/etc/systemd/system/multi-user.target.wants/irqbalance.service",
)
_AFTER = ("systemctl", "try-restart", "irqbalance.service")
# A managed interrupt (NVMe queues) answers EIO, EPERM or EINVAL: noted, and no failure.
_SET = (
    'if ! echo "$2" >"/proc/irq/$1/smp_affinity_list"; then '
    'mkdir -p /run/inferbase && echo "$1" >>/run/inferbase/irq-refused; fi 2>/dev/null'
)
# The name is what follows the counts; the header has no number in front.
_NAMED = """\
irq_name() {
  set -f
  set -- $1
  while [ $# -gt 0 ]; do case $1 in *[!0-9]*) break ;; esac; shift; done
  set +f
  name=$*
}
"""
_AT_BOOT = f"""\
{_NAMED}irq_cpus() {{
  while read -r number rest; do
    case $number in *[!0-9:]*) continue ;; esac
    irq_name "$rest"
    case $name in *"$1"*) ;; *) continue ;; esac
    sh -c '{_SET}' inferbase "${{number%:}}" "$2"
  done <{INTERRUPTS}
}}"""


@dataclass(frozen=True)
class Interrupt:
    """A line of /proc/interrupts: its number and what stands behind its counts."""

    number: int
    name: str


def interrupts(text: str) -> Iterator[Interrupt]:
    """The numbered lines; NMI, LOC and the like have no affinity."""
    for line in text.splitlines():
        number, colon, rest = line.partition(":")
        if colon and number.strip().isdigit():
            words = rest.split()
            while words and words[0].isdigit():
                words.pop(0)
            yield Interrupt(int(number), " ".join(words))


class Irq:
    """The kind `irq`."""

    def look(self, ground: Ground) -> Look:
        ours = (DROP_IN, POLICY)
        if not ground.of("irq"):
            return Look(ours)
        paths = (*ours, INTERRUPTS, AFFINITY, ONLINE, REFUSED, boot.SCRIPT, *DEFAULTS)
        return Look(paths, stats=(AFFINITY, *SIGNS))

    def judge(self, ground: Ground, facts: Facts) -> Judgement:
        settings = ground.of("irq")
        there = [wanted for wanted in settings if not _missing_cpus(wanted, facts)]
        balanced = bool(there) and any(sign in facts.stats for sign in SIGNS)
        files = (
            PutFile(POLICY, _policy(there) if balanced else None, 0o755, after=_AFTER, reload=True),
            PutFile(DROP_IN, _drop_in(there) if balanced else None, after=_AFTER, reload=True),
        )
        kept = not balanced or all(facts.text(file.path) == file.content for file in files)
        findings = [_finding(wanted, facts, kept, balanced) for wanted in settings]
        changes = [change for wanted in there for change in _changes(wanted, facts)]
        return Judgement(tuple(findings), files, tuple(changes))

    def bootlines(self, ground: Ground, facts: Facts) -> tuple[str, ...]:
        """Interrupts get their CPUs again, by name: their numbers may be others then."""
        there = [wanted for wanted in ground.of("irq") if not _missing_cpus(wanted, facts)]
        lines = tuple(_boot_line(wanted) for wanted in there)
        return (_AT_BOOT, *lines) if lines else ()


def _finding(wanted: Wanted, facts: Facts, kept: bool, balanced: bool) -> Finding:
    missing = _missing_cpus(wanted, facts)
    if missing:
        return Finding(wanted, "-", "-", "unsupported", missing)
    found = _affinities(wanted, facts)
    at_boot = _boot_line(wanted) in (facts.text(boot.SCRIPT) or "").splitlines()
    persisted = str(wanted.value) if at_boot else "-"
    if INTERRUPTS not in facts.files:
        return Finding(wanted, "-", persisted, "unknown", f"{INTERRUPTS} cannot be read")
    named = [one for one in interrupts(facts.text(INTERRUPTS) or "") if wanted.key in one.name]
    if not named:
        remedy = f"no interrupt has {wanted.key} in its name: load the driver that it belongs to"
        return Finding(wanted, "-", persisted, "absent", remedy)
    refused = _refused(facts)
    free = {number: cpus for number, cpus in found.items() if number not in refused}
    live = ", ".join(dict.fromkeys(free.values()))
    fixed = sorted(one.number for one in named if one.number in refused)
    if fixed:
        live += f"{' ' if live else ''}(the kernel decides for {', '.join(map(str, fixed))})"
    if not free:
        return Finding(wanted, live or "-", persisted, "unsupported",
                       "the kernel lets nobody move these interrupts")  # fmt: skip
    for path in DEFAULTS if balanced else ():
        if name := _overrides(facts.text(path) or ""):
            remedy = f"{path} sets {name}, which wins over {DROP_IN}: take that line out"
            return Finding(wanted, live, persisted, "overridden", remedy)
    good = all(_same(cpus, str(wanted.value)) for cpus in free.values()) and at_boot and kept
    return Finding(wanted, live, persisted, "ok" if good else "differs")


def _changes(wanted: Wanted, facts: Facts) -> Iterator[Change]:
    value, refused = str(wanted.value), _refused(facts)
    old = {
        number: cpus
        for number, cpus in _affinities(wanted, facts).items()
        if number not in refused and not _same(cpus, value)
    }
    if old:
        words = ", ".join(dict.fromkeys(old.values()))
        count = f" ({len(old)} interrupts)" if len(old) > 1 else ""
        yield Change(
            (wanted.name,),
            f"{words} -> {value}{count}",
            tuple(_set(number, value) for number in old),
            tuple(_set(number, cpus) for number, cpus in old.items()),
        )


def _set(number: int, cpus: str) -> Run:
    return Run(("sh", "-c", _SET, "inferbase", str(number), cpus), quiet=True)


def _affinities(wanted: Wanted, facts: Facts) -> dict[int, str]:
    """CPUs by number, of the interrupts of this name that have an affinity."""
    found = {}
    for one in interrupts(facts.text(INTERRUPTS) or ""):
        cpus = facts.value(AFFINITY.replace("*", str(one.number)))
        if wanted.key in one.name and cpus:
            found[one.number] = cpus
    return found


def _refused(facts: Facts) -> frozenset[int]:
    """Interrupts that refused a write, or whose file newer kernels (6.11) let nobody write."""
    numbers = {int(word) for word in (facts.text(REFUSED) or "").split() if word.isdigit()}
    for path, stat in facts.stats.items():
        parts = path.split("/")
        if path.startswith("/proc/irq/") and parts[3].isdigit() and stat.mode == "444":
            numbers.add(int(parts[3]))
    return frozenset(numbers)


def _missing_cpus(wanted: Wanted, facts: Facts) -> str:
    """Why no interrupt can go there, "" when one can."""
    online = facts.value(ONLINE)
    if not online or cpuset_cpus(str(wanted.value)) & cpuset_cpus(online):
        return ""
    return f"none of the CPUs {wanted.value} is there, only {online}"


def _same(one: str, other: str) -> bool:
    try:
        return cpuset_cpus(one) == cpuset_cpus(other)
    except ValueError:
        return False


def _boot_line(wanted: Wanted) -> str:
    return f"try irq_cpus {shlex.quote(wanted.key)} {shlex.quote(str(wanted.value))}"


def _policy(settings: list[Wanted]) -> str:
    cases = "\n".join(f"  *{shlex.quote(wanted.key)}*) echo ban=true ;;" for wanted in settings)
    return f"""\
#!/bin/sh
# Made by inferbase: irqbalance asks this for each interrupt (device, number) what to do with it.
{_NAMED}while read -r number rest; do
  [ "$number" = "$2:" ] || continue
  irq_name "$rest"
  case $name in
{cases}
  esac
done <{INTERRUPTS}
exit 0
"""


def _drop_in(settings: list[Wanted]) -> str:
    cpus = sorted(set().union(*(cpuset_cpus(str(wanted.value)) for wanted in settings)))
    return (
        "# Made by inferbase; `invoke hostprep.rollback` takes it away.\n[Service]\n"
        f"Environment=IRQBALANCE_BANNED_CPULIST={','.join(map(str, cpus))}\n"
        f"Environment=IRQBALANCE_ARGS=--policyscript={POLICY}\n"
    )


def _overrides(text: str) -> str:
    values: Mapping[str, str] = {
        name.strip(): value.strip(" \"'")
        for name, equals, value in (line.partition("=") for line in text.splitlines())
        if equals and not name.lstrip().startswith(("#", ";"))
    }
    names = ("IRQBALANCE_BANNED_CPULIST", "IRQBALANCE_ARGS")
    return next((name for name in names if values.get(name)), "")
