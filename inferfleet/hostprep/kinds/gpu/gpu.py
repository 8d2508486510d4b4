"""NVIDIA GPUs: persistence, clocks, power limit, compute mode, ECC, MIG, nvidia_uvm."""

from __future__ import annotations

from inferfleet.hostprep.facts import Facts, Look, join
from inferfleet.hostprep.kinds import boot
from inferfleet.hostprep.kinds.gpu.gpu_values import VALUES, ecc_part, value_part
from inferfleet.hostprep.kinds.gpu.mig import mig_look, mig_part
from inferfleet.hostprep.kinds.gpu.nvidia import (
    HELPER,
    LOOK,
    NOTES,
    PROBE,
    Cards,
    Part,
    cards,
    helper,
)
from inferfleet.hostprep.kinds.gpu.persistence import (
    DROP_IN,
    UVM_FILE,
    persistence_look,
    persistence_part,
    uvm_look,
    uvm_part,
)
from inferfleet.hostprep.setting import Ground, Judgement, Wanted
from inferfleet.hostprep.steps import PutFile

# The order in which they are set: what resets a GPU comes before what a reset loses.
ORDER = ("persistence", "uvm", "ecc", "mig", *VALUES)
# Files of this kind, and what must follow a change.
OURS: dict[str, tuple[str, ...]] = {HELPER: (), DROP_IN: boot.RELOAD, UVM_FILE: ()}


class Gpu:
    """The kind `gpu`."""

    def look(self, ground: Ground) -> Look:
        keys = {wanted.key for wanted in ground.of("gpu")}
        if not keys:
            return Look(tuple(OURS))
        looks = [Look((*OURS, boot.SCRIPT, boot.WANTS, f"{NOTES}/*")), LOOK]
        if "persistence" in keys:
            looks.append(persistence_look())
        if "uvm" in keys:
            looks.append(uvm_look())
        if "mig" in keys:
            looks.append(mig_look())
        return join(looks)

    def judge(self, ground: Ground, facts: Facts) -> Judgement:
        parts = _parts(ground, facts)
        changes = tuple(change for part in parts for change in part.changes)
        files = {path: PutFile(path, None, after=after) for path, after in OURS.items()}
        files |= {file.path: file for part in parts for file in part.files}
        # What it once set it must also undo, so it is there as long as such a setting is.
        if facts.probe(PROBE).exit is not None and any(w.key != "uvm" for w in ground.of("gpu")):
            files[HELPER] = helper()
        findings = sorted((part.finding for part in parts), key=lambda one: one.wanted.key)
        return Judgement(tuple(findings), tuple(files.values()), changes)

    def bootlines(self, ground: Ground, facts: Facts) -> tuple[str, ...]:
        return tuple(line for part in _parts(ground, facts) for line in part.boot)


def _parts(ground: Ground, facts: Facts) -> list[Part]:
    wanted = {one.key: one for one in ground.of("gpu")}
    if not wanted:
        return []
    found = cards(facts)
    return [_part(wanted[key], ground, facts, found) for key in ORDER if key in wanted]


def _part(wanted: Wanted, ground: Ground, facts: Facts, found: Cards) -> Part:
    match wanted.key:
        case "persistence":
            return persistence_part(wanted, facts, found)
        case "uvm":
            return uvm_part(wanted, facts)
        case "ecc":
            return ecc_part(wanted, ground, found)
        case "mig":
            return mig_part(wanted, ground, facts, found)
        case _:
            return value_part(wanted, ground, facts, found)
