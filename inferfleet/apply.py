"""Plan -> done or rolled back: the operator's side of the transaction on one machine.

The machine's side is remote/apply.sh. It holds the lock as long as it lives, and it lives as
long as this conversation: commit, revert and silence (we died) are all it has to tell apart.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from inferfleet.archive import pack
from inferfleet.errors import LOCKED, FleetError
from inferfleet.events import Event, Listener
from inferfleet.host import Conversation, Host
from inferfleet.observed import Lock, Observed
from inferfleet.plan import Plan
from inferfleet.ready import Readiness, StateReader, last_logs, wait_ready
from inferfleet.release import Release, Unit
from inferfleet.remote import program
from inferfleet.secrets import Secret

AfterStart = Callable[[list[Unit]], str]

KEEP_GENERATIONS = 5
START_SECONDS = 3600.0
STEP_SECONDS = 600.0


@dataclass(frozen=True)
class Outcome:
    """What became of a plan. ready: per service waited for. logs: last lines of what failed."""

    machine: str
    changed: bool = False
    rolled_back: bool = False
    ready: tuple[Readiness, ...] = ()
    failure: str = ""
    logs: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        return not self.failure


def operator() -> str:
    """user@host of this run, without the characters that separate fields on the machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return "".join(c for c in f"{user}@{socket.gethostname()}" if c.isalnum() or c in "@._-")


def apply(
    host: Host,
    release: Release,
    observed: Observed,
    plan: Plan,
    *,
    what: str,
    sudo: bool,
    keys: Mapping[str, Secret],
    listener: Listener,
    upload: bool = True,
    before_ready: AfterStart | None = None,
) -> Outcome:
    """Carry out a plan without problems; upload=False switches to a generation already there.

    Raises FleetError when the machine refuses (locked, moved on, disk full): it is wholly old
    then; or when the connection is lost: the next run says what the machine is.
    """
    archive = pack(release) if upload and plan.to != plan.source else b""
    script = program("apply", **_variables(release, observed, plan, what, len(archive)))
    talk = host.converse(script, sudo=sudo)
    transaction = _Transaction(host, talk, plan.machine, listener)
    if archive:
        talk.send(archive)
    started = transaction.until("started", START_SECONDS)
    waiting = [release.units[s.target] for s in plan.steps if s.action in {"start", "replace"}]
    ready: list[Readiness] = []
    failure = "" if started == "yes" else transaction.last_log or "a service did not start"
    failed_service = ""
    if not failure:
        if before_ready:
            failure = before_ready(waiting)
        if not failure:
            states = StateReader(host, release.root, sudo)
            ready = wait_ready(host, waiting, states, keys, _named(listener, plan.machine))
            bad = [r for r in ready if not r.ready]
            if bad:
                failed_service, failure = bad[0].service, f"{bad[0].service} {bad[0].detail}"
    if not failure:
        talk.send(b"commit\n")
        transaction.until("done", STEP_SECONDS)
        talk.finish(10)
        return Outcome(plan.machine, changed=True, ready=tuple(ready))
    service = failed_service or (waiting[0].service if waiting else "")
    logs = last_logs(host, release.root, service, sudo) if service else []
    logs = logs or transaction.logs[-30:]
    return _revert(
        transaction, talk, host, observed, plan, release, keys, sudo, ready, failure, logs
    )


class _Transaction:
    """Reads the machine's records, passes them on as events."""

    def __init__(self, host: Host, talk: Conversation, machine: str, listener: Listener) -> None:
        self._host, self._talk, self._machine, self._listener = host, talk, machine, listener
        self.logs: list[str] = []

    @property
    def last_log(self) -> str:
        return next((line for line in reversed(self.logs) if line.strip()), "")

    def until(self, kind: str, timeout: float) -> str:
        """Read up to the record of that kind; its value. Raises FleetError on an error record."""
        while True:
            line = self._talk.readline(timeout)
            if line is None:
                result = self._talk.finish(10)
                words = f": {result.err.strip()[:300]}" if result.err.strip() else ""
                raise FleetError(
                    f"{self._machine}: the transaction ended early (exit {result.exit}{words})",
                    hint="`invoke plan` says what the machine is now; `invoke up` converges it",
                )
            record, _, rest = line.partition("\t")
            if record == kind:
                return rest
            if record == "error":
                raise _refusal(self._machine, rest)
            if record == "log":
                self.logs.append(rest)
            if record in {"step", "log", "note"}:
                self._listener(Event(self._machine, record, rest))


