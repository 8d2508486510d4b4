"""A machine in memory for kinds of settings: it answers looks, takes steps, and goes back."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from inferfleet.hostprep.facts import Answer, Facts, Look, Stat, matches
from inferfleet.hostprep.judge import Prepared, do_steps, judge, look_for
from inferfleet.hostprep.kinds import back
from inferfleet.hostprep.setting import Ground, Kind, Wanted
from inferfleet.hostprep.steps import PutFile, Restore, Run, Step, Write

SYSTEM = "/etc/systemd/system"


def ground(**kinds: Mapping[str, Any]) -> Ground:
    """module_options={"kvm": "x=1"} and so on, as if a profile had asked for it."""
    return Ground(
        tuple(
            Wanted(kind.replace("_", "-"), key, value, "a reason")
            for kind, settings in kinds.items()
            for key, value in settings.items()
        )
    )


@dataclass
class Machine:
    """Everything that steps can change is state; `programs` are what can be run and what is
    refused: argv as a line -> True, or the words with which it fails."""

    files: dict[str, str] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    kinds: dict[str, str] = field(default_factory=dict)  # path -> kind, of what is no plain file
    modes: dict[str, str] = field(default_factory=dict)
    units: dict[str, dict[str, str]] = field(default_factory=dict)
    available: dict[str, list[str]] = field(default_factory=dict)  # module -> those it needs
    defaults: dict[str, str] = field(default_factory=dict)  # of systemd's manager
    synchronized: str | None = None
    chrony: str | None = None
    absent: set[str] = field(default_factory=set)  # programs that are not there
    ran: list[str] = field(default_factory=list)
    kept: dict[str, str | None] = field(default_factory=dict)

    def state(self) -> Any:
        """All that an undo must bring back."""
        return copy.deepcopy((self.files, self.kinds, self.modes, self.units))

    def clean(self) -> None:
        """Forget what masks hide, which is nothing when no mask is there."""
        for unit in self.units.values():
            unit.pop("hidden", None)

    def facts(self, look: Look) -> Facts:
        """Only what the look asks for."""
        files = {
            path: text
            for path, text in self.files.items()
            if path not in self.closed and any(_found(path, pattern) for pattern in look.paths)
        }
        closed = {path for path in self.closed if any(_found(path, one) for one in look.paths)}
        there = dict.fromkeys(self.files, "regular file") | self.kinds
        stats = {
            path: Stat(kind, self.modes.get(path, "644"), "root", "root", "1")
            for path, kind in there.items()
            if any(_found(path, pattern) for pattern in look.stats)
        }
        probes = {name: self.answer(argv) for name, argv in look.probes.items()}
        return Facts(files, frozenset(closed), probes, stats)

    def facts_of(self) -> Facts:
        """All files, as no look would ask for them."""
        return Facts(dict(self.files))

    def answer(self, argv: tuple[str, ...]) -> Answer:
        if argv[0] in self.absent:
            return Answer(None, "")
        match argv:
            case ("systemctl", "show", "--no-pager", wanted) if "DefaultLimit" in wanted:
                return Answer(
                    0, "".join(f"{key}={value}\n" for key, value in self.defaults.items())
                )
            case ("systemctl", "show", *rest):
                return Answer(0, "\n\n".join(self._shown(rest[rest.index("--") + 1 :])))
            case ("modprobe", "-a", "-n", "-v", "--", *names):
                return self._dry_run(names)
            case ("timedatectl", *_) if self.synchronized:
                return Answer(0, f"NTPSynchronized={self.synchronized}")
            case ("chronyc", *_) if self.chrony:
                return Answer(0, self.chrony)
        return Answer(None, "")

    def unit(
        self, name: str, active: str = "active", enabled: str = "enabled", **more: str
    ) -> None:
        folder = SYSTEM if enabled.startswith("masked") else "/lib/systemd/system"
        self.kinds[f"/lib/systemd/system/{name}"] = "regular file"
        load = "masked" if enabled.startswith("masked") else "loaded"
        self.units[name] = {
            "Id": name, "Names": name, "LoadState": load, "ActiveState": active,
            "UnitFileState": enabled, "FragmentPath": f"{folder}/{name}", **more,
        }  # fmt: skip

    def take(self, steps: tuple[Step, ...] | list[Step]) -> None:
        """Do the steps; a program that is not known fails the test."""
        for step in steps:
            match step:
                case PutFile(path, content):
                    assert path not in self.kinds, f"{path} is no file"
                    self.kept.setdefault(path, self.files.get(path))
                    self._have(path, content)
                case Restore(path):
                    self._have(path, self.kept.get(path, self.files.get(path)))
                case Write(path, value):
                    assert path in self.files, path
                    self.write(path, value)
                case Run(argv):
                    self.ran.append(shlex.join(argv))
                    self.run(argv)

    def write(self, path: str, value: str) -> None:
        """Tests replace it where the kernel does more, or refuses."""
        self.files[path] = f"{value}\n"

    def run(self, argv: tuple[str, ...]) -> None:
        match argv:
            case ("systemctl", "--quiet", verb, *words):
                self._systemctl(verb, words)
            case ("systemctl", "daemon-reload" | "daemon-reexec") | ("update-initramfs", "-u"):
                pass
            case ("chmod", mode, "--", path):
                self.modes[path] = mode.lstrip("0")
            case ("mkdir", "-p", "--", path):
                while path:
                    self.kinds.setdefault(path, "directory")
                    path = path.rpartition("/")[0]
            case ("sh", "-c", back.RMDIR, _, *paths):
                for path in paths:
                    assert self.kinds.pop(path, "directory") == "directory"
            case ("sh", "-c", back.UNLOAD, _, *names):
                for name in names:
                    if name in self._modules():
                        self._unload(name)
            case ("ln", "-sfn", _, link):
                self.files[link] = "link\n"
            case ("rm", "-f", link):
                self.files.pop(link, None)
            case ("modprobe", "-a" | "--ignore-install", "--", *names):
                for name in names:
                    self._load(name.replace("-", "_"))
            case ("rmmod", "--", *names):
                for name in names:
                    self._unload(name)
            case _:
                raise AssertionError(f"no such program: {shlex.join(argv)}")

    def _have(self, path: str, content: str | None) -> None:
        if content is None:
            self.files.pop(path, None)
        else:
            self.files[path] = content

    def _shown(self, names: list[str]) -> list[str]:
        blocks = []
        for name in names:
            if "*" in name:
                blocks += [unit for one, unit in self.units.items() if one.endswith(name[1:])]
                continue
            found = [unit for unit in self.units.values() if name in unit["Names"].split()]
            missing = {"Id": name, "Names": name, "LoadState": "not-found",
                       "ActiveState": "inactive", "UnitFileState": ""}  # fmt: skip
            if f"{SYSTEM}/{name}" in self.files:
                missing |= {"LoadState": "loaded", "FragmentPath": f"{SYSTEM}/{name}"}
            blocks.append(found[0] if found else missing)
        return ["\n".join(f"{key}={value}" for key, value in unit.items()) for unit in blocks]

    def _systemctl(self, verb: str, words: list[str]) -> None:
        runtime, name = "--runtime" in words, words[-1]
        if name not in self.units and name.endswith(".mount"):
            return self.mount(name, verb)
        unit = self.units[name]
        if verb in ("start", "stop"):
            assert verb == "stop" or unit["LoadState"] == "loaded", f"{name} is masked"
            unit["ActiveState"] = "active" if verb == "start" else "inactive"
            return None
        hidden = unit.setdefault("hidden", unit["UnitFileState"])
        if verb in ("enable", "disable"):
            unit["UnitFileState"] = ("enabled" if verb == "enable" else "disabled") + (
                "-runtime" if runtime and verb == "enable" else "")  # fmt: skip
        elif verb == "mask":
            unit.update(hidden=unit["UnitFileState"], UnitFileState="masked", LoadState="masked")
        elif verb == "unmask":
            below = "disabled" if hidden == "masked" else hidden
            unit.update(UnitFileState=below, LoadState="loaded")
        return None

    def mount(self, unit: str, verb: str) -> None:
        raise AssertionError(f"nothing is mounted here: {unit} {verb}")

    def _modules(self) -> dict[str, str]:
        lines = self.files.get("/proc/modules", "").splitlines()
        return {line.split()[0]: line for line in lines}

    def _load(self, name: str) -> None:
        for needed in (*self.available[name], name):
            if needed not in self._modules():
                self.files["/proc/modules"] += f"{needed} 16384 0 - Live 0x0\n"

    def _unload(self, name: str) -> None:
        line = self._modules()[name]
        assert line.split()[2] == "0", f"{name} is in use"
        self.files["/proc/modules"] = self.files["/proc/modules"].replace(f"{line}\n", "")

    def _dry_run(self, names: list[str]) -> Answer:
        lines, missing = [], False
        for name in (one.replace("-", "_") for one in names):
            if name in self._modules():
                continue
            if name not in self.available:
                missing = True
                lines.append(
                    f"modprobe: WARNING: Module {name} not found in directory /lib/modules/x"
                )
                continue
            new = [n for n in (*self.available[name], name) if n not in self._modules()]
            lines += [f"insmod /lib/modules/x/kernel/net/{one}.ko.xz " for one in new]
        return Answer(int(missing), "\n".join(lines))


@dataclass
class Trip:
    """A run there and back. before, after: judged at both times."""

    before: Prepared
    after: Prepared

    def verdicts(self) -> dict[str, str]:
        return {finding.wanted.name: finding.verdict for finding in self.after.findings}


def see(machine: Machine, kind: Kind, wanted: Ground) -> Prepared:
    """One look, judged."""
    kinds = {"kind": kind}
    return judge(wanted, machine.facts(look_for(wanted, kinds)), kinds)


def verdicts(machine: Machine, kind: Kind, wanted: Ground) -> dict[str, str]:
    return {finding.wanted.name: finding.verdict for finding in see(machine, kind, wanted).findings}


def apply(machine: Machine, kind: Kind, wanted: Ground) -> Trip:
    """Make the changes; a second run must find nothing to change."""
    before = see(machine, kind, wanted)
    machine.kept.clear()
    for _, steps in do_steps(before.files, before.changes):
        machine.take(steps)
    after = see(machine, kind, wanted)
    assert after.changes == (), "a second run would change something"
    return Trip(before, after)


def there_and_back(machine: Machine, kind: Kind, wanted: Ground) -> Trip:
    """apply, then undo, which must bring back all that was."""
    state = machine.state()
    # A run that was cut off before it did anything is undone, too.
    machine.kept.clear()
    machine.take(see(machine, kind, wanted).undo)
    machine.clean()
    assert machine.state() == state, "an undo of nothing changed something"
    machine.ran.clear()
    trip = apply(machine, kind, wanted)
    assert machine.state() != state, "nothing was changed"
    machine.take(trip.before.undo)
    machine.clean()
    assert machine.state() == state
    return trip


def _found(path: str, pattern: str) -> bool:
    return path == pattern or matches(path, pattern)
