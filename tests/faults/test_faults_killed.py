"""The operator, or the script on the machine, is killed at every step of a change.

Each time the machine is wholly old or wholly new, the next plan says which, and a re-run
converges: the new service answers, nothing is left over, a further plan is empty.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.fleet import REPOSITORY, FleetBox

from inferfleet.errors import FleetError
from inferfleet.hosts.host import Conversation
from inferfleet.hosts.local import LocalHost
from inferfleet.observe.observed import Observed

OLD, NEW = 1, 2
BEFORE_SWITCH = ["prepare", "lock", "upload", "stage", "link", "switch"]
AFTER_SWITCH = ["start", "started", "confirm", "unlock"]
# The operator: dies as soon as it hears of the step, while the machine's side goes on.
OPERATOR = """
import os, signal, sys
sys.path[:0] = {paths!r}
import inferfleet.apply.apply as apply
from faults.fleet import MACHINE
from inferfleet.plan.plan import Goal
from inferfleet.run.run import Run

def die(record):
    if record == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

real = apply._Transaction.until
def until(self, kind, timeout):
    rest = real(self, kind, timeout)
    die(kind)
    return rest
apply._Transaction.until = until
session = Run(overlay=sys.argv[1], hosts=[MACHINE]).session(MACHINE)
planned = session.plan(Goal())
planned.talk.apply(planned, "up", lambda event: die(event.text) if event.kind == "step" else None)
"""


def eventually(condition: Callable[[], bool]) -> bool:
    for _ in range(1000):
        if condition():
            return True
        time.sleep(0.02)
    return False


def operate(box: FleetBox, step: str) -> int:
    """Run `up` in a process of its own that kills itself at the step; its exit status."""
    program = OPERATOR.format(paths=[str(REPOSITORY), str(REPOSITORY / "tests")])
    return subprocess.run(
        [sys.executable, "-c", program, str(box.overlay), step],
        env=box.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
    ).returncode


def applying(box: FleetBox) -> bool:
    """Whether the machine's side of a run still works on this box."""
    mark = b"# apply: the transaction"
    return any(mark in command_line(pid) for pid in box.processes())


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


class KillingHost(LocalHost):
    """Puts a `kill -9` of the script into the script, before the line that begins so."""

    def __init__(self, line: str, kill: str = "kill -9 $$") -> None:
        super().__init__("box")
        self.line, self.kill = line, kill

    def converse(self, script: str, *, sudo: bool = False) -> Conversation:
        lines = script.split("\n")
        (place,) = [i for i, line in enumerate(lines) if line.strip().startswith(self.line)]
        return super().converse("\n".join([*lines[:place], self.kill, *lines[place:]]), sudo=sudo)


def whole(box: FleetBox, seen: Observed) -> str:
    """Which of the two the machine is; every file of it is as its own record says."""
    assert seen.manifest is not None
    assert {path: sha for path, (sha, _) in seen.files.items()} == {
        path: sha for path, (sha, _, _) in seen.manifest.files.items()
    }
    assert seen.current in (OLD, NEW)
    return "old" if seen.current == OLD else "new"


def converges(box: FleetBox) -> None:
    """The invariant after any interruption."""
    seen = box.observed()
    which = whole(box, seen)
    if seen.journal is not None:
        assert f"wholly {which}" in seen.journal.verdict(seen.current)
        plan = box.plan()
        assert plan.steps[0].action == "recover"
        assert f"wholly {which}" in plan.steps[0].reason
    if which == "old":
        assert box.says() == "one"
    outcome = box.up()
    assert outcome.ok, outcome
    assert box.says() == "two"
    assert box.current() == NEW
    plan = box.plan()
    assert plan.empty
    if box.leftovers() == [".inferbase/lock"]:
        # Killed when all was done: nothing to change, and a lock that the next change takes.
        assert "the lock of a dead run will be taken over" in plan.notes[0]
    else:
        assert box.leftovers() == []
    assert box.kept() == [OLD, NEW]
    servers = [pid for pid in box.processes() if is_server(pid)]
    assert len(servers) == 1


def is_server(pid: int) -> bool:
    return b"echo_server.py" in command_line(pid)


@pytest.mark.parametrize("step", [*BEFORE_SWITCH, *AFTER_SWITCH])
def test_operator_killed(box: FleetBox, step: str) -> None:
    box.serve("two")
    assert operate(box, step) == -signal.SIGKILL
    # The machine's side ends by itself, and its lock with it.
    assert eventually(lambda: not applying(box))
    assert not os.path.lexists(box.state / "lock")
    converges(box)


