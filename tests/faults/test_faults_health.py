"""Services after they were ready: what `health` sees, and how far restarts go; real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults.fleet import KIND, MACHINE, REPOSITORY, FleetBox
from invoke.context import Context
from invoke.exceptions import Exit
from ports import free_port

from inferfleet.apply.apply import Outcome
from inferfleet.errors import FleetError
from inferfleet.events import silent
from inferfleet.health import ask
from inferfleet.operations.look import Examiner, Look
from inferfleet.operations.repair import revive
from inferfleet.operations.watch import Wanted, Ward, check_health
from inferfleet.plan.plan import Goal
from inferfleet.plan.steps import Step
from inferfleet.run.run import Run
from inferfleet.tasks.look import health as health_task

SERVER = Path(__file__).resolve().parent / "moody_server.py"
AT = ("--host", MACHINE)


class Moody:
    """One service whose behaviour is told through a file."""

    def __init__(self, folder: Path, **service: Any) -> None:
        self.box = FleetBox(folder)
        self.mood_file = folder / "mood"
        process = {
            "command": [
                [sys.executable, "-S", str(SERVER), "--host", "{bind}", "--port", "{port}"],
                ["--mood", str(self.mood_file)],
            ]
        }
        kind = {
            **KIND, "process": process, "options": {}, "start-timeout": "30s",
            "health": {"path": "/health", "loading": [503], "deadline": "1s"},
            "metrics": {
                "path": "/metrics", "tokens": "moody:tokens_total",
                "progress": ["moody:tokens_total"], "running": ["moody:running"],
            },
            "failures": [
                {"match": "out of luck: (?P<short>.*)", "says": "CUDA has no luck ({short})",
                 "hint": "wait for better luck"},
            ],
        }  # fmt: skip
        (self.box.overlay / "services" / "moody.yaml").write_text(yaml.safe_dump(kind))
        self.feel("good")
        restart = {"max": 2, "backoff": "1s"}
        self.box.services = {
            "moody": {"kind": "moody", "program": "/bin/true", "port": self.box.port,
                      "restart": restart, **service},
        }  # fmt: skip
        self.box.write()

    def feel(self, mood: str) -> None:
        self.mood_file.write_text(mood)

    def look(self) -> Look:
        (look,) = Examiner(self.box.session(), None).round()
        return look

    def verdict(self) -> tuple[str, str]:
        found = self.look().finding
        return found.verdict, found.detail

    def health(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.box.invoke("health", *AT, *words)

    def check(self, form: str = "table", **wanted: Any) -> int:
        """What the task does, in this process; the exit code."""
        run = Run(overlay=self.box.overlay, hosts=[MACHINE])
        return check_health(run, Wanted(**wanted), form)

    def child_or_none(self) -> int | None:
        """Its process, if there is one now."""
        record = self.box.state / "run/moody/child"
        return int(record.read_text().split()[0]) if record.exists() else None

    def child(self) -> int:
        """Its process, once there is one."""
        record = self.box.root / ".inferbase/run/moody/child"
        limit = time.monotonic() + 30
        while not record.exists():
            assert time.monotonic() < limit
            time.sleep(0.02)
        return int(record.read_text().split()[0])


@pytest.fixture
def moody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Moody]:
    # What answers here does so at once.
    monkeypatch.setattr(ask, "HEALTH_SECONDS", 0.5)
    monkeypatch.setattr(ask, "SCRAPE_SECONDS", 0.5)
    made = Moody(tmp_path)
    assert made.box.up().ok
    yield made
    made.box.end()


def test_what_a_service_can_be(moody: Moody) -> None:
    """Everything but a good mood still answers its health URL with 200, `loading` aside."""
    assert moody.verdict() == ("healthy", "generated a token")
    found = {}
    for mood in ("busy", "stuck", "mute", "broken", "shy", "loading"):
        moody.feel(mood)
        found[mood] = moody.verdict()
    assert {mood: verdict for mood, (verdict, _) in found.items()} == {
        "busy": "busy", "stuck": "stuck", "mute": "unreachable", "broken": "dead", "shy": "busy",
        "loading": "loading",
    }  # fmt: skip
    assert "CUDA is gone" in found["broken"][1]
    assert re.search(r"none of \d requests? has advanced", found["stuck"][1])
    assert "its counters did not answer in time" in found["mute"][1]

    # The process itself stands still: the kernel takes connections, nobody answers them.
    moody.feel("good")
    os.kill(moody.child(), signal.SIGSTOP)
    verdict, detail = moody.verdict()
    assert (verdict, "its counters did not answer in time" in detail) == ("unreachable", True)
    os.kill(moody.child(), signal.SIGCONT)
    assert moody.box.down().ok
    assert moody.verdict()[0] == "stopped"


def test_what_was_ready_once_is_not_loading_any_more(moody: Moody) -> None:
    """Its start-timeout is 30 s. Whatever starts it again, the new start has its time again."""
    note = moody.box.state / "ready" / "moody"
    first = note.read_text()  # `up` has seen it
    os.kill(moody.child(), signal.SIGKILL)
    gone = time.monotonic() + 30
    while moody.child_or_none() == int(first.split()[0]) or moody.child_or_none() is None:
        assert time.monotonic() < gone
        time.sleep(0.02)
    os.kill(moody.child(), signal.SIGSTOP)
    assert moody.verdict()[0] == "loading"
    assert note.read_text() == first
    os.kill(moody.child(), signal.SIGCONT)
    assert moody.check(wait=30.0) == 0
    assert note.read_text().split()[0] == str(moody.child())
    os.kill(moody.child(), signal.SIGSTOP)
    found = moody.look().finding
    assert (found.verdict, found.silent) == ("unreachable", True)
    os.kill(moody.child(), signal.SIGCONT)
    # What cannot be noted is as it was before notes.
    note.unlink()
    note.parent.rmdir()
    note.parent.write_text("")
    assert moody.verdict()[0] == "healthy"
    os.kill(moody.child(), signal.SIGSTOP)
    assert moody.verdict()[0] == "loading"
    os.kill(moody.child(), signal.SIGCONT)


def test_what_was_evicted_is_no_fault_and_what_runs_is_looked_at(moody: Moody) -> None:
    """`up --service big --evict`, as its plan is where memory is short."""
    box = moody.box
    big = {**box.services["moody"], "port": free_port(), "autostart": False}
    box.services["big"] = big
    box.write()
    examiner = Examiner(box.session(), None)

    def seen() -> dict[str, str]:
        return {look.service: look.finding.verdict for look in examiner.round()}

    def evict() -> Outcome:
        planned = box.planned(Goal(True, frozenset({"big"}), evict=True))
        step = Step("evict", "moody", "makes room for big: 5 GiB")
        steps = [s for s in planned.plan.steps if s.target != "moody"]
        plan = replace(planned.plan, steps=(*steps[:-1], step, steps[-1]))
        return planned.talk.apply(replace(planned, plan=plan), "up", silent)

    assert evict().ok
    assert seen() == {"moody": "evicted", "big": "healthy"}
    assert moody.check() == 0
    ready = {look.service: look.row["ready"] for look in examiner.round()}
    assert ready == {"moody": False, "big": True}
    moody.feel("broken")
    assert moody.check() == 3
    moody.feel("good")
    planned = box.session().plan_down(None)
    assert planned.talk.apply(planned, "down", silent).ok
    assert seen() == {"moody": "stopped"}
    assert box.session().plan_down(None).plan.empty

    assert box.up().ok
    assert evict().ok
    assert box.up().ok
    assert seen() == {"moody": "healthy", "big": "healthy"}
    assert not (box.state / "evicted" / "moody").exists()
    planned = box.session().plan_down(None)
    assert planned.talk.apply(planned, "down", silent).ok
    assert seen() == {"moody": "stopped"}

    # A newcomer that does not start: who was there runs again, and `up` says so.
    assert box.up().ok
    kind = yaml.safe_load((box.overlay / "services" / "moody.yaml").read_text())
    kind["process"]["command"] = [["{program}"]]
    (box.overlay / "services" / "brief.yaml").write_text(yaml.safe_dump(kind))
    box.services["big"] = {**big, "kind": "brief"}
    box.write()
    assert evict().notes == ("moody, which had made room, runs again",)
    assert seen() == {"moody": "healthy"}


def test_a_machine_that_cannot_be_asked_is_no_good_news(moody: Moody) -> None:
    """Nobody knows what runs there of what does not start by itself."""
    moody.box.services["moody"]["autostart"] = False
    moody.box.write()
    run = Run(overlay=moody.box.overlay, hosts=[MACHINE])
    ward = Ward(run, 0)
    assert [look.finding.verdict for look in ward.round()] == ["healthy"]
    for other in (ward, Ward(run, 0)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Examiner, "round", lost)
            (look,) = other.round()
        assert (look.service, look.finding.verdict) == ("moody", "unreachable")


def lost(*_: object) -> list[Look]:
    raise FleetError("the connection is lost")


def test_the_command_line(moody: Moody) -> None:
    """Table, JSON, exit codes, a watch of changes; wrong words are refused before anything."""
    good = moody.health()
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.splitlines()[1].split()[:3] == [MACHINE, "moody", "healthy"]
    moody.feel("stuck")
    watch = [sys.executable, "-m", "invoke", "health", *AT, "--watch", "--interval", "0.2s"]
    process = subprocess.Popen(
        [*watch, "--format", "json"], cwd=REPOSITORY, env=moody.box.environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert (first["verdict"], first["changed"]) == ("stuck", True)
    moody.feel("good")
    seen = [json.loads(line) for line in (process.stdout.readline() for _ in range(4))]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert [row["verdict"] for row in seen if row["changed"]] == ["healthy"]
    assert seen[-1]["verdict"] == "healthy"


@pytest.mark.parametrize(
    "wrong", [{"for_": "5m"}, {"wait": "x"}, {"watch": True, "wait": "5s"},
              {"restart": True, "at_most": "0"}, {"restart": True, "at_most": "x"},
              {"interval": "5s"}, {"at_most": "2"}],
)  # fmt: skip
def test_wrong_words(wrong: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exit) as refused:
        health_task(Context(), **wrong)
    assert refused.value.code == 64
    assert "error: health: --" in capsys.readouterr().err


def test_once_and_watched(moody: Moody, capsys: pytest.CaptureFixture[str]) -> None:
    moody.feel("stuck")
    assert moody.check("json") == 3
    out, err = capsys.readouterr()
    (row,) = json.loads(out)
    assert (row["verdict"], row["ready"], row["running"]) == ("stuck", False, 1)
    assert row["seconds"] == 1.0
    assert "health --restart" in err
    moody.feel("good")
    assert moody.check(watch=True, interval=0.1, span=0.5) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split()[1:4] == [MACHINE, "moody", "healthy"]
    moody.feel("loading")
    assert moody.check(watch=True, interval=0.1, span=0.3) == 3


def test_stuck_is_restarted_a_few_times_and_then_left(
    moody: Moody, capsys: pytest.CaptureFixture[str]
) -> None:
    """The machine remembers; another run on it is waited for by nobody."""
    first = moody.child()
    moody.feel("stuck")
    session = moody.box.session()
    for number in (1, 2):
        seen = ""
        while "restarted" not in seen:  # after a restart it is loading first
            assert moody.check(most=2) == 3
            seen = capsys.readouterr().out
        assert f"has been restarted ({number} of 2 in an hour)" in seen
    assert moody.child() != first
    child = moody.child()
    assert revive(session, "moody", 2)[0] is False
    seen = ""
    while "gave up" not in seen:
        assert moody.check(most=2) == 3
        seen = capsys.readouterr().out
    assert "gave up after 2 restarts in an hour" in seen
    assert moody.child() == child
    ledger = moody.box.root / ".inferbase/restarts/moody"
    assert len(ledger.read_text().split()) == 2

    # What is older than an hour, or from a clock that ran ahead, counts no more.
    now = int(time.time())
    ledger.write_text(f"{now - 4000}\n{now + 9999}\nnonsense\n{now - 60}\n")
    moody.feel("good")
    assert revive(session, "moody", 2) == (
        True, "has been restarted (2 of 2 in an hour)"
    )  # fmt: skip
    assert len(ledger.read_text().split()) == 2
    assert moody.check(wait=30.0) == 0

    lock = moody.box.root / ".inferbase" / "lock"
    born = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    lock.symlink_to(f"{os.getpid()}|{born}|ann@laptop|now|up")
    moody.feel("stuck")
    ledger.unlink()
    capsys.readouterr()
    assert moody.check(most=3) == 3
    assert "is locked by ann@laptop" in capsys.readouterr().out
    assert not ledger.exists()
    lock.unlink()


def test_silence_is_restarted_at_the_second_look_only(
    moody: Moody, capsys: pytest.CaptureFixture[str]
) -> None:
    """An engine in the middle of a long prompt may let its counters wait, too."""
    child = moody.child()
    ledger = moody.box.root / ".inferbase/restarts/moody"
    moody.feel("mute")
    assert moody.check() == 3
    out, err = capsys.readouterr()
    assert "unreachable" in out
    assert "look again" in err
    moody.feel("mute-once")
    assert moody.check(most=2) == 0
    assert "healthy" in capsys.readouterr().out
    assert (moody.child(), ledger.exists()) == (child, False)
    moody.feel("mute")
    seen = ""
    while "restarted" not in seen:
        assert moody.check(most=2) == 3
        seen = capsys.readouterr().out
    assert "at a second look; has been restarted (1 of 2 in an hour)" in seen
    assert moody.child() != child


def test_a_crash_loop_ends_and_is_explained(
    moody: Moody, capsys: pytest.CaptureFixture[str]
) -> None:
    moody.feel("dead")
    os.kill(moody.child(), signal.SIGKILL)
    limit = time.monotonic() + 30
    while "gave up" not in moody.verdict()[1]:
        assert time.monotonic() < limit
        time.sleep(0.1)
    status = moody.box.invoke("status", *AT)
    assert "gave up after 2 restarts in" in status.stdout
    assert "`invoke health --service moody` says why" in status.stdout
    capsys.readouterr()
    assert moody.check() == 3
    out, err = capsys.readouterr()
    assert "dead" in out
    assert "CUDA has no luck (7 MiB short) (exit 1, gave up after 2 restarts" in out
    assert "wait for better luck" in err
    assert "`invoke up --service moody` starts it again" in err
    assert "  moody: CUDA out of luck: 7 MiB short" in err

    failed = moody.box.invoke("up", *AT)
    assert failed.returncode == 1
    assert "moody: CUDA has no luck (7 MiB short)" in failed.stderr
    assert "hint: wait for better luck" in failed.stderr
    assert "in its own words:\n  moody: CUDA out of luck: 7 MiB short" in failed.stderr
    moody.feel("good")
    assert moody.box.up().ok
    assert moody.verdict()[0] == "healthy"
