"""Health of many machines: once, until it is good, or continuously."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from inferfleet.errors import NOT_HEALTHY, OK, USAGE, FleetError
from inferfleet.operations.look import Examiner, Look, chosen_units, unreachable
from inferfleet.operations.repair import revive
from inferfleet.parallel import on_each
from inferfleet.show import hidden, output, say

if TYPE_CHECKING:
    from inferfleet.run.run import Run

COLUMNS = [
    "machine", "service", "verdict", "seconds", "tokens_per_second", "running", "detail",
]  # fmt: skip
PAUSE_SECONDS = 1.0


@dataclass(frozen=True)
class Wanted:
    """What was asked for on the command line; times in seconds.

    wait: how long to go on until all is good. interval, span: of a watch; span 0 has no end.
    most: restarts in an hour of a service that is stuck or silent, 0: none.
    """

    wait: float = 0.0
    watch: bool = False
    interval: float = 10.0
    span: float = 0.0
    most: int = 0


class Ward:
    """The machines of a run; a connection that is lost is opened again in the next round."""

    def __init__(self, run: Run, most: int) -> None:
        self._run, self._most = run, most
        self._examiners: dict[str, Examiner] = {}
        self._looked: dict[str, frozenset[str]] = {}

    def round(self, bad: Mapping[str, frozenset[str]] | None = None) -> list[Look]:
        """One look at everything, or at the services of `bad` by machine."""
        names = [n for n in self._run.machines if bad is None or n in bad]
        answers = on_each(names, lambda name: self._machine(name, bad[name] if bad else None))
        return [look for answer in answers for look in _value(answer.value, answer.error)]

    def _machine(self, name: str, only: frozenset[str] | None) -> list[Look]:
        try:
            if name not in self._examiners:
                session = self._run.session(name, lenient=True)
                self._examiners[name] = Examiner(session, self._run.services[name])
            began = time.monotonic()
            looks = self._examiners[name].round(only)
            if only is None:
                self._looked[name] = frozenset(look.service for look in looks)
            if self._most:
                looks = self._looked_again(self._examiners[name], looks, began)
        except FleetError as error:
            if error.code == USAGE:
                raise
            self._forget(name)
            units = self._run.brief(name).draft.release.units.values()
            # Which services run that do not start by themselves is known from earlier looks alone.
            wanted = self._looked.get(name) or self._run.services[name]
            chosen = chosen_units(units, wanted) or list(units)
            return unreachable(name, [u for u in chosen if not only or u.service in only], error)
        return [self._revived(look) for look in looks] if self._most else looks

    def _looked_again(self, examiner: Examiner, looks: list[Look], began: float) -> list[Look]:
        """Silence is no proof: what did not answer gets its deadline a second time."""
        silent = frozenset(look.service for look in looks if look.finding.silent)
        if not silent:
            return looks
        units = examiner.session.release.units
        probes = [units[service].probe for service in silent]
        deadline = max((probe.deadline for probe in probes if probe), default=0)
        time.sleep(max(began + deadline - time.monotonic(), 0.0))
        again = {look.service: look for look in examiner.round(silent)}
        return [again.get(look.service, look) for look in looks]

    def _revived(self, look: Look) -> Look:
        """What is stuck, or was silent twice, is restarted; its verdict stays what was found."""
        if look.finding.verdict != "stuck" and not look.finding.silent:
            return look
        session = self._examiners[look.machine].session
        try:
            _, words = revive(session, look.service, self._most)
        except FleetError as error:
            words = error.what
        twice = " at a second look" if look.finding.silent else ""
        finding = replace(look.finding, detail=f"{look.finding.detail}{twice}; {words}")
        return replace(look, finding=finding, hint="")

    def _forget(self, name: str) -> None:
        examiner = self._examiners.pop(name, None)
        if examiner:
            with suppress(FleetError):
                examiner.session.host.close()


def _value(looks: list[Look] | None, error: FleetError | None) -> list[Look]:
    if error:
        raise error
    return looks or []


def check_health(run: Run, wanted: Wanted, form: str, called: Callable[[str], str] = str) -> int:
    """Print what the services are; the exit code. called: commands as this user types them."""
    ward = Ward(run, wanted.most)
    if wanted.watch:
        return _watch(run, ward, wanted, form, called)
    deadline = time.monotonic() + wanted.wait
    looks = ward.round()
    while not _good(looks) and time.monotonic() < deadline:
        time.sleep(PAUSE_SECONDS)
        again = {(look.machine, look.service): look for look in ward.round(_bad(looks))}
        looks = [again.get((look.machine, look.service), look) for look in looks]
    output([hidden(look.row, run.redact) for look in looks], COLUMNS, form)
    for look in looks:
        if not look.finding.good and look.hint:
            _explain(look, run.redact, called)
    return OK if _good(looks) else NOT_HEALTHY


def _watch(run: Run, ward: Ward, wanted: Wanted, form: str, called: Callable[[str], str]) -> int:
    """Rounds at a steady pace. A line for each change; as JSON a line for each look."""
    ends = time.monotonic() + wanted.span
    before: dict[tuple[str, str], str] = {}
    while True:
        began = time.monotonic()
        looks = ward.round()
        for look in looks:
            key, verdict = (look.machine, look.service), look.finding.verdict
            changed = before.get(key) != verdict
            if form == "json":
                _line(run, look, changed)
            elif changed or "restarted (" in look.finding.detail:
                _change(run, look, before.get(key))
                if look.hint and not look.finding.good:
                    _explain(look, run.redact, called)
            before[key] = verdict
        pause = began + wanted.interval - time.monotonic()
        if wanted.span and time.monotonic() + max(pause, 0.0) >= ends:
            return OK if _good(looks) else NOT_HEALTHY
        time.sleep(max(pause, 0.0))


def _line(run: Run, look: Look, changed: bool) -> None:
    row = {"time": _now(), "changed": changed, **look.row}
    sys.stdout.write(json.dumps(hidden(row, run.redact)) + "\n")
    sys.stdout.flush()


def _change(run: Run, look: Look, before: str | None) -> None:
    verdict = look.finding.verdict
    what = f"{before} -> {verdict}" if before and before != verdict else verdict
    text = f"{_now()}  {look.machine}  {look.service}  {what}  {look.finding.detail}"
    say(" ".join(text.splitlines()), run.redact, sys.stdout)


def _explain(look: Look, redact: Callable[[str], str], called: Callable[[str], str]) -> None:
    say(f"{look.machine} {look.service}: {called(look.hint)}", redact)
    for line in look.logs:
        say(f"  {line}", redact)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _good(looks: Sequence[Look]) -> bool:
    return all(look.finding.good for look in looks)


def _bad(looks: Sequence[Look]) -> dict[str, frozenset[str]]:
    names = {look.machine for look in looks if not look.finding.good}
    return {
        name: frozenset(
            look.service for look in looks if look.machine == name and not look.finding.good
        )
        for name in names
    }
