"""Kernel modules: loaded now and at every start, or kept from being loaded."""

from __future__ import annotations

from collections.abc import Sequence

from inferfleet.hostprep.facts import Facts, Look
from inferfleet.hostprep.kinds import back
from inferfleet.hostprep.kinds.kernel import modprobe
from inferfleet.hostprep.kinds.kernel.modprobe import plain
from inferfleet.hostprep.kinds.kernel.sysfs import HEAD
from inferfleet.hostprep.setting import Change, Finding, Ground, Judgement, Wanted
from inferfleet.hostprep.steps import PutFile, Run

LOAD = "/etc/modules-load.d/90-inferbase.conf"
BLOCK = "/etc/modprobe.d/90-inferbase-blocked.conf"
_NEVER = ("/bin/true", "/bin/false", "/usr/bin/true", "/usr/bin/false")


class Modules:
    """The kind `modules`. A blocked module that is in use goes with the next start."""

    def look(self, ground: Ground) -> Look:
        own = (LOAD, BLOCK, modprobe.LOADED)
        if not ground.of("modules"):
            return Look(own)
        return Look(
            (*own, modprobe.RELEASE, modprobe.BUILT_IN, *modprobe.CONFIGS),
            modprobe.probe(ground),
            tuple(modprobe.IMAGE_TOOLS),
        )

    def judge(self, ground: Ground, facts: Facts) -> Judgement:
        findings = [_finding(wanted, facts) for wanted in ground.of("modules")]
        ours = [f.wanted for f in findings if f.verdict not in ("absent", "unknown", "advice")]
        # What was kept once stays so while it cannot be told.
        kept = [f.wanted for f in findings if f.wanted in ours or f.persisted != "-"]
        load = [wanted.key for wanted in kept if wanted.value == "loaded"]
        block = [wanted.key for wanted in kept if wanted.value == "blocked"]
        stuck = [name for name in block if modprobe.users(facts).get(plain(name), 0) != 0]
        reboot = f"{', '.join(stuck)} stays loaded until then" if stuck else ""
        files = (
            PutFile(LOAD, _text(load, "{}")),
            PutFile(BLOCK, _text(block, "blacklist {0}\ninstall {0} /bin/false"),
                    after=modprobe.image_tool(facts), reboot=reboot),
        )  # fmt: skip
        return Judgement(tuple(findings), files, (*_loads(ours, facts), *_unloads(ours, facts)))


def _finding(wanted: Wanted, facts: Facts) -> Finding:
    name = plain(wanted.key)
    loaded, built_in = name in modprobe.users(facts), name in modprobe.built_in(facts)
    live = "loaded" if loaded else "built in" if built_in else "not loaded"
    if wanted.value == "blocked":
        kept = f"blacklist {wanted.key}" in (facts.text(BLOCK) or "").splitlines()
        persisted = "blocked" if kept else "-"
        if built_in:
            remedy = "it is part of the kernel, which no file can keep from using it"
            return Finding(wanted, live, persisted, "advice", remedy)
        if loaded and kept and modprobe.users(facts)[name]:
            return Finding(wanted, live, persisted, "pending", "it is in use until the next start")
        return Finding(wanted, live, persisted, "ok" if kept and not loaded else "differs")
    kept = wanted.key in (facts.text(LOAD) or "").splitlines()
    persisted = "loaded" if kept else "-"
    answer = facts.probe(modprobe.PROBE)
    if not loaded and not built_in:
        if answer.exit is None:
            return Finding(wanted, live, persisted, "unknown", "there is no modprobe: install kmod")
        if _not_found(wanted.key, answer.out):
            remedy = "the running kernel has no such module: install the package that brings it"
            return Finding(wanted, live, persisted, "absent", remedy)
    for line in modprobe.lines(facts):
        if line.module == name and line.path != BLOCK and _blocks(line):
            remedy = f"{line.path} blocks it ({line.command}): take that line out"
            return Finding(wanted, live, persisted, "overridden", remedy)
    good = kept and (loaded or built_in)
    return Finding(wanted, live, persisted, "ok" if good else "differs")


def _blocks(line: modprobe.Line) -> bool:
    return line.command == "blacklist" or (
        line.command == "install" and line.rest.split(" ")[0] in _NEVER
    )


def _not_found(name: str, out: str) -> bool:
    return any(f"Module {one} not found" in out for one in (name, plain(name)))


def _loads(settings: Sequence[Wanted], facts: Facts) -> list[Change]:
    there = modprobe.users(facts).keys() | modprobe.built_in(facts)
    missing = [w for w in settings if w.value == "loaded" and plain(w.key) not in there]
    if not missing:
        return []
    names = [wanted.key for wanted in missing]
    # What comes with them, as the dry run told; none of that was there before.
    new = [name for name in modprobe.inserted(facts) if name not in there]
    new += [plain(name) for name in names if plain(name) not in new]
    do = Run(("modprobe", "-a", "--", *names))
    undo = back.unload(reversed(new))
    return [Change(tuple(w.name for w in missing), "not loaded -> loaded", (do,), (undo,))]


def _unloads(settings: Sequence[Wanted], facts: Facts) -> list[Change]:
    users = modprobe.users(facts)
    free = [w for w in settings if w.value == "blocked" and users.get(plain(w.key)) == 0]
    return [
        Change(
            (wanted.name,),
            "loaded -> not loaded",
            (Run(("rmmod", "--", plain(wanted.key))),),
            # The file that keeps it from being loaded is still there when this runs.
            (Run(("modprobe", "--ignore-install", "--", plain(wanted.key))),),
        )
        for wanted in free
    ]


def _text(names: Sequence[str], line: str) -> str | None:
    return HEAD + "".join(line.format(name) + "\n" for name in names) if names else None
