"""Is a service ready? Port open, HTTP healthy, one token generated: asked from here."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from inferfleet.errors import FleetError
from inferfleet.events import Event, Listener
from inferfleet.host import Host
from inferfleet.observed import UnitState
from inferfleet.release import Probe, Unit
from inferfleet.secrets import Secret

POLL_SECONDS = 0.25
STATE_SECONDS = 1.0
CRASH_LOOKS = 3
REQUEST_SECONDS = 120.0
GONE = UnitState("stopped", "is gone")


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


def token_request(probe: Probe) -> tuple[str, dict[str, Any]] | None:
    """Path and JSON body of the smallest request that generates one token; None for http."""
    chat = {"messages": [{"role": "user", "content": "Hi"}]}
    match probe.request:
        case "openai-chat":
            return "/v1/chat/completions", {"model": probe.model, **chat, "max_tokens": 1}
        case "openai-completion":
            return "/v1/completions", {"model": probe.model, "prompt": "Hi", "max_tokens": 1}
        case "ollama-generate":
            options = {"num_predict": 1}
            body = {"model": probe.model, "prompt": "Hi", "stream": False, "options": options}
            return "/api/generate", body
        case _:
            return None


def check(base_url: str, unit: Unit, key: Secret | None, timeout: float) -> Readiness:
    """Ask one service once, through base_url. Never raises for an unhealthy service."""
    import httpx

    probe = unit.probe
    assert probe is not None
    headers = {"Authorization": f"Bearer {key.reveal()}"} if key else {}
    asking = "down"
    try:
        with httpx.Client(
            base_url=base_url, headers=headers, timeout=5.0, trust_env=False
        ) as client:
            answer = client.get(probe.health)
            if answer.status_code in probe.loading:
                return Readiness(
                    unit.service, "loading", f"{probe.health} answers {answer.status_code}"
                )
            if not answer.is_success:
                return Readiness(
                    unit.service, "port", f"{probe.health} answers {answer.status_code}"
                )
            asking = "http"
            request = token_request(probe)
            if request is None:
                return Readiness(unit.service, "ready", "healthy")
            path, body = request
            answer = client.post(path, json=body, timeout=timeout)
            if not answer.is_success:
                return Readiness(
                    unit.service,
                    "refused" if answer.status_code in {401, 403} else "http",
                    f"{path} answers {answer.status_code}: {answer.text[:200]}",
                )
            return _generated(unit.service, path, answer.json())
    except (httpx.HTTPError, ValueError) as error:
        what = "no answer" if asking == "down" else "healthy, but no answer to a request"
        return Readiness(unit.service, asking, f"{what} ({type(error).__name__})")


def _generated(service: str, path: str, body: Any) -> Readiness:
    """One token counts when the engine's own figures say that it was generated."""
    if isinstance(body, dict):
        usage = body.get("usage") or {}
        if body.get("choices") and usage.get("completion_tokens", 1) >= 1:
            return Readiness(service, "ready", "generated a token")
        if body.get("done") and body.get("eval_count", 1) >= 1:
            return Readiness(service, "ready", "generated a token")
    return Readiness(service, "http", f"{path} answered without a generated token")


def probe_unit(
    host: Host, unit: Unit, keys: Mapping[str, Secret], timeout: float = REQUEST_SECONDS
) -> Readiness:
    """Ask one service of a machine once; units without a port are taken by their state alone."""
    if unit.probe is None or unit.address is None:
        return Readiness(unit.service, "ready", "has no port to ask")
    with host.forward(unit.address[1], address=reachable(unit.address[0])) as port:
        return check(f"http://127.0.0.1:{port}", unit, _key(unit, keys), timeout)


def reachable(ip: str) -> str:
    """Where to ask for something that listens on ip: the loopback address for 'any'."""
    return {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}.get(ip, ip)


def _key(unit: Unit, keys: Mapping[str, Secret]) -> Secret | None:
    return keys.get(unit.probe.key) if unit.probe and unit.probe.key else None


def wait_ready(
    host: Host,
    units: Sequence[Unit],
    states: StateReader,
    keys: Mapping[str, Secret],
    listener: Listener,
) -> list[Readiness]:
    """Wait until every unit is ready or one of them has failed.

    Returns one entry per unit in order; the last one is not ready when the wait failed.
    Loading is not failing: only the unit's own budget or its end stops the wait.
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
            result = _wait_one(unit, port, watch, units, keys, listener, began)
        done.append(result)
        if not result.ready:
            break
        listener(Event(host.name, "ready", f"ready after {result.seconds:.1f} s", unit.service))
    return done


class StateReader:
    """Reads the state of all units of a machine in one question."""

    def __init__(self, host: Host, root: str, sudo: bool) -> None:
        from shlex import quote

        self._host, self._sudo = host, sudo
        self._script = f"sh {quote(root + '/current/control')} state"

    def __call__(self) -> dict[str, UnitState]:
        states = {}
        for line in self._host.run(self._script, sudo=self._sudo, timeout=60).out.splitlines():
            kind, *fields = line.split("\t")
            if kind == "unit" and len(fields) >= 2:
                states[fields[0]] = UnitState(fields[1], " ".join(fields[2:]))
        return states


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
) -> Readiness:
    assert unit.probe is not None
    deadline = began + unit.probe.timeout
    told: set[str] = set()
    while True:
        left = deadline - time.monotonic()
        found = check(
            f"http://127.0.0.1:{port}", unit, _key(unit, keys), min(max(left, 1.0), REQUEST_SECONDS)
        )
        seconds = time.monotonic() - began
        if found.ready:
            return Readiness(unit.service, found.stage, found.detail, seconds)
        if found.detail not in told:
            listener(Event("", "wait", found.detail, unit.service))
            told.add(found.detail)
        if trouble := watch.trouble(units):
            return Readiness(trouble[0], "down", trouble[1], seconds)
        if found.stage == "refused":
            return replace(found, seconds=seconds)
        if left <= 0:
            return Readiness(
                unit.service,
                found.stage,
                f"not ready after {unit.probe.timeout} s: {found.detail}",
                seconds,
            )
        time.sleep(POLL_SECONDS)


def last_logs(host: Host, root: str, service: str, sudo: bool, lines: int = 30) -> list[str]:
    """The last log lines of a service; empty when the machine cannot say."""
    from shlex import quote

    script = f"sh {quote(root + '/current/control')} logs {quote(service)} {lines}"
    try:
        return host.run(script, sudo=sudo, timeout=30).out.splitlines()[-lines:]
    except FleetError:
        return []
