"""What `capacity` says: every term of every service, and whether it fits; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from inferfleet.capacity.admission.remedy import remedies
from inferfleet.capacity.admission.situation import Situation
from inferfleet.capacity.facts import Known
from inferfleet.capacity.held import Card, Held
from inferfleet.capacity.machine import MAIN
from inferfleet.capacity.term import Claim, How, Term
from inferfleet.capacity.verdict import Verdict, judge, remedy, sentence
from inferfleet.capacity.words import exact, human, size

# What makes a sum less than exact, the least certain first.
_DOUBT: tuple[How, ...] = ("estimated", "declared", "measured")


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
    reclaim: Callable[[Situation, str], Claim],
) -> Report:
    """situation: acting are the services asked about. together: those that run at once. reclaim:
    what a service claims in another situation."""
    names = tuple(situation.acting)
    alone = {}
    for name in names:
        one = replace(situation, acting=[name])
        alone[name] = verdict = judge(one, known)
        if verdict.fits is False:
            alone[name] = replace(verdict, remedies=remedies(one, name, reclaim))
    both = None
    if len(together) > 1:
        both = judge(replace(situation, acting=list(together)), known)
    beside = {
        name: judge(replace(situation, acting=[*together, name]), known)
        for name in names
        if together and name not in together and (both is None or both.fits)
    }
    return Report(machine, source, situation, known, models, alone, both, tuple(together), beside)


def columns(report: Report, exactly: bool) -> list[str]:
    """Of rows; exactly: with whole numbers and the sums that they come from."""
    found = ["term", "amount", "how"]
    if exactly:
        found = ["term", "amount", "exactly", "how", "formula"]
    return found if len(report.alone) == 1 else ["service", *found]


def rows(report: Report) -> list[dict[str, Any]]:
    """One row for each term of each service, and one for what it takes in all."""
    found = []
    for name in report.alone:
        claim, known = report.situation.claims.get(name), report.known.get(name)
        if known and known.shape is None:
            found.append({"service": name, "term": "model", "amount": "not known", "how": "-"})
        found += [_row(name, term) for term in _terms(claim)]
        found += [_row(name, term) for term in _totals(report.situation, name, claim)]
    return found


def lines(report: Report) -> list[str]:
    """What stands below the table: where the numbers are from, and the sentences."""
    said = [f"{report.machine}: {report.source}"]
    if report.situation.held.note:
        said.append(f"{report.machine}: its GPUs could not be asked: {report.situation.held.note}")
    for name in report.alone:
        known = report.known.get(name)
        model = report.models.get(name, "its model")
        if known and known.shape is not None:
            said.append(f"{name}: {model}, {known.shape.architecture}, read {known.where}")
            said += [f"{name}: {note}" for note in known.shape.notes]
    for name, verdict in report.alone.items():
        said += [sentence([name], verdict), *filter(None, [remedy(name, verdict)])]
        if verdict.fits is False and not report.situation.trusted(name):
            said.append(f"{name}: up starts it all the same, admission: warn")
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
        terms = [*_terms(claim), *_totals(situation, name, claim)]
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
         "needs": dict(r.needs), "asks": dict(r.asks), "left": r.left, "free": r.free,
         "fits": r.fits}
        for r in verdict.rooms
    ]  # fmt: skip
    return {
        "fits": verdict.fits,
        "because": verdict.why,
        "would_fit_with": [dict(setting) for setting in verdict.remedies],
        "rooms": rooms,
    }


def _terms(claim: Claim | None) -> tuple[Term, ...]:
    """A claim that is one number of main memory is said once, as what it takes."""
    if claim is None or [term.name for term in claim.terms] == [MAIN]:
        return ()
    return claim.terms


def _totals(situation: Situation, name: str, claim: Claim | None) -> list[Term]:
    """What the service takes of each pool; the machine file's limit where nothing else is known."""
    declared = claim is None or claim.amount is None
    limit = situation.demands.get(name, {}).get("memory")
    formula = f"memory: {size(limit)} in the machine file" if declared and limit else "sum"
    if claim and claim.pool == "device" and claim.amount is not None and situation.unified:
        formula = f"{size(claim.amount)} and {size(claim.host)} of its processes"
    if claim and not declared and claim.terms and not _terms(claim):
        formula = claim.terms[0].formula
    how = {term.how for term in claim.terms if term.unit == "bytes"} if claim else set()
    least = claim is not None and bool(claim.unknown) and not claim.fills
    known: How = next((one for one in _DOUBT if one in how), "exact")
    return [
        Term(
            f"takes at least of {pool}" if least else f"takes of {pool}",
            amount,
            "bytes",
            formula,
            "declared" if declared else known,
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