def _refusal(machine: str, record: str) -> FleetError:
    kind, _, detail = record.partition("\t")
    match kind:
        case "locked":
            lock = Lock.parse(detail, alive=True)
            return FleetError(
                f"{machine} is locked by {lock}",
                hint="wait until that run ends; the lock goes with its process",
                code=LOCKED,
            )
        case "moved":
            return FleetError(
                f"{machine} was changed by another run in the meantime (now {detail or 'empty'})",
                hint="look at a new `invoke plan`, then run this again",
            )
        case _:
            return FleetError(f"{machine}: {detail}", hint="nothing was changed")


def _variables(
    release: Release, observed: Observed, plan: Plan, what: str, size: int
) -> dict[str, str | int]:
    old = observed.manifest.units if observed.manifest else {}
    gone = plan.targets("remove")
    acted = [*plan.targets("replace"), *plan.targets("start")]
    up = {service for service, state in observed.units.items() if state.up}
    switched = plan.source != plan.to
    moved = set(gone) & set(acted)
    links = [f"{s.target}\t{release.root}/current/{release.links[s.target]}" for s in plan.steps
             if s.action == "link"]  # fmt: skip
    known = observed.manifest.links if observed.manifest else {}
    unlinks = [f"{path}\t{release.root}/current/{known[path]}" for path in plan.targets("unlink")]
    return {
        "root": release.root,
        "from": plan.source,
        "to": plan.to,
        "size": size,
        "who": operator(),
        "when": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "what": what,
        "links": "\n".join(links),
        "unlinks": "\n".join(unlinks),
        "gone": " ".join(gone),
        "replace": " ".join(plan.targets("replace")),
        "start": " ".join(plan.targets("start")),
        "back_remove": " ".join(s for s in acted if s not in old or s in moved),
        "back_stop": " ".join(s for s in acted if s in old and s not in up and s not in moved),
        "back_replace": " ".join(s for s in old if switched and s in up and s in {*acted, *gone}),
        "keep": KEEP_GENERATIONS,
    }


def _revert(
    transaction: _Transaction,
    talk: Conversation,
    host: Host,
    observed: Observed,
    plan: Plan,
    release: Release,
    keys: Mapping[str, Secret],
    sudo: bool,
    ready: list[Readiness],
    failure: str,
    logs: list[str],
) -> Outcome:
    """Back to the generation before; the old services must answer again to count as back."""
    talk.send(b"revert\n")
    good = transaction.until("reverted", START_SECONDS) == "yes"
    notes = []
    old: Mapping[str, Unit] = observed.manifest.units if observed.manifest else {}
    acted = {*plan.targets("replace"), *plan.targets("start"), *plan.targets("remove")}
    back = [
        unit for service, unit in old.items()
        if service in acted and service in observed.units and observed.units[service].up
        and plan.source != plan.to
    ]  # fmt: skip
    if good and back:
        states = StateReader(host, release.root, sudo)
        again = wait_ready(host, back, states, keys, _named(lambda _event: None, plan.machine))
        good = all(entry.ready for entry in again)
    if not good:
        notes.append("the old services did not all come back: see `invoke status`")
    talk.send(b"reverted\n")
    transaction.until("done", STEP_SECONDS)
    talk.finish(10)
    return Outcome(
        plan.machine,
        rolled_back=True,
        ready=tuple(ready),
        failure=failure,
        logs=tuple(logs),
        notes=tuple(notes),
    )


def _named(listener: Listener, machine: str) -> Listener:
    """The same listener; events without a machine get this one's name."""
    from dataclasses import replace

    return lambda event: listener(event if event.machine else replace(event, machine=machine))
