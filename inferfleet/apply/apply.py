"""Plan -> done or rolled back: the operator's side of the transaction on one machine.

The machine's side is remote/apply.sh. It holds the lock as long as it lives, and it lives as
long as this conversation: commit, revert and silence (we died) are all it has to tell apart.
"""

from __future__ import annotations

import getpass
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from inferfleet.apply.variables import plan_variables
from inferfleet.errors import LOCKED, FleetError
from inferfleet.events import Event, Listener, silent
from inferfleet.health.ready import Readiness, wait_ready
from inferfleet.hosts.host import Conversation, Host
from inferfleet.observe.journal import Lock
from inferfleet.observe.observed import Observed
from inferfleet.observe.states import StateReader, last_logs
from inferfleet.plan.plan import Plan
from inferfleet.plan.undo import way_back
from inferfleet.release.archive import pack
from inferfleet.release.failure import find_cause, latest
from inferfleet.release.release import Release, Unit
from inferfleet.remote import program
from inferfleet.secrets import Secret

AfterStart = Callable[[list[Unit]], str]

KEEP_GENERATIONS = 5
START_SECONDS = 3600.0
STEP_SECONDS = 600.0
# After this much silence the machine gives a run up. Its sshd would notice a network that is
# gone only after two hours (Linux, tcp_keepalive_time) and the lock would be held so long.
SILENCE_SECONDS = 90
BEAT_SECONDS = 15.0
FINISH_SECONDS = 10.0
LOG_LINES = 30
# A traceback of vLLM has hundreds of lines, the one that counts above it.
SEARCHED_LINES = 1000


@dataclass(frozen=True)
class Outcome:
    """What became of a plan. ready: per service waited for. logs: last lines of what failed, or,
    where its cause was recognised, those that tell it; then hint says what to do."""

    machine: str
    changed: bool = False
    rolled_back: bool = False
    ready: tuple[Readiness, ...] = ()
    failure: str = ""
    logs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    hint: str = ""
    recognised: bool = False

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

    A release that does not become ready is rolled back here. Raises FleetError when the machine
    refuses (locked, moved on, disk full): it is wholly old then; or when the connection is
    lost: the next run says what the machine is.
    """
    archive = pack(release) if upload and plan.to != plan.source else b""
    undo = way_back(release, observed, plan)
    script = program(
        "lock",
        "ready",
        "apply",
        **plan_variables(release, observed, plan, undo),
        size=len(archive),
        who=operator(),
        what=what,
        keep=KEEP_GENERATIONS,
        when=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        silence=SILENCE_SECONDS,
    )
    talk = host.converse(script, sudo=sudo)
    transaction = _Transaction(host, talk, plan.machine, listener)
    if archive:
        talk.send(archive)
    started = transaction.until("started", START_SECONDS)
    waiting = [release.units[service] for service in plan.wait]
    states = StateReader(host, release.root, sudo)
    ready: list[Readiness] = []
    failed = ""
    failure = "" if started == "yes" else transaction.last_log or "a service did not start"
    try:
        with _beating(talk):
            if not failure and before_ready:
                failure = before_ready(waiting)
            if not failure:
                told = _named(listener, plan.machine)
                ready = wait_ready(host, waiting, states, keys, told, release.failures)
        bad = [r for r in ready if not r.ready]
        if bad:
            failed, failure = bad[0].service, f"{bad[0].service} {bad[0].detail}"
    except FleetError as error:
        failure = error.what
    if not failure:
        talk.send(b"commit\n")
        transaction.until("done", STEP_SECONDS)
        talk.finish(FINISH_SECONDS)
        return Outcome(plan.machine, changed=True, ready=tuple(ready))
    failed = failed or (waiting[0].service if waiting else "")
    logs = []
    # Where Compose made no container, the log is that of the one before.
    if failed and (started == "yes" or release.units[failed].runtime != "compose"):
        logs = last_logs(host, release.root, failed, sudo, SEARCHED_LINES)
    # What a tool or an engine's interface said on the way belongs to its words, too.
    words = [*transaction.logs, *failure.splitlines(), *latest(logs)]
    cause = find_cause(words, release.failures.get(failed, ()))
    if cause:
        failure = f"{failed}: {cause.says} ({failure.removeprefix(failed).strip(': ')})"
    talk.send(b"revert\n")
    good = transaction.until("reverted", START_SECONDS) == "yes"
    back = [undo.old[service] for service in undo.replace if service in undo.old]
    if good and back:
        with _beating(talk):
            good = _came_back(host, back, states, keys)
    talk.send(b"reverted\n")
    transaction.until("done", STEP_SECONDS)
    talk.finish(FINISH_SECONDS)
    again = [service for service in plan.targets("evict") if service in undo.replace]
    notes = [f"{service}, which had made room, runs again" for service in again]
    if not good:
        notes = ["the old services did not all come back: see `invoke status`"]
    return Outcome(
        plan.machine,
        rolled_back=undo.returns(plan),
        ready=tuple(ready),
        failure=failure,
        logs=cause.lines if cause else tuple((logs or transaction.logs)[-LOG_LINES:]),
        hint=cause.hint if cause else "",
        recognised=cause is not None,
        notes=tuple(notes),
    )


@contextmanager
def _beating(talk: Conversation) -> Iterator[None]:
    """Tell the machine now and then that somebody is still there."""
    over = threading.Event()

    def beat() -> None:
        with suppress(FleetError):
            while not over.wait(BEAT_SECONDS):
                talk.send(b"alive\n")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _came_back(
    host: Host, units: list[Unit], states: StateReader, keys: Mapping[str, Secret]
) -> bool:
    """The old services must answer again. One that refuses today's key answers, too: its own
    may be an older one, which nobody knows here."""
    try:
        again = wait_ready(host, units, states, keys, silent)
    except FleetError:
        return False
    return all(entry.ready or entry.stage == "refused" for entry in again)


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
            try:
                line = self._talk.readline(timeout)
            except TimeoutError:
                raise FleetError(
                    f"{self._machine}: nothing was heard for {timeout:.0f} s",
                    hint="look at the machine; `invoke status` says what is in force",
                ) from None
            if line is None:
                result = self._talk.finish(FINISH_SECONDS)
                words = f": {result.err.strip()[:300]}" if result.err.strip() else ""
                raise FleetError(
                    f"{self._machine}: the transaction ended early (exit {result.exit}{words})",
                    hint="`invoke plan` says what the machine is now; `invoke up` converges it",
                )
            record, _, rest = line.partition("\t")
            if record == kind:
                return rest
            if record == "error":
                self._talk.finish(FINISH_SECONDS)
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


def _named(listener: Listener, machine: str) -> Listener:
    """The same listener; events without a machine get this one's name."""
    return lambda event: listener(event if event.machine else replace(event, machine=machine))
