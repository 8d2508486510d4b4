"""Prepared -> done and verified, or undone: the operator's side of one run on one machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from inferfleet.apply.apply import operator
from inferfleet.errors import LOCKED, FleetError
from inferfleet.events import Event, Listener
from inferfleet.hostprep.facts import LAST_LINE, Facts, Look, join, look_script, parse_facts
from inferfleet.hostprep.judge import Prepared, judge, look_for
from inferfleet.hostprep.script import act_script
from inferfleet.hostprep.setting import WRONG, Ground, Kind
from inferfleet.hosts.host import Conversation, Host
from inferfleet.observe.journal import Lock
from inferfleet.remote import program

# Building a boot image takes minutes; nothing else here takes seconds.
STEP_SECONDS = 900.0
SILENCE_SECONDS = 90
# How long the machine waits for a commit before it undoes what may have cut it off.
CUT_SECONDS = 120
UNTOUCHED = "nothing was changed"
# A program that was told to read its configuration anew may refuse connections for a moment.
REACH_TRIES = 3
REACH_PAUSE = 1.0
FINISH_SECONDS = 30.0
LOOK_SECONDS = 120.0


@dataclass(frozen=True)
class Acted:
    """What became of one machine. failure: why it was undone, "" when it was not. undone:
    whether everything is as before; False after a failure says what failed in notes. after:
    what the machine is now."""

    machine: str
    changed: bool = False
    failure: str = ""
    undone: bool = False
    notes: tuple[str, ...] = ()
    after: Prepared | None = None

    @property
    def ok(self) -> bool:
        return not self.failure


def look(
    host: Host, ground: Ground, kinds: Mapping[str, Kind], sudo: bool, more: Look | None = None
) -> Facts:
    """One round trip: everything that the kinds ask, and more."""
    asked = join([look_for(ground, kinds), more or Look()])
    result = host.run(look_script(asked), sudo=sudo, timeout=LOOK_SECONDS)
    if not result.out:
        raise FleetError(f"{host.name}: looking at the machine failed: {result.err.strip()[:300]}")
    return parse_facts(result.out)


def generations(ground: Ground, facts: Facts) -> list[int]:
    """Numbers of the runs that can be undone, oldest first."""
    names = (path.split("/")[-2] for path in facts.matching(f"{ground.state}/*/record.json"))
    return sorted(int(name) for name in names if name.isdigit())


def interrupted(ground: Ground, facts: Facts) -> int | None:
    """The number of a run that never came to its end."""
    text = (facts.value(f"{ground.state}/journal") or "").strip()
    return int(text) if text.isdigit() else None


def act(
    host: Host,
    again: Callable[[], Host] | None,
    ground: Ground,
    prepared: Prepared,
    kinds: Mapping[str, Kind],
    *,
    number: int,
    sudo: bool,
    listener: Listener,
) -> Acted:
    """Make the changes, look again, commit; or undo all of them.

    again: opens a new connection to the same machine, to prove that one can be had after a
    change that may cut it off; None for this machine, which needs none. Raises FleetError when
    the machine refuses or is lost.
    """
    cuts = again is not None and any(change.cuts for change in prepared.changes)
    script = act_script(
        ground,
        prepared,
        kinds,
        number,
        silence=SILENCE_SECONDS,
        cut=CUT_SECONDS if cuts else 0,
        slow=int(STEP_SECONDS),
    )
    try:
        return _talk(host, again if cuts else None, ground, prepared, kinds, script, sudo, listener)
    except FleetError as error:
        if not cuts or error.code == LOCKED or error.hint == UNTOUCHED:
            raise
        seconds = SILENCE_SECONDS + CUT_SECONDS
        hint = f"it goes back by itself within {seconds} s; `invoke hostprep.check` then says so"
        raise FleetError(error.what, hint, error.where, error.code) from None


def _talk(
    host: Host,
    again: Callable[[], Host] | None,
    ground: Ground,
    prepared: Prepared,
    kinds: Mapping[str, Kind],
    script: str,
    sudo: bool,
    listener: Listener,
) -> Acted:
    talk = host.converse(script, sudo=sudo)
    notes: list[str] = []
    failure, answer = _until_look(host.name, talk, listener, notes)
    if failure:
        return _undone(host.name, talk, failure, notes)
    after = judge(ground, parse_facts(answer), kinds)
    failure = verify(prepared, after)
    if not failure and again is not None:
        failure = _reachable(again, sudo)
    if failure:
        talk.send(b"revert\n")
        return _undone(host.name, talk, failure, notes)
    talk.send(b"commit\n")
    record = _read(host.name, talk)
    while record[0] in ("failed", "gpu"):
        record = _read(host.name, talk)
    talk.finish(FINISH_SECONDS)
    if record[0] == "done":
        return Acted(host.name, changed=True, notes=tuple(notes), after=after)
    if record[0] == "undone":
        failure = "the machine has undone it: it heard nothing for too long"
        return Acted(host.name, failure=failure, undone=record[1:] == ["yes"])
    raise _refusal(host.name, record)


def undo(host: Host, ground: Ground, number: int, sudo: bool) -> Acted:
    """Undo one generation: the newest, or an interrupted run's. Raises FleetError."""
    script = program(
        "talk", "lock", "timer", "rollback",
        state=ground.state, units=ground.units, number=number, who=operator(),
        when=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), what="hostprep.rollback",
    )  # fmt: skip
    result = host.run(script, sudo=sudo, timeout=STEP_SECONDS)
    records = [line.split("\t") for line in result.out.splitlines()]
    for fields in records:
        if fields[0] == "error":
            raise _refusal(host.name, fields)
    if ["undone", "yes"] not in records:
        failed = [fields[1] for fields in records if fields[0] == "failed" and len(fields) > 1]
        raise FleetError(
            f"{host.name}: generation {number} could not be undone wholly: "
            f"{'; '.join(failed) or result.err.strip()[:300]}",
            hint="mend what it names, then run `invoke hostprep.rollback` again",
        )
    notes = tuple(lost_gpu(host.name, fields) for fields in records if fields[0] == "gpu")
    return Acted(host.name, changed=True, undone=True, notes=notes)


