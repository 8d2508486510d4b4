"""What `capacity` says: every term of every service, and whether it fits; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from inferfleet.capacity.admission.situation import Room, Situation
from inferfleet.capacity.facts import Known
from inferfleet.capacity.held import Card, Held
from inferfleet.capacity.term import Claim, Term
from inferfleet.capacity.words import exact, human, series, size

COLUMNS = ["service", "term", "amount", "exactly", "how", "formula"]


@dataclass(frozen=True)
class Verdict:
    """fits: None when it cannot be known. why: the rest of the sentence."""

    fits: bool | None
    why: str
    rooms: tuple[Room, ...] = ()


@dataclass(frozen=True)
class Report:
    """One machine. source: where its numbers are from. alone: services by themselves; together:
    those of `names` at once; beside: each other service beside those, where they fit."""

    machine: str
    source: str
    situation: Situation
    known: Mapping[str, Known]
    models: Mapping[str, str]
    alone: Mapping[str, Verdict]
    together: Verdict | None
    names: tuple[str, ...]
    beside: Mapping[str, Verdict]

    @property
    def fits(self) -> bool:
        """Whether everything that was asked about fits, as far as it can be known."""
        asked = [*self.alone.values(), *([self.together] if self.together else [])]
        return all(verdict.fits is not False for verdict in asked)


def file_held(hardware: Mapping[str, Any]) -> Held:
    """The machine of a hardware file with nothing on it."""
    total = int(hardware.get("memory") or 0)
    memory = None if hardware.get("unified") else hardware.get("gpu_memory")
    cards = tuple(Card(i, "", memory, memory) for i in range(int(hardware.get("gpus") or 0)))
    return Held(total, total, cards=cards)


def make_report(
    machine: str,
    source: str,
    situation: Situation,
    known: Mapping[str, Known],
    models: Mapping[str, str],
    together: Sequence[str],
) -> Report:
    """situation: acting are the services asked about. together: those that run at once."""
    names = tuple(situation.acting)
    alone = {name: judge(replace(situation, acting=[name]), known) for name in names}
    both = None
    if len(together) > 1:
        both = judge(replace(situation, acting=list(together)), known)
    beside = {
        name: judge(replace(situation, acting=[*together, name]), known)
        for name in names
        if together and name not in together and (both is None or both.fits)
    }
    return Report(machine, source, situation, known, models, alone, both, tuple(together), beside)


def judge(situation: Situation, known: Mapping[str, Known]) -> Verdict:
    """Whether the services of situation.acting fit at once, beside those that stay."""
    many = len(situation.acting) > 1
    limits = [
        f"{name}: {limit}" if many else limit
        for name in situation.acting
        if name in situation.claims
        for limit in situation.claims[name].limits
    ]
    rooms = tuple(situation.rooms())
    short = [room for room in rooms if not room.fits]
    if limits or short:
        words = [*limits, *(room.words(many) for room in short)]
        return Verdict(False, "; ".join(words), rooms)
    if not rooms and any(situation.need(name) for name in situation.acting):
        return Verdict(None, "no hardware file says what memory the machine has; --live asks it")
    blind = [told for name in situation.acting if (told := _unknown(situation, name, known))]
    if blind:
        return Verdict(None, "; ".join(blind), rooms)
    return Verdict(True, "; ".join(room.words(many) for room in rooms), rooms)


def _unknown(situation: Situation, name: str, known: Mapping[str, Known]) -> str:
    """What cannot be told of a service's needs, "" when everything can."""
    claim = situation.claims.get(name)
    gpus = situation.demands.get(name, {}).get("gpus", "none")
    blind = claim is None or claim.amount is None
    if not situation.need(name):
        what = f"what {name} takes is not known"
    elif blind and gpus != "none" and not situation.unified:
        # A memory limit says nothing about the GPU.
        what = f"what {name} takes of its GPU is not known"
    else:
        return ""
    why = known[name].why if name in known else ""
    return f"{what}: {why}" if why else what


def sentence(names: Sequence[str], verdict: Verdict) -> str:
    """'a and b do not fit because ...'."""
    who, many = series(names), len(names) > 1
    if verdict.fits is None:
        return f"{who}: not known whether {'they fit' if many else 'it fits'}: {verdict.why}"
    if verdict.fits:
        return f"{who} {'fit' if many else 'fits'}: {verdict.why}"
    return f"{who} {'do' if many else 'does'} not fit because {verdict.why}"


