"""systemd units as one `systemctl show` tells of them, and the steps that change their state."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from inferfleet.hostprep.facts import Facts, matches
from inferfleet.hostprep.setting import Ground
from inferfleet.hostprep.steps import Run, Step

PROBE = "units"
FOLDER = "/etc/systemd/system"
# Programs that set governors and idle states themselves.
CPU_TOOLS = ("auto-cpufreq.service", "cpufrequtils.service", "cpupower.service",
             "ondemand.service", "power-profiles-daemon.service", "tlp.service",
             "tuned.service")  # fmt: skip
# Programs that keep the clock, the one to start when none does first.
CLOCKS = ("systemd-timesyncd.service", "chronyd.service", "chrony.service", "ntpsec.service",
          "ntpd.service", "ntp.service", "openntpd.service")  # fmt: skip
# Programs that make swap space at a start without a .swap unit.
SWAP_TOOLS = ("dphys-swapfile.service", "nvzramconfig.service", "swapspace.service",
              "zram-config.service", "zram-swap.service", "zramswap.service")  # fmt: skip
_SETS = {"cpu": CPU_TOOLS, "time": CLOCKS, "swap": (*SWAP_TOOLS, "*.swap")}
_PROPERTIES = (
    "Id,Names,LoadState,ActiveState,UnitFileState,FragmentPath,Type,Result,"
    "ExecMainStartTimestampMonotonic,ActiveEnterTimestampMonotonic"
)
# Where a masked unit's own file may lie.
_HIDDEN = ("/usr/lib/systemd/system", "/usr/local/lib/systemd/system", "/lib/systemd/system")
_ACTIVE = frozenset({"active", "reloading", "activating", "refreshing"})
# Nothing has to be enabled: it is, or other units and generators start it.
_STARTED = frozenset({"enabled", "alias", "static", "indirect", "generated"})
_KEPT = re.compile(r"[A-Za-z0-9:_.]")


@dataclass(frozen=True)
class Unit:
    """What systemd knows of a unit: its own name, all names, LoadState, ActiveState,
    UnitFileState, file, Type and Result of a service, microseconds after the start of the machine
    when its program was last started (0: never) and when it became active."""

    name: str
    names: frozenset[str]
    load: str
    active: str
    enabled: str
    file: str
    type: str = ""
    result: str = ""
    started: int = 0
    since: int = 0

    @property
    def there(self) -> bool:
        return self.load != "not-found"

    @property
    def running(self) -> bool:
        return self.active in _ACTIVE

    @property
    def masked(self) -> bool:
        return self.enabled in ("masked", "masked-runtime") or self.load == "masked"

    @property
    def starts(self) -> bool:
        """Whether the next start of the machine starts it, as far as it is for it to say."""
        return self.enabled in _STARTED

    @property
    def did_its_work(self) -> bool:
        """A oneshot service that ran well and has nothing left to run."""
        return self.type == "oneshot" and self.result == "success" and self.started > 0


def mount_unit(path: str) -> str:
    """The unit name that systemd demands for a mount point (systemd.unit(5), string escaping)."""
    parts = [part for part in path.split("/") if part]
    text = "".join(_escape(char) for char in "/".join(parts))
    return (f"\\x2e{text[1:]}" if text.startswith(".") else text or "-") + ".mount"


def probe(ground: Ground) -> dict[str, tuple[str, ...]]:
    """One probe for the units of all kinds of settings; the same for each kind that asks."""
    names = [wanted.key for wanted in ground.of("units")]
    names += [mount_unit(wanted.key) for wanted in ground.of("mounts")]
    for kind, units in _SETS.items():
        names += units if ground.of(kind) else ()
    if not names:
        return {}
    argv = ("systemctl", "show", "--no-pager", f"--property={_PROPERTIES}", "--")
    return {PROBE: (*argv, *sorted(set(names)))}


def units(facts: Facts) -> Mapping[str, Unit] | None:
    """Units by each of their names; None where systemd does not answer."""
    answer = facts.probe(PROBE)
    if not answer.good:
        return None
    found: dict[str, Unit] = {}
    for block in re.split(r"\n\n+", answer.out.strip("\n")):
        pairs = dict(line.partition("=")[::2] for line in block.split("\n"))
        if not pairs.get("Id"):
            continue
        names = frozenset({pairs["Id"], *_words(pairs.get("Names", ""))})
        unit = Unit(
            pairs["Id"], names, pairs.get("LoadState", ""), pairs.get("ActiveState", ""),
            pairs.get("UnitFileState", ""), pairs.get("FragmentPath", ""), pairs.get("Type", ""),
            pairs.get("Result", ""), _number(pairs, "ExecMainStartTimestampMonotonic"),
            _number(pairs, "ActiveEnterTimestampMonotonic"),
        )  # fmt: skip
        found |= dict.fromkeys(names, unit)
    return found


def links(name: str) -> tuple[str, str]:
    """Patterns of the links that enable a unit; in a look's stats they tell what a mask hides."""
    return f"{FOLDER}/*.wants/{name}", f"{FOLDER}/*.requires/{name}"


