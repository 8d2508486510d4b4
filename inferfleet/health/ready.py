"""Is a service ready? Port open, HTTP healthy, one token generated: asked from here."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import MappingProxyType

from inferfleet.events import Event, Listener
from inferfleet.health.ask import ask_health, ask_token, connect
from inferfleet.hosts.host import Host
from inferfleet.observe.states import GONE, StateReader
from inferfleet.release.failure import Failure, find_cause
from inferfleet.release.release import Unit
from inferfleet.secrets import Secret

POLL_SECONDS = 0.25
STATE_SECONDS = 1.0
CRASH_LOOKS = 3
# Answers with one of the kind's failures in them: the engine tried, and would try without end.
# Unified memory that another engine has left may be free up to a minute later only.
REFUSED_LOOKS = 3
REFUSED_SECONDS = 60.0
REQUEST_SECONDS = 120.0


@dataclass(frozen=True)
class Readiness:
    """stage: down, port, loading, http, refused (our key), ready; seconds since the wait began."""

    service: str
    stage: str
    detail: str
    seconds: float = 0.0

    @property
    def ready(self) -> bool:
        return self.stage == "ready"


# What became of the health URL, and of the request for a token, as a stage of readiness.
_HEALTH_STAGES = {"loading": "loading", "error": "port"}
_TOKEN_STAGES = {"ok": "ready", "denied": "refused"}


def check(base_url: str, unit: Unit, key: Secret | None, timeout: float) -> Readiness:
    """Ask one service once, through base_url. Never raises for an unhealthy service."""
    probe = unit.probe
    assert probe is not None
    with connect(base_url, key) as client:
        found = ask_health(client, probe)
        if not found.ok:
            stage = _HEALTH_STAGES.get(found.outcome, "down")
            return Readiness(unit.service, stage, found.detail)
        found = ask_token(client, probe, timeout)
    return Readiness(unit.service, _TOKEN_STAGES.get(found.outcome, "http"), found.detail)


def reachable(ip: str) -> str:
    """Where to ask for something that listens on ip: the loopback address for 'any'."""
    return {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}.get(ip, ip)


def unit_key(unit: Unit, keys: Mapping[str, Secret]) -> Secret | None:
    """The API key that clients of a service must send, None when it wants none."""
    return keys.get(unit.probe.key) if unit.probe and unit.probe.key else None


def wait_ready(
    host: Host,
    units: Sequence[Unit],
    states: StateReader,
    keys: Mapping[str, Secret],
    listener: Listener,
    failures: Mapping[str, Sequence[Failure]] = MappingProxyType({}),
) -> list[Readiness]:
    """Wait until every unit is ready or one of them has failed.

    failures: by service, what its answers say when it cannot start (Release.failures).
    Returns one entry per unit in order; the last one is not ready when the wait failed.
    Loading is not failing: only the unit's own budget, its end, or a healthy one that says again
    and again why it cannot answer stops the wait.
    """
    began = time.monotonic()
    done: list[Readiness] = []
    watch = _Watch(states)
    for unit in units:
        if unit.probe is None or unit.address is None:
            state = states().get(unit.service, GONE)
            stage = "ready" if state.up else "down"
            done.append(Readiness(unit.service, stage, f"{state.state}: {state.detail}"))
            if not state.up:
                break
            continue
        with ExitStack() as stack:
            port = stack.enter_context(
                host.forward(unit.address[1], address=reachable(unit.address[0]))
            )
            known = failures.get(unit.service, ())
            result = _wait_one(unit, port, watch, units, keys, listener, began, known)
        done.append(result)
        if not result.ready:
            break
        listener(Event(host.name, "ready", f"ready after {result.seconds:.1f} s", unit.service))
    return done


class _Watch:
    """Looks at unit states now and then, and remembers how often each was seen restarting."""

    def __init__(self, states: StateReader) -> None:
        self._states = states
        self._next = 0.0
        self._seen: dict[str, int] = {}

    def trouble(self, units: Sequence[Unit]) -> tuple[str, str] | None:
        """(service, what) of the first unit that ended or does not stay up."""
        if time.monotonic() < self._next:
            return None
        states = self._states()
        self._next = time.monotonic() + STATE_SECONDS
        for unit in units:
            state = states.get(unit.service, GONE)
            if state.state in {"failed", "stopped"}:
                return unit.service, f"{state.state}: {state.detail}"
            if state.state == "restarting":
                self._seen[unit.service] = self._seen.get(unit.service, 0) + 1
                if self._seen[unit.service] >= CRASH_LOOKS:
                    return unit.service, f"does not stay up: {state.detail}"
        return None


def _wait_one(
    unit: Unit,
    port: int,
    watch: _Watch,
    units: Sequence[Unit],
    keys: Mapping[str, Secret],
    listener: Listener,
    began: float,
    failures: Sequence[Failure],
) -> Readiness:
    assert unit.probe is not None
    deadline = began + unit.probe.timeout
    refusals, first = 0, 0.0
    told: set[str] = set()
    while True:
        left = deadline - time.monotonic()
        found = check(
            f"http://127.0.0.1:{port}",
            unit,
            unit_key(unit, keys),
            min(max(left, 1.0), REQUEST_SECONDS),
        )
        seconds = time.monotonic() - began
        if found.ready:
            return Readiness(unit.service, found.stage, found.detail, seconds)
        if found.detail not in told:
            listener(Event("", "wait", found.detail, unit.service))
            told.add(found.detail)
        if trouble := watch.trouble(units):
            return Readiness(trouble[0], "down", trouble[1], seconds)
        if found.stage == "http" and find_cause([found.detail], failures) is not None:
            refusals += 1
            first = first or time.monotonic()
        given_up = refusals >= REFUSED_LOOKS and time.monotonic() - first >= REFUSED_SECONDS
        if found.stage == "refused" or given_up:
            return replace(found, seconds=seconds)
        if left <= 0:
            return Readiness(
                unit.service,
                found.stage,
                f"not ready after {unit.probe.timeout} s: {found.detail}",
                seconds,
            )
        time.sleep(POLL_SECONDS)
