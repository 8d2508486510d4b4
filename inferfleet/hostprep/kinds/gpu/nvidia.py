"""What the kinds about GPUs share: the one question, the helper on the machine, its boot lines."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from inferfleet.errors import FleetError
from inferfleet.gpu.facts import Gpu, GpuFacts
from inferfleet.gpu.report import SMI, parse_report
from inferfleet.gpu.trouble import explain
from inferfleet.hostprep.facts import Facts, Look
from inferfleet.hostprep.kinds import boot
from inferfleet.hostprep.setting import Change, Finding, Ground, Verdict, Wanted
from inferfleet.hostprep.steps import PutFile, Run, Step
from inferfleet.remote import program

PROBE = "nvidia-smi"
HELPER = "/usr/local/lib/inferbase/gpu.sh"
# Notes of the helper about what cannot be read back.
NOTES = "/run/inferbase/gpu"
LOOK = Look(probes={PROBE: SMI})


@dataclass(frozen=True)
class Cards:
    """The GPUs of a machine, or why there are none to ask."""

    facts: GpuFacts | None
    trouble: FleetError | None = None

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        return self.facts.gpus if self.facts else ()


@dataclass(frozen=True)
class Part:
    """What one setting comes to. boot: lines of the boot script."""

    finding: Finding
    changes: tuple[Change, ...] = ()
    files: tuple[PutFile, ...] = ()
    boot: tuple[str, ...] = ()


def cards(facts: Facts) -> Cards:
    """The answer of nvidia-smi."""
    answer = facts.probe(PROBE)
    if answer.exit is None:
        return Cards(None, explain("", None))
    try:
        found = parse_report(answer.out)
    except FleetError:
        return Cards(None, explain(answer.out, answer.exit))
    return Cards(found) if found.gpus else Cards(None, explain("no devices were found", 6))


def missing(wanted: Wanted, found: Cards, persisted: str = "-") -> Finding:
    """The finding for a setting of GPUs that cannot be asked."""
    trouble = found.trouble or explain("no devices were found", 6)
    verdict: Verdict = "unknown" if "may not ask" in trouble.what else "absent"
    return Finding(wanted, "-", persisted, verdict, f"{trouble.what}: {trouble.hint}")


def lacking(wanted: Wanted, ground: Ground, feature: str) -> Finding | None:
    """The finding for what the hardware file says the hardware has not."""
    if not ground.lacks(feature):
        return None
    return Finding(wanted, "-", "-", "unsupported", f"the hardware has no {feature}")


def set_gpu(what: str, gpu: str, value: str) -> Run:
    """One setting of one GPU, through the helper."""
    return Run(("sh", HELPER, what, gpu, value))


def unset_gpu(what: str, gpu: str, value: str) -> tuple[Step, ...]:
    """Its undo. It brings the helper, which an undo that is tried again may have taken away."""
    return (helper(), Run(("sh", HELPER, what, gpu, value, "back")))


def boot_line(what: str, gpu: str, value: str) -> str:
    """The same at every start."""
    return f"try {shlex.join(set_gpu(what, gpu, value).argv)}"


def kept(lines: tuple[str, ...], facts: Facts) -> bool:
    """Whether the boot script has all of these lines and is run at every start."""
    there = (facts.text(boot.SCRIPT) or "").splitlines()
    enabled = facts.text(boot.WANTS) is not None
    return enabled and bool(lines) and all(line in there for line in lines)


def helper() -> PutFile:
    """The file of the helper."""
    return PutFile(HELPER, program("gpu-set"), 0o755)


def each(values: dict[int, str]) -> str:
    """GPU number -> text, as one text: the common value, or each GPU's own."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return ", ".join(f"{index}: {text}" for index, text in sorted(values.items()))