def stats(name: str) -> tuple[str, ...]:
    """What a look needs besides the probe for `start` and `installed`."""
    return (*links(name), *(f"{folder}/{name}" for folder in _HIDDEN))


def installed(unit: Unit, facts: Facts) -> bool:
    """Whether there is a unit: a mask may hide that there is none."""
    hidden = (f"{folder}/{name}" for folder in _HIDDEN for name in unit.names)
    return unit.there and (not unit.masked or any(path in facts.stats for path in hidden))


def start(unit: Unit, facts: Facts) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """(do, undo): it runs, now and at every start."""
    do: list[Step] = []
    undo: list[Step] = []
    if unit.masked:
        runtime = ("--runtime",) if unit.enabled == "masked-runtime" else ()
        do.append(_systemctl("unmask", *runtime, unit.name))
        undo.append(_systemctl("mask", *runtime, unit.name))
    linked = any(matches(path, one) for path in facts.stats for one in links(unit.name))
    if not unit.starts and not (unit.masked and linked):
        do.append(_systemctl("enable", unit.name))
        undo.insert(0, _systemctl("disable", unit.name))
    if not unit.running and not unit.did_its_work:
        do.append(_systemctl("start", unit.name))
        undo.insert(0, _systemctl("stop", unit.name))
    return tuple(do), tuple(undo)


def stop(unit: Unit) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """(do, undo): it does not run, and no start of the machine enables it."""
    do: list[Step] = []
    undo: list[Step] = []
    if unit.enabled in ("enabled", "enabled-runtime"):
        runtime = ("--runtime",) if unit.enabled == "enabled-runtime" else ()
        do.append(_systemctl("disable", *runtime, unit.name))
        undo.append(_systemctl("enable", *runtime, unit.name))
    return _with_stop(unit, do, undo)


def mask(unit: Unit) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """(do, undo): it does not run, and nothing can start it."""
    do: list[Step] = []
    undo: list[Step] = []
    if unit.enabled != "masked":
        do.append(_systemctl("mask", unit.name))
        undo.append(_systemctl("unmask", unit.name))
    return _with_stop(unit, do, undo)


def _with_stop(
    unit: Unit, do: list[Step], undo: list[Step]
) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    if unit.running:
        do.append(_systemctl("stop", unit.name))
        undo.append(_systemctl("start", unit.name))
    return tuple(do), tuple(undo)


def _systemctl(*words: str) -> Run:
    return Run(("systemctl", "--quiet", *words))


def _words(text: str) -> list[str]:
    """Words of a list, which systemctl quotes as sh does where a name has a backslash."""
    try:
        return shlex.split(text)
    except ValueError:
        return []


def _number(pairs: Mapping[str, str], key: str) -> int:
    text = pairs.get(key, "")
    return int(text) if text.isdigit() else 0


def _escape(char: str) -> str:
    if char == "/":
        return "-"
    if _KEPT.fullmatch(char):
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode())