def lost_gpu(machine: str, fields: Sequence[str]) -> str:
    """What to know of a container that lost its GPU: a record of gpu-containers.sh in words."""
    did, container, service = (*fields[1:], "", "", "")[:3]
    lost = f"lost its GPU when systemd read its units anew ({container})"
    if did == "restarted":
        return f"{service} {lost} and was restarted"
    if service:
        return f"{service} {lost}: `invoke restart --host {machine} --service {service}`"
    return f"a container that is not ours {lost}: `docker restart {container}` on {machine}"


def verify(before: Prepared, after: Prepared) -> str:
    """Why the machine is not what the run was to make of it; "" when it is."""
    changed = {name for change in before.changes for name in change.settings}
    bad = [
        f"{finding.wanted.name} is {finding.live} (wanted {finding.wanted.value}, "
        f"{finding.verdict}{': ' + finding.remedy if finding.remedy else ''})"
        for finding in after.findings
        if finding.wanted.name in changed and finding.verdict in WRONG - {"pending", "overridden"}
    ]
    bad += [f"{file.path} is not as it was written" for file in after.files]
    return "read back: " + "; ".join(bad) if bad else ""


def _until_look(
    machine: str, talk: Conversation, listener: Listener, notes: list[str]
) -> tuple[str, str]:
    """(why it failed, "") or ("", the machine as it is after the changes); adds to notes."""
    failure = ""
    while True:
        fields = _read(machine, talk)
        if fields[0] == "step":
            listener(Event(machine, "step", fields[1]))
        elif fields[0] == "gpu":
            notes.append(lost_gpu(machine, fields))
        elif fields[0] == "failed":
            failure = ": ".join(part for part in fields[1:] if part)
            return failure, ""
        elif fields[0] == "error":
            talk.finish(FINISH_SECONDS)
            raise _refusal(machine, fields)
        elif fields[0] == "look":
            lines: list[str] = []
            while not lines or lines[-1] != LAST_LINE:
                lines.append("\t".join(_read(machine, talk)))
            return "", "\n".join(lines) + "\n"


def _undone(machine: str, talk: Conversation, failure: str, notes: list[str]) -> Acted:
    while True:
        fields = _read(machine, talk)
        if fields[0] == "failed" and len(fields) > 1:
            notes.append(f"not undone: {fields[1]}")
        if fields[0] == "gpu":
            notes.append(lost_gpu(machine, fields))
        if fields[0] == "undone":
            talk.finish(FINISH_SECONDS)
            return Acted(machine, failure=failure, undone=fields[1:] == ["yes"], notes=tuple(notes))


def _read(machine: str, talk: Conversation) -> list[str]:
    try:
        line = talk.readline(STEP_SECONDS)
    except TimeoutError:
        raise FleetError(
            f"{machine}: nothing was heard for {STEP_SECONDS:.0f} s",
            hint="`invoke hostprep.check` says what the machine is; it undoes an unfinished run",
        ) from None
    if line is None:
        result = talk.finish(FINISH_SECONDS)
        words = f": {result.err.strip()[:300]}" if result.err.strip() else ""
        raise FleetError(
            f"{machine}: the run ended early (exit {result.exit}{words})",
            hint="`invoke hostprep.plan` says what is left of it",
        )
    return line.split("\t")


def _reachable(again: Callable[[], Host], sudo: bool) -> str:
    problem = ""
    for number in range(REACH_TRIES):
        time.sleep(REACH_PAUSE if number else 0)
        try:
            host = again()
            try:
                if host.run("true", sudo=sudo, timeout=FINISH_SECONDS).exit == 0:
                    return ""
                problem = "a new connection could not run anything"
            finally:
                host.close()
        except FleetError as error:
            problem = f"no new connection could be had: {error.what}"
    return problem


def _refusal(machine: str, fields: Sequence[str]) -> FleetError:
    kind, detail = (*fields[1:], "", "")[:2]
    if kind == "locked":
        return FleetError(
            f"{machine} is locked by {Lock.parse(detail, alive=True)}",
            hint="wait until that run ends; the lock goes with its process",
            code=LOCKED,
        )
    if kind == "moved":
        return FleetError(
            f"{machine} was changed by another run in the meantime ({detail})",
            hint="look at a new `invoke hostprep.plan`, then run this again",
        )
    if kind == "undone":
        return FleetError(f"{machine}: {detail}")
    return FleetError(f"{machine}: {detail}", hint=UNTOUCHED)