def rows(report: Report) -> list[dict[str, Any]]:
    """One row for each term of each service, and one for what it takes in all."""
    found = []
    for name in report.alone:
        claim = report.situation.claims.get(name)
        for term in claim.terms if claim else ():
            found.append(_row(name, term))
        found += [_row(name, term) for term in _totals(report.situation, name, claim)]
    return found


def lines(report: Report) -> list[str]:
    """What stands below the table: where the numbers are from, and the sentences."""
    said = [f"{report.machine}: {report.source}"]
    if report.situation.held.note:
        said.append(f"{report.machine}: its GPUs could not be asked: {report.situation.held.note}")
    for name in report.alone:
        known = report.known.get(name)
        if known and known.shape is not None:
            model = report.models.get(name, "its model")
            said.append(f"{name}: {model}, {known.shape.architecture}, read {known.where}")
            said += [f"{name}: {note}" for note in known.shape.notes]
    said += [sentence([name], verdict) for name, verdict in report.alone.items()]
    if report.together:
        said.append(sentence(report.names, report.together))
    said += [sentence([*report.names, name], one) for name, one in report.beside.items()]
    return said


def data(report: Report) -> dict[str, Any]:
    """The same for programs; bytes where nothing else is said."""
    situation = report.situation
    services = []
    for name, verdict in report.alone.items():
        claim, known = situation.claims.get(name), report.known.get(name)
        terms = [*(claim.terms if claim else ()), *_totals(situation, name, claim)]
        services.append(
            {
                "service": name,
                "kind": situation.demands.get(name, {}).get("kind"),
                "model": report.models.get(name),
                "model_read": known.where if known and known.shape else None,
                "model_unknown": (known.why or None) if known else None,
                "pool": claim.pool if claim else None,
                "needs": situation.need(name),
                "terms": [
                    {"name": t.name, "amount": t.amount, "unit": t.unit, "how": t.how,
                     "formula": t.formula}
                    for t in terms
                ],
                **_verdict(verdict),
            }
        )  # fmt: skip
    both = report.together
    return {
        "machine": report.machine,
        "source": report.source,
        "memory": {
            "total": situation.held.total,
            "available": situation.held.available,
            "reserve": situation.hardware.get("reserve") or 0,
            "unified": situation.unified,
            "gpus": [{"index": c.index, "total": c.total, "free": c.free}
                     for c in situation.held.cards],
        },
        "services": services,
        "together": {"services": list(report.names), **_verdict(both)} if both else None,
        "beside": [
            {"services": [*report.names, name], **_verdict(one)}
            for name, one in report.beside.items()
        ],
        "fits": report.fits,
    }  # fmt: skip


def _verdict(verdict: Verdict) -> dict[str, Any]:
    rooms = [
        {"pool": r.pool, "total": r.total, "host": r.share, "kept": dict(r.kept),
         "needs": dict(r.needs), "left": r.left, "fits": r.fits}
        for r in verdict.rooms
    ]  # fmt: skip
    return {"fits": verdict.fits, "because": verdict.why, "rooms": rooms}


def _totals(situation: Situation, name: str, claim: Claim | None) -> list[Term]:
    """What the service takes of each pool; the machine file's limit where nothing else is known."""
    declared = claim is None or claim.amount is None
    limit = situation.demands.get(name, {}).get("memory")
    formula = f"memory: {size(limit)} in the machine file" if declared and limit else "sum"
    if claim and claim.pool == "device" and claim.amount is not None and situation.unified:
        formula = f"{size(claim.amount)} and {size(claim.host)} of its processes"
    how = [term.how for term in claim.terms if term.unit == "bytes"] if claim else []
    return [
        Term(
            f"takes of {pool}",
            amount,
            "bytes",
            formula,
            "declared" if declared else "exact" if set(how) <= {"exact"} else "estimated",
        )
        for pool, amount in situation.need(name).items()
    ]


def _row(service: str, term: Term) -> dict[str, Any]:
    return {
        "service": service,
        "term": term.name,
        "amount": human(term.amount, term.unit),
        "exactly": exact(term.amount, term.unit),
        "how": term.how,
        "formula": term.formula or None,
    }