@pytest.mark.parametrize(
    ("line", "which"),
    [
        ('[ -L "$root" ] && die', "old"),
        ('claim="$$|', "old"),
        ('in_force "$from" || die', "old"),
        ("problem=$(mkdir -m 700", "old"),
        ("cd /\nstep stage", "old"),
        ('problem=$(mv -T "$new"', "old"),
        ('[ -f "$gens/$to/.manifest" ] || die', "old"),
        ("step link", "old"),
        ('if [ "$from" != "$to" ]; then', "old"),
        ('sync "$root" 2>/dev/null\nfi', "new"),
        ("ok=yes\nif", "new"),
        ('if [ -n "$replace" ]; then control', "new"),
        ("say 'started", "new"),
        ('record "$what"', "new"),
        ('rm -f "$@" "$state/journal" "$root/.current.back"', "new"),
        ("prune\n      step", "new"),
    ],
)
def test_script_killed(box: FleetBox, line: str, which: str) -> None:
    box.serve("two")
    first, _, following = line.partition("\n")
    host = KillingHost(first)
    if following:
        host = FollowedHost(first, following.strip())
    with pytest.raises(FleetError, match="ended early"):
        box.up(host=host)
    assert whole(box, box.observed()) == which
    converges(box)


class FollowedHost(KillingHost):
    """As KillingHost, for the line that is followed by another one that begins so."""

    def __init__(self, line: str, following: str) -> None:
        super().__init__(line)
        self.following = following

    def converse(self, script: str, *, sudo: bool = False) -> Conversation:
        lines = [line.strip() for line in script.split("\n")]
        (place,) = [
            i
            for i, line in enumerate(lines[:-1])
            if line.startswith(self.line) and lines[i + 1].startswith(self.following)
        ]
        whole = script.split("\n")
        return LocalHost.converse(
            self, "\n".join([*whole[:place], self.kill, *whole[place:]]), sudo=sudo
        )


def test_first_apply_killed_after_the_switch(empty: FleetBox) -> None:
    with pytest.raises(FleetError, match="ended early"):
        empty.up(host=FollowedHost("ok=yes", "if"))
    seen = empty.observed()
    assert (seen.current, seen.generations) == (1, ())
    assert seen.journal is not None
    assert "wholly new (generation 1)" in seen.journal.verdict(1)
    assert empty.up().ok
    assert empty.says() == "one"
    assert empty.plan().empty
    assert empty.observed().generations == (1,)


def test_interrupted_and_never_ready_returns_to_the_old(box: FleetBox) -> None:
    box.serve("two", mode="never", **{"start-timeout": "2s"})
    assert operate(box, "started") == -signal.SIGKILL
    assert eventually(lambda: not applying(box))
    assert box.current() == NEW
    plan = box.plan()
    assert [step.action for step in plan.steps] == ["recover"]
    assert plan.wait == ("echo",)
    outcome = box.up()
    assert outcome.rolled_back
    assert outcome.notes == ()
    assert "not ready after 2 s" in outcome.failure
    assert box.says() == "one"
    assert box.current() == OLD
    assert box.kept() == [OLD]
    assert box.leftovers() == []


def test_interrupted_twice_still_returns_to_what_was_good(box: FleetBox) -> None:
    for word in ("two", "three"):
        box.serve(word, mode="never", **{"start-timeout": "2s"})
        assert operate(box, "started") == -signal.SIGKILL
        assert eventually(lambda: not applying(box))
    assert box.current() == 3
    journal = box.observed().journal
    assert journal is not None
    assert (journal.source, journal.to) == (1, 3)
    assert box.up().rolled_back
    assert box.says() == "one"
    assert box.kept() == [OLD]
    assert box.leftovers() == []


def test_interrupted_while_it_returned(box: FleetBox) -> None:
    box.serve("two", mode="never", **{"start-timeout": "1s"})
    assert operate(box, "reverted") == -signal.SIGKILL
    assert eventually(lambda: not applying(box))
    seen = box.observed()
    assert seen.current == OLD
    assert seen.journal is not None
    assert "while it returned: it is wholly old" in seen.journal.verdict(seen.current)
    box.services["echo"].pop("start-timeout")
    box.serve("two")
    assert box.up().ok
    assert box.says() == "two"
    assert box.leftovers() == []
    assert box.plan().empty


def test_down_interrupted(box: FleetBox) -> None:
    planned = box.session(KillingHost("say 'started")).plan_down(None)
    with pytest.raises(FleetError, match="ended early"):
        planned.talk.apply(planned, "down", lambda event: None)
    assert "generation 1 stayed in force" in box.plan().steps[0].reason
    assert box.down().ok
    assert box.leftovers() == []
    assert box.processes() == []
    assert box.up().ok
    assert box.says() == "one"
