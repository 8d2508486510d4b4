"""One round of looking at the services of one machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from inferfleet.errors import FleetError
from inferfleet.health.answered import has_answered, note_answered
from inferfleet.health.ask import (
    SCRAPE_SECONDS,
    Reply,
    Sample,
    ask_health,
    ask_token,
    connect,
    scrape,
    token_request,
)
from inferfleet.health.judge import Evidence, Finding, judge, rate
from inferfleet.health.ready import reachable, unit_key
from inferfleet.observe.observed import UnitState
from inferfleet.observe.states import GAVE_UP, StateReader, last_logs
from inferfleet.parallel import on_each
from inferfleet.release.failure import find_cause, latest, own_words
from inferfleet.release.release import Probe, Unit
from inferfleet.run.session import Session
from inferfleet.secrets import Secret

HERE = "http://127.0.0.1"
LAST_LINES = 5
SEARCHED_LINES = 1000
# While requests run, tokens are counted over at least this long.
SAMPLED_SECONDS = 1.0


@dataclass(frozen=True)
class Look:
    """One service of one machine in one round. logs: last or decisive lines of one that is dead;
    hint: how to go on."""

    machine: str
    service: str
    finding: Finding
    logs: tuple[str, ...] = ()
    hint: str = ""

    @property
    def row(self) -> dict[str, Any]:
        """As a row of the table and an object of the JSON."""
        found = self.finding
        more = {"hint": self.hint, "logs": list(self.logs)} if self.hint else {}
        return {
            "machine": self.machine,
            "service": self.service,
            "verdict": found.verdict,
            "ready": found.ready,
            "seconds": None if found.seconds is None else round(found.seconds, 2),
            "tokens_per_second": found.tokens_per_second,
            "running": found.running,
            "detail": found.detail,
            **more,
        }


class Examiner:
    """Looks at the services of one machine, round after round, over one connection."""

    def __init__(self, session: Session, services: frozenset[str] | None) -> None:
        """services: those that were asked for; None means all that should run by themselves, and
        what runs besides."""
        self.session, self._services = session, services
        self._states = StateReader(session.host, session.release.root, session.sudo)
        self._samples: dict[str, Sample] = {}

    def round(self, only: frozenset[str] | None = None) -> list[Look]:
        """What every service is now; raises FleetError when the machine cannot be asked."""
        states = self._states()
        chosen = chosen_units(self.session.release.units.values(), self._services, states)
        units = {u.service: u for u in chosen if only is None or u.service in only}
        answers = on_each(list(units), lambda name: self._look(units[name], states.get(name)))
        machine = self.session.host.name
        return [
            answer.value or Look(machine, answer.machine, _unreachable(answer.error))
            for answer in answers
        ]

    def _look(self, unit: Unit, state: UnitState | None) -> Look:
        found = self._examine(unit, state)
        look = Look(self.session.host.name, unit.service, found)
        if found.verdict == "dead":
            return self._explained(look)
        if found.verdict == "stuck":
            again = f"`invoke restart --service {unit.service}` ends that, or `health --restart`"
            return replace(look, hint=again)
        if found.silent:
            return replace(
                look,
                hint="it may be at work for others: look again; `health --restart` looks twice "
                "and starts it again when it is silent both times",
            )
        return look

    def _examine(self, unit: Unit, state: UnitState | None) -> Finding:
        probe = unit.probe
        evicted = self._states.evicted.get(unit.service, "")
        evidence = Evidence(state, probe.timeout if probe else 0, evicted=evicted)
        if state is None and (trouble := self._states.troubles.get(unit.runtime)):
            return Finding("unreachable", trouble)
        up = state is not None and state.up and state.state != "restarting"
        if probe is None or unit.address is None or not up:
            return judge(evidence)
        host, key = self.session.host, unit_key(unit, self.session.secrets)
        machine = (host, self.session.release.root, unit.service, self.session.sudo)
        ip, port = reachable(unit.address[0]), unit.address[1]
        with host.forward(port, address=ip) as local, connect(f"{HERE}:{local}", key) as client:
            health = ask_health(client, probe)
            if health.outcome not in {"ok", "loading"} and evidence.young:
                evidence = replace(evidence, answered=has_answered(*machine))
            slow = health.outcome == "silent" and token_request(probe) and not evidence.young
            if not health.ok and not slow:
                return judge(replace(evidence, health=health))
            before, late = scrape(client, probe.counters)
            token = _token(f"{HERE}:{local}", probe, key)
            # Where no token came, the request is still there, and the engine counts it.
            after, later = scrape(client, probe.counters)
            quick = before and after and after.at - before.at < SAMPLED_SECONDS
            if quick and after and after.running:
                time.sleep(SAMPLED_SECONDS)
                after, later = scrape(client, probe.counters)
        found = judge(
            replace(
                evidence, health=health, token=token, before=before, after=after,
                deadline=probe.deadline, late=late or later,
            )
        )  # fmt: skip
        if token.ok and evidence.young:
            note_answered(*machine)
        return self._since_last(unit.service, found, after, own=1 if token.ok else 0)

    def _since_last(self, service: str, found: Finding, now: Sample | None, own: int) -> Finding:
        """Between two rounds there is more time to count in than between two scrapes of one."""
        earlier = self._samples.pop(service, None)
        if now is not None:
            self._samples[service] = now
        since = rate(earlier, now, own)
        return found if since is None else replace(found, tokens_per_second=since)

    def _explained(self, look: Look) -> Look:
        session, service = self.session, look.service
        root, sudo = session.release.root, session.sudo
        lines = last_logs(session.host, root, service, sudo, SEARCHED_LINES)
        cause = find_cause(latest(lines), session.release.failures.get(service, ()))
        then = f"`invoke up --service {service}` starts it again"
        if GAVE_UP in look.finding.detail:
            then = f"it stays stopped; once its cause is mended, {then}"
        if cause is None:
            hint = f"`invoke logs --service {service}` shows more; {then}"
            return replace(look, logs=tuple(own_words(lines)[-LAST_LINES:]), hint=hint)
        finding = replace(look.finding, detail=f"{cause.says} ({look.finding.detail})")
        hint = "; ".join(filter(None, [cause.hint, then]))
        return replace(look, finding=finding, logs=cause.lines, hint=hint)


def _token(base_url: str, probe: Probe, key: Secret | None) -> Reply:
    """One token within the deadline. When that is over the request is left alone for a moment
    more, so that the counters can be read while it still waits."""
    replies: list[Reply] = []

    def ask() -> None:
        with connect(base_url, key) as client:
            replies.append(ask_token(client, probe, probe.deadline + 2 * SCRAPE_SECONDS))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(probe.deadline)
    if replies:
        return replies[0]
    return Reply("silent", "healthy, but no answer to a request", float(probe.deadline))


def chosen_units(
    units: Iterable[Unit],
    services: frozenset[str] | None,
    states: Mapping[str, UnitState] = MappingProxyType({}),
) -> list[Unit]:
    """The units that a health check is about; states: what runs, where that is known."""
    if services is not None:
        return [unit for unit in units if unit.service in services]
    return [unit for unit in units if unit.autostart or _served(states.get(unit.service))]


def _served(state: UnitState | None) -> bool:
    """Somebody has started it, and nobody stopped it."""
    return state is not None and (state.up or GAVE_UP in state.detail)


def _unreachable(error: FleetError | None) -> Finding:
    return Finding("unreachable", error.what if error else "was not asked")


def unreachable(machine: str, units: Iterable[Unit], error: FleetError) -> list[Look]:
    """The services of a machine that cannot be asked."""
    return [Look(machine, u.service, _unreachable(error), hint=error.hint) for u in units]
