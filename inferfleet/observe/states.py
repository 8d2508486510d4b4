"""What a machine's control script says of its services: their states, their ages, their logs."""

from __future__ import annotations

import re
from shlex import quote

from inferfleet.errors import FleetError
from inferfleet.hosts.host import Host
from inferfleet.observe.observed import UnitState

GONE = UnitState("stopped", "is gone")
GAVE_UP = "gave up"
_UP = re.compile(r"\b[Uu]p (?:About )?(an?|Less than a|\d+) (s|second|minute|hour|day|week|month)")
_UNITS = {
    "s": 1, "second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800,
    "month": 2592000,
}  # fmt: skip


class StateReader:
    """Reads the state of all units of a machine in one question.

    As of the last time, troubles: runtime -> why it could not say anything; evicted: service ->
    who has stopped it to make room for another, of those that were not started since.
    """

    def __init__(self, host: Host, root: str, sudo: bool) -> None:
        self._host, self._sudo = host, sudo
        self._script = (
            f"sh {quote(root + '/current/control')} state\n"
            f"for one in {quote(root)}/.inferbase/evicted/*; do\n"
            '  [ -f "$one" ] && printf "evicted\\t%s\\t%s\\n" "${one##*/}" "$(cat "$one")"\n'
            "done"
        )
        self.troubles: dict[str, str] = {}
        self.evicted: dict[str, str] = {}

    def __call__(self) -> dict[str, UnitState]:
        states = {}
        self.troubles, self.evicted = {}, {}
        for line in self._host.run(self._script, sudo=self._sudo, timeout=60).out.splitlines():
            kind, *fields = line.split("\t")
            if kind == "unit" and len(fields) >= 2:
                states[fields[0]] = UnitState(fields[1], " ".join(fields[2:]))
            elif kind == "trouble" and len(fields) >= 2:
                self.troubles[fields[0]] = " ".join(fields[1:])
            elif kind == "evicted" and len(fields) >= 2:
                self.evicted[fields[0]] = " ".join(fields[1:])
        return states


def age(state: UnitState | None) -> int | None:
    """Seconds since a unit started, as coarse as Docker tells them; None when nothing tells."""
    found = _UP.search(state.detail) if state else None
    if found is None:
        return None
    count = {"a": 1, "an": 1, "Less than a": 0}.get(found[1])
    return (int(found[1]) if count is None else count) * _UNITS[found[2]]


def last_logs(host: Host, root: str, service: str, sudo: bool, lines: int = 30) -> list[str]:
    """The last log lines of a service; empty when the machine cannot say."""
    script = f"sh {quote(root + '/current/control')} logs {quote(service)} {lines}"
    try:
        return host.run(script, sudo=sudo, timeout=30).out.splitlines()[-lines:]
    except FleetError:
        return []
