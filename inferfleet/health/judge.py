"""What the answers of a service and its own counters come to: one verdict; pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from inferfleet.health.ask import Reply, Sample
from inferfleet.observe.observed import UnitState
from inferfleet.observe.states import age

# busy: it generates, though not for us within the deadline.
READY = frozenset({"healthy", "busy"})
# evicted: `up --evict` has stopped it, as was asked for. All others are faults.
GOOD = READY | {"evicted"}


@dataclass(frozen=True)
class Evidence:
    """All that was learned of one service in one round.

    state: what keeps it running says; None: nothing is there. start_timeout: seconds in which it
    may load. health and token: replies, None where it was not asked. before and after: its
    counters on both sides of the request for a token; late: they did not answer in time. deadline:
    what that request was given. answered: it was ready since this start. evicted: who has stopped
    it to make room and not started it since, "" for nobody.
    """

    state: UnitState | None
    start_timeout: int
    health: Reply | None = None
    token: Reply | None = None
    before: Sample | None = None
    after: Sample | None = None
    deadline: float = 30.0
    late: bool = False
    answered: bool = False
    evicted: str = ""

    @property
    def young(self) -> bool:
        """It may still be loading."""
        if self.answered:
            return False
        since = age(self.state)
        if since is None:
            return self.state is not None and self.state.state == "starting"
        return since < self.start_timeout


@dataclass(frozen=True)
class Finding:
    """verdict: healthy, busy, loading, stuck, dead, stopped, evicted, unreachable.

    seconds: what the token took, or the time after which nobody waited any more.
    tokens_per_second: between the two scrapes, our own token not counted. running: requests.
    silent: unreachable because it did not answer in time, which an engine at work may do, too.
    """

    verdict: str
    detail: str
    seconds: float | None = None
    tokens_per_second: float | None = None
    running: int | None = None
    silent: bool = False

    @property
    def good(self) -> bool:
        return self.verdict in GOOD

    @property
    def ready(self) -> bool:
        return self.verdict in READY


def judge(found: Evidence) -> Finding:
    """The verdict on one service."""
    state = found.state
    if state is None or state.state == "stopped":
        if found.evicted:
            return Finding("evicted", f"stopped to make room by {found.evicted}")
        return Finding("stopped", state.detail if state and state.detail else "nothing runs")
    if state.state == "failed":
        return Finding("dead", state.detail)
    if state.state == "restarting":
        return Finding("dead", f"does not stay up: {state.detail}")
    health, token = found.health, found.token
    if health is None:
        return Finding("healthy", "has no port to ask")
    # A health URL that asks the engine waits like any request; what came of a token tells more.
    if not health.ok and not (health.outcome == "silent" and token is not None):
        return _not_up(found, health)
    if token is None or token.ok:
        return _finding(found, "healthy", token.detail if token else "healthy")
    match token.outcome:
        case "denied":
            return _finding(found, "unreachable", f"does not take our key: {token.detail}")
        case "busy":
            return _finding(found, "busy", token.detail)
        case "silent":
            return _no_token(found)
        case _:
            # An engine that turns one request away while it works on others has no room left.
            verdict = "busy" if _advanced(found) and " 503:" in token.detail else "dead"
            return _finding(found, verdict, token.detail)


def rate(before: Sample | None, after: Sample | None, own: int) -> float | None:
    """Tokens per second between two samples, less those that our own requests made."""
    if before is None or after is None or before.tokens is None or after.tokens is None:
        return None
    if after.at <= before.at or after.tokens < before.tokens:
        return None  # it was started again in between
    made = max(after.tokens - before.tokens - own, 0.0)
    if not made and not own and after.progress > before.progress:
        return None  # it counts the tokens of a request when that ends, and some are under way
    return round(made / (after.at - before.at), 1)


def _not_up(found: Evidence, health: Reply) -> Finding:
    since, young = age(found.state), found.young
    budget = f"{_span(since)} of its start-timeout of {_span(found.start_timeout)}"
    if health.outcome == "loading":
        late = "" if young or since is None else f", after {budget}"
        return Finding("loading", f"{health.detail}{late}", health.seconds)
    if young:
        return Finding("loading", f"{health.detail}, after {budget}", health.seconds)
    if health.outcome == "silent":
        words = f"runs and listens, but {health.detail}"
        return Finding("unreachable", words, health.seconds, silent=True)
    return Finding("dead", f"runs, but {health.detail}", health.seconds)


def _no_token(found: Evidence) -> Finding:
    """Busy and stuck are proven by counters that were read twice; all else is silence."""
    waited = f"no token within {_span(int(found.deadline))}"
    before, after = found.before, found.after
    if before is None or after is None:
        why = "and its counters do not answer any more"
        if found.late:
            why = "and its counters did not answer in time"
        elif before is None and after is None:
            why = "and no counters that show it at work"
        return _silent(found, f"{waited}, {why}")
    count = after.running
    requests = "" if count is None else f" of {count:.0f} request{'s' if count != 1 else ''}"
    if _advanced(found):
        return _finding(found, "busy", f"{waited}, but it works on the tokens{requests}")
    if not after.meanwhile:
        return _silent(found, f"{waited}, and counters that move only when a request ends")
    if not count:
        return _silent(found, f"{waited}, and no counter that tells of a request under way")
    return _finding(found, "stuck", f"{waited}, and none{requests} has advanced")


def _silent(found: Evidence, detail: str) -> Finding:
    return replace(_finding(found, "unreachable", detail), silent=True)


def _advanced(found: Evidence) -> bool:
    """Any change counts: gauges fall, too, and one that was started again is not stuck."""
    before, after = found.before, found.after
    return before is not None and after is not None and after.progress != before.progress


def _finding(found: Evidence, verdict: str, detail: str) -> Finding:
    latest = found.after or found.before
    return Finding(
        verdict,
        detail,
        found.token.seconds if found.token else None,
        rate(found.before, found.after, 1 if found.token and found.token.ok else 0),
        int(latest.running) if latest and latest.running is not None else None,
    )


def _span(seconds: int | None) -> str:
    if seconds is None:
        return "an unknown part"
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
