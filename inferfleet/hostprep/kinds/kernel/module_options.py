"""Options of kernel modules: a modprobe.d file that is read last, written live where possible."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from inferfleet.hostprep.facts import Facts, Look
from inferfleet.hostprep.kinds.kernel import modprobe
from inferfleet.hostprep.kinds.kernel.modprobe import plain
from inferfleet.hostprep.kinds.kernel.sysfs import HEAD
from inferfleet.hostprep.setting import Change, Finding, Ground, Judgement, Wanted
from inferfleet.hostprep.steps import PutFile, Write

# The last value of an option counts, and distributions name theirs after packages.
OURS = "/etc/modprobe.d/zz-inferbase-options.conf"
COMMAND_LINE = "/proc/cmdline"
# nvidia keeps its parameters from /sys; their names there have no NVreg_ in front.
NVIDIA = "/proc/driver/nvidia/params"
_SAME = {"Y": "1", "y": "1", "N": "0", "n": "0"}


class ModuleOptions:
    """The kind `module-options`. A module takes most options only when it is loaded."""

    def look(self, ground: Ground) -> Look:
        settings = ground.of("module-options")
        if not settings:
            return Look((OURS,))
        folders = [f"/sys/module/{plain(wanted.key)}/parameters/*" for wanted in settings]
        paths = (OURS, COMMAND_LINE, modprobe.LOADED, NVIDIA, *modprobe.CONFIGS, *folders)
        return Look(paths, stats=(*folders, *modprobe.IMAGE_TOOLS))

    def judge(self, ground: Ground, facts: Facts) -> Judgement:
        settings = ground.of("module-options")
        late = [w.key for w in settings if _live(w, facts)[1] and not _writable(w, facts)]
        reboot = f"{', '.join(late)} takes its options when it is loaded" if late else ""
        text = HEAD + "".join(f"{_line(w)}\n" for w in settings) if settings else None
        file = PutFile(OURS, text, after=modprobe.image_tool(facts), reboot=reboot)
        findings = tuple(_finding(wanted, facts) for wanted in settings)
        return Judgement(findings, (file,), tuple(_changes(settings, facts)))


def options(text: str) -> dict[str, str]:
    """name=value words of an options line; a name alone is a switch."""
    pairs = (word.partition("=") for word in text.split())
    return {plain(name): value if equals else "1" for name, equals, value in pairs}


def _finding(wanted: Wanted, facts: Facts) -> Finding:
    kept = _line(wanted) in (facts.text(OURS) or "").splitlines()
    persisted = str(wanted.value) if kept else "-"
    values, wrong = _live(wanted, facts)
    live = " ".join(f"{name}={value}" for name, value in values.items()) or "-"
    if plain(wanted.key) not in modprobe.users(facts) and not values:
        live = "not loaded"
    if later := _later(wanted, facts):
        remedy = f"{later} sets other options of it later: take that out"
        return Finding(wanted, live, persisted, "overridden", remedy)
    if kept and wrong and not _writable(wanted, facts):
        remedy = f"{wanted.key} takes {', '.join(wrong)} when it is loaded, with the next start"
        return Finding(wanted, live, persisted, "pending", remedy)
    return Finding(wanted, live, persisted, "ok" if kept and not wrong else "differs")


def _live(wanted: Wanted, facts: Facts) -> tuple[dict[str, str], list[str]]:
    """Values in force of the options named, as far as they can be seen; names that differ."""
    text = facts.text(NVIDIA) if plain(wanted.key) == "nvidia" else None
    params = dict(line.partition(": ")[::2] for line in (text or "").splitlines())
    values, wrong = {}, []
    for name, value in options(str(wanted.value)).items():
        found = facts.value(_path(wanted, name)) or params.get(name.removeprefix("NVreg_"))
        if found is not None and found != "":
            values[name] = found
            if _plain(found) != _plain(value):
                wrong.append(name)
    return values, wrong


def _writable(wanted: Wanted, facts: Facts) -> bool:
    """Whether all options that differ can be changed in the loaded module."""
    stats = [facts.stats.get(_path(wanted, name)) for name in _live(wanted, facts)[1]]
    return all(stat is not None and int(stat.mode, 8) & 0o200 for stat in stats)


def _changes(settings: Sequence[Wanted], facts: Facts) -> Iterator[Change]:
    for wanted in settings:
        values, wrong = _live(wanted, facts)
        if not wrong or not _writable(wanted, facts):
            continue
        new: Mapping[str, str] = options(str(wanted.value))
        yield Change(
            (wanted.name,),
            ", ".join(f"{name} {values[name]} -> {new[name]}" for name in wrong),
            tuple(Write(_path(wanted, name), new[name]) for name in wrong),
            tuple(Write(_path(wanted, name), values[name]) for name in reversed(wrong)),
        )


def _later(wanted: Wanted, facts: Facts) -> str:
    """What sets an option to another value after our file, "" for nothing."""
    module, ours = plain(wanted.key), options(str(wanted.value))
    for line in modprobe.lines(facts):
        later = line.path.rpartition("/")[2] > OURS.rpartition("/")[2]
        if later and line.command == "options" and line.module == module:
            given = options(line.rest)
            if any(_plain(given.get(name, ours[name])) != _plain(ours[name]) for name in ours):
                return line.path
    for word in (facts.text(COMMAND_LINE) or "").split():
        name, equals, value = word.partition("=")
        owner, dot, option = name.partition(".")
        value = value if equals else "1"
        if (
            dot
            and plain(owner) == module
            and _plain(value) != _plain(ours.get(plain(option), value))
        ):
            return f"the kernel command line ({word})"
    return ""


def _line(wanted: Wanted) -> str:
    return f"options {wanted.key} {wanted.value}"


def _path(wanted: Wanted, option: str) -> str:
    return f"/sys/module/{plain(wanted.key)}/parameters/{option}"


def _plain(value: str) -> str:
    value = value.strip("\"'")
    return _SAME.get(value, value)
