"""Ground and Facts to a Prepared: findings for people, changes in their order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from inferfleet.hostprep.facts import Facts, Look, join
from inferfleet.hostprep.kinds import boot
from inferfleet.hostprep.setting import WRONG, Change, Finding, Ground, Judgement, Kind
from inferfleet.hostprep.steps import PutFile, Restore, Run, Step

_KERNEL = ("/proc/", "/sys/")


@runtime_checkable
class AtBoot(Protocol):
    """A kind some of whose settings are lost by a reboot."""

    def bootlines(self, ground: Ground, facts: Facts) -> tuple[str, ...]:
        """Lines of sh, each `try PROGRAM ARGUMENT...`, that set them again."""


@dataclass(frozen=True)
class Prepared:
    """What a machine is and what would change. findings: in the order of kinds and keys.
    changes: in the order in which they are made; old: path -> text of files that change."""

    findings: tuple[Finding, ...]
    changes: tuple[Change, ...]
    files: tuple[PutFile, ...]
    old: Mapping[str, str | None]

    @property
    def wrong(self) -> bool:
        """Whether anything is not as wanted, as far as can be told."""
        return any(finding.verdict in WRONG for finding in self.findings) or bool(self.changes)

    @property
    def undo(self) -> tuple[Step, ...]:
        """Everything back as it was, in the order in which that must happen."""
        return undo_steps(self.files, self.changes)


def look_for(ground: Ground, kinds: Mapping[str, Kind]) -> Look:
    """Everything that has to be asked of a machine in one look."""
    looks = [kind.look(ground) for kind in kinds.values()]
    state = ("*/record.json", "journal", "undone")
    own = Look((*(f"{ground.state}/{name}" for name in state), "/proc/modules"))
    found = join([*looks, boot.look(), own])
    ours = [path for path in found.paths if not path.startswith(_KERNEL) and "*" not in path]
    return Look(found.paths, found.probes, tuple(dict.fromkeys((*found.stats, *ours))))


def judge(ground: Ground, facts: Facts, kinds: Mapping[str, Kind]) -> Prepared:
    """Compare what is wanted with what was found."""
    answers = [kind.judge(ground, facts) for kind in kinds.values()]
    lines = [
        line
        for kind in kinds.values()
        if isinstance(kind, AtBoot)
        for line in kind.bootlines(ground, facts)
    ]
    answers.append(boot.judge(lines, facts))
    files = [file for answer in answers for file in answer.files if _differs(file, facts)]
    return Prepared(
        tuple(_lost_at_reboot(finding) for answer in answers for finding in answer.findings),
        (*_file_changes(files), *_live_changes(answers)),
        tuple(files),
        {file.path: facts.text(file.path) for file in files},
    )


def _lost_at_reboot(finding: Finding) -> Finding:
    """The finding, which says so where the value is as wanted now and only its file is not."""
    value = finding.wanted.value
    text = ("no", "yes")[value] if isinstance(value, bool) else str(value)
    if finding.verdict != "differs" or finding.live != text or finding.persisted == text:
        return finding
    return replace(finding, verdict="not persisted")


def do_steps(files: Sequence[PutFile], changes: Iterable[Change]) -> list[tuple[str, list[Step]]]:
    """(what is done, steps) in order: files, what must follow them, everything else."""
    steps: list[tuple[str, list[Step]]] = [(file.path, [file]) for file in files]
    steps += [(" ".join(argv), [Run(argv)]) for argv in _after(files)]
    steps += [
        (f"{', '.join(change.settings)}: {change.text}", list(change.do))
        for change in changes
        if change.do
    ]
    return steps


def undo_steps(files: Sequence[PutFile], changes: Iterable[Change]) -> tuple[Step, ...]:
    """The way back: live changes in reverse, then the files and what must follow them."""
    steps: list[Step] = [step for change in reversed(list(changes)) for step in change.undo]
    steps += [Restore(file.path) for file in reversed(files)]
    return (*steps, *(Run(argv) for argv in _after(files)))


def _differs(file: PutFile, facts: Facts) -> bool:
    if file.path in facts.closed:
        return True
    return facts.text(file.path) != file.content


def _after(files: Sequence[PutFile]) -> list[tuple[str, ...]]:
    """What must follow the files: systemd reads its units anew at most once, and first."""
    argvs = list(dict.fromkeys(file.after for file in files if file.after))
    if any(file.reload for file in files):
        argvs.append(boot.RELOAD)
    anew = [argv for argv in (boot.REEXEC, boot.RELOAD) if argv in argvs]
    return [*anew[:1], *(argv for argv in argvs if argv not in anew)]


def _file_changes(files: Sequence[PutFile]) -> Iterable[Change]:
    """The files as changes without steps, which do_steps makes: for people and for `cuts`."""
    for file in files:
        text = "removed" if file.content is None else "written"
        yield Change((file.path,), text, (), (), file.reboot, file.cuts)


def _live_changes(answers: Sequence[Judgement]) -> Iterable[Change]:
    return (change for answer in answers for change in answer.changes)
