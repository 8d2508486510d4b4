"""One run of host preparation on a real shell: done, undone, interrupted, refused."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import time
from pathlib import Path
from shlex import quote, split

import pytest
from hostprep_box import Box

from inferfleet.apply.apply import KEEP_GENERATIONS
from inferfleet.errors import LOCKED, FleetError
from inferfleet.hostprep import act as acting
from inferfleet.hostprep.act import generations
from inferfleet.hostprep.ground import unseen
from inferfleet.hostprep.script import undo_script
from inferfleet.hostprep.steps import Write
from inferfleet.hosts.host import Conversation
from inferfleet.hosts.local import LocalHost

WANTED = {"one": "new", "two": "new"}


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_apply_then_nothing_then_back(box: Box) -> None:
    acted = box.apply(**WANTED)
    assert acted.ok
    assert acted.changed
    assert box.whole() == "new"
    assert [event.text for event in box.events][-1] == "values.two: old -> new"
    # The command that must follow the file, once, and before the live values.
    assert (box.root / "log").read_text().split() == ["reload", "one", "two"]
    _, prepared = box.see(**WANTED)
    assert not prepared.changes
    assert not prepared.wrong
    assert not (box.state / "journal").exists()
    assert box.rollback().undone
    assert box.whole() == "old"
    assert sorted(path.name for path in box.state.iterdir()) == ["history"]


def test_each_run_is_undone_by_itself(box: Box) -> None:
    box.apply(one="new")
    box.apply(one="newer", two="new")
    assert box.live() == {"one": "newer", "two": "new"}
    box.rollback()
    assert box.live() == {"one": "new", "two": "old"}
    assert box.ours.read_text() == "one=new\n"
    box.rollback()
    assert box.whole() == "old"


def test_the_newest_runs_can_be_undone(box: Box) -> None:
    count = KEEP_GENERATIONS + 2
    for number in range(count):
        assert box.apply(one=f"v{number}").ok
    kept = sorted(int(path.name) for path in box.state.iterdir() if path.is_dir())
    assert kept == list(range(3, count + 1))
    for number in reversed(range(1, count - 1)):
        box.rollback()
        assert box.live()["one"] == f"v{number}"
    assert generations(box.ground(), box.see()[0]) == []
    assert box.apply(one="new").ok
    box.rollback()
    assert box.live()["one"] == "v1"


def test_a_replaced_file_comes_back_byte_for_byte(box: Box) -> None:
    box.ours.write_bytes(b"no line end \xff")
    box.ours.chmod(0o640)
    assert box.apply(**WANTED).ok
    assert stat.S_IMODE(box.ours.stat().st_mode) == 0o640
    box.rollback()
    assert box.ours.read_bytes() == b"no line end \xff"
    assert stat.S_IMODE(box.ours.stat().st_mode) == 0o640


def test_what_is_not_wanted_any_more_goes(box: Box) -> None:
    box.apply(one="new")
    _, prepared = box.see()
    assert [change.settings for change in prepared.changes] == [(str(box.ours),)]
    assert box.apply().ok
    assert not box.ours.exists()


def test_a_value_that_is_refused_undoes_everything(box: Box) -> None:
    (box.root / "live" / "two").unlink()
    (box.root / "live" / "two").mkdir()
    acted = box.apply(**WANTED)
    assert not acted.ok
    assert acted.undone
    assert acted.failure.startswith("values.two: None -> new: ")
    assert "does not take new" in acted.failure
    assert (box.root / "live" / "one").read_text() == "old\n"
    assert not box.ours.exists()
    assert sorted(path.name for path in box.state.iterdir()) == ["history"]


@pytest.mark.parametrize(
    ("text", "old"), [("old", "old"), ("1\t2", "1 2"), ("[old] new", "old"), ("new [old]", "old")]
)
def test_what_was_refused_needs_no_undo(box: Box, text: str, old: str) -> None:
    """As on a read-only /proc/sys, which takes not even the value that it has."""
    live = box.root / "live"
    box.set("one", text)
    script = undo_script(str(box.state / "1"), [Write(str(live / "one"), old)])
    (box.state / "1").mkdir(parents=True)
    refusing = script.replace("{ printf", "false && { printf").replace("env printf", "env false")
    done = subprocess.run(["sh", "-c", refusing], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_value_that_reads_back_differently_undoes_everything(box: Box) -> None:
    """Some files take a value and keep another one, as a clock that is rounded does."""
    kind = box.kinds["values"]
    live = box.root / "live"

    class Rounding(LocalHost):
        def converse(self, script: str, *, sudo: bool = False) -> Conversation:
            spoiled = script.replace("say 'look\\n'", f"echo odd >{live}/two; say 'look\\n'")
            return super().converse(spoiled, sudo=sudo)

    assert kind is not None
    acted = box.apply(Rounding("box"), **WANTED)
    assert acted.failure.startswith("read back: values.two is odd (wanted new, differs)")
    assert acted.undone
    assert box.whole() == "old"


def test_a_link_is_not_followed(box: Box, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    box.ours.symlink_to(victim)
    acted = box.apply(**WANTED)
    assert "is a symbolic link" in acted.failure
    assert victim.read_text() == "precious\n"
    assert box.ours.is_symlink()
    assert box.live() == {"one": "old", "two": "old"}


def test_two_runs_at_once(box: Box) -> None:
    box.state.mkdir()
    born = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    (box.state / "lock").symlink_to(f"{os.getpid()}|{born}|ann@x|2026-11-21T00:00:00Z|hostprep")
    with pytest.raises(FleetError, match="locked by ann@x") as caught:
        box.apply(**WANTED)
    assert caught.value.code == LOCKED
    assert box.whole() == "old"


class KilledAt(LocalHost):
    """Kills the machine's side with SIGKILL before the line that begins so."""

    def __init__(self, line: str) -> None:
        super().__init__("box")
        self.line = line

    def converse(self, script: str, *, sudo: bool = False) -> Conversation:
        lines = script.split("\n")
        places = [i for i, line in enumerate(lines) if line.strip().startswith(self.line)]
        place = places[0]
        return super().converse(
            "\n".join([*lines[:place], "kill -9 $$", *lines[place:]]), sudo=sudo
        )


@pytest.mark.parametrize(
    "line",
    [
        'if [ "$cut" != 0 ] && ! {',
        "if ! forward; then",
        "attempt 'values.one",
        "attempt 'values.two",
        "say 'look",
        'if [ "$cut" != 0 ] && ! rm',
        'history_line "$what"',
        'rm -f "$state/journal" "$state/undone"',
    ],
)
def test_killed_anywhere(box: Box, line: str) -> None:
    """A killed run is undone by the next one, which then converges."""
    with pytest.raises(FleetError, match="ended early"):
        box.apply(KilledAt(line), **WANTED)
    acted = box.apply(**WANTED)
    assert acted.ok
    assert box.whole() == "new"
    assert not (box.state / "lock").is_symlink()
    assert sorted(p.name for p in box.state.iterdir() if p.is_dir()) == ["1"]
    box.rollback()
    assert box.whole() == "old"


def test_an_operator_that_goes_away_is_undone(box: Box) -> None:
    """Its connection ends while the machine waits for the verdict."""

    class Gone(LocalHost):
        def converse(self, script: str, *, sudo: bool = False) -> Conversation:
            talk = super().converse(script, sudo=sudo)
            talk.finish(30)
            return talk

    acted = box.apply(Gone("box"), **WANTED)
    assert acted.undone
    assert acted.failure == "the machine has undone it: it heard nothing for too long"
    assert box.whole() == "old"
    assert sorted(path.name for path in box.state.iterdir()) == ["history", "undone"]
    facts, _ = box.see(**WANTED)
    (note,) = unseen(box.ground(), facts)
    assert re.fullmatch(
        "run 1 was undone by the machine itself at 2.*Z: its operator was lost", note
    )
    assert box.apply(**WANTED).ok
    assert unseen(box.ground(), box.see(**WANTED)[0]) == ()


def test_undo_needs_nothing_but_the_machine(box: Box) -> None:
    """What a timer or the next start of the machine runs."""
    assert box.apply(**WANTED).ok
    subprocess.run(["sh", str(box.state / "1" / "undo.sh")], check=True, env={"PATH": "/bin"})
    assert box.whole() == "old"
    assert not (box.state / "1").exists()


@pytest.mark.parametrize("left", ["nothing", "generation"])
def test_killed_before_the_first_or_after_the_last_step(box: Box, left: str) -> None:
    """A journal of a generation that is not there, or has no undo, keeps nobody out."""
    (box.state / "1").mkdir(parents=True)
    if left == "nothing":
        (box.state / "1").rmdir()
    (box.state / "journal").write_text("1\n")
    assert box.apply(**WANTED).ok
    assert box.whole() == "new"
    assert not (box.state / "journal").exists()


# Stands for systemd-run and systemctl: $TIMER says when the undo runs, if at all.
SYSTEMD = """#!/bin/sh
echo "${0##*/} $*" >>"$LOG"
[ "${0##*/}" = systemd-run ] || exit 0
case $TIMER in
  refused) exit 1 ;;
  at-once) while [ $# -gt 7 ]; do shift; done; exec "$@" ;;
esac
"""


@pytest.fixture
def timer(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log of what is told to systemd; every value of the box may cut it off."""
    folder, log = tmp_path / "bin", tmp_path / "systemd.log"
    folder.mkdir()
    for name in ("systemd-run", "systemctl"):
        (folder / name).write_text(SYSTEMD)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(log))
    monkeypatch.setenv("TIMER", "later")
    monkeypatch.setattr(acting, "REACH_PAUSE", 0)
    box.values.cuts = True
    return log


def test_a_change_that_may_cut_us_off_is_confirmed_anew(box: Box, timer: Path) -> None:
    assert box.apply(again=lambda: LocalHost("new"), **WANTED).ok
    assert box.whole() == "new"
    first, second, *stops = timer.read_text().splitlines()
    assert "--unit=inferbase-hostprep-slow-1 " in first
    assert "--unit=inferbase-hostprep-undo-1 " in second
    assert f"--on-active={acting.CUT_SECONDS} " in second
    assert [line.split()[2] for line in stops] == [
        "inferbase-hostprep-slow-1.timer", "inferbase-hostprep-slow-1.timer"
    ]  # fmt: skip
    assert not (box.state / "1" / "armed").exists()
    assert not list((box.root / "units").rglob("*.service"))


def test_the_next_start_undoes_it_too(box: Box, timer: Path) -> None:
    """No timer outlives the power of its machine; the unit that is there until the commit does."""
    units = box.root / "units"
    seen: list[str] = []

    def lost() -> LocalHost:
        unit = units / "inferbase-hostprep-undo.service"
        link = units / "sysinit.target.wants" / unit.name
        assert link.resolve() == unit
        seen.append(unit.read_text())
        raise FleetError("the machine lost its power")

    assert not box.apply(again=lost, **WANTED).ok
    assert not list(units.rglob("*.service"))
    box.apply(**WANTED)
    (line,) = [x for x in seen[0].splitlines() if x.startswith("ExecStart=")]
    # As systemd reads it: words of the shell, $$ for $.
    words = split(line.removeprefix("ExecStart=").replace("$$", "$"))
    subprocess.run(words, check=False)
    assert box.whole() == "new"
    (box.state / "1" / "armed").touch()
    subprocess.run(words, check=True)
    assert box.whole() == "old"


def test_no_new_connection_undoes_it(box: Box, timer: Path) -> None:
    def cut() -> LocalHost:
        raise FleetError("refused by the firewall")

    acted = box.apply(again=cut, **WANTED)
    assert acted.failure == "no new connection could be had: refused by the firewall"
    assert acted.undone
    assert box.whole() == "old"
    assert "inferbase-hostprep-undo-1.service" in timer.read_text().splitlines()[-1]
    assert sorted(path.name for path in box.state.iterdir()) == ["history"]


def test_a_connection_that_comes_back_in_time_is_enough(box: Box, timer: Path) -> None:
    hosts = [LocalHost("new")]
    tries: list[int] = []

    def slow() -> LocalHost:
        tries.append(1)
        if len(tries) < acting.REACH_TRIES:
            raise FleetError("connection refused")
        return hosts[0]

    assert box.apply(again=slow, **WANTED).ok


def test_the_timer_before_the_end_undoes_what_was_done(
    box: Box, timer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIMER", "at-once")
    acted = box.apply(again=lambda: LocalHost("new"), **WANTED)
    assert "the machine has undone the run by itself" in acted.failure
    assert acted.undone
    assert box.whole() == "old"
    assert unseen(box.ground(), box.see(**WANTED)[0])


def test_a_confirmation_that_comes_too_late(box: Box, timer: Path) -> None:
    def late() -> LocalHost:
        (box.state / "1" / "armed").unlink()
        subprocess.run(["sh", str(box.state / "1" / "undo.sh")], check=True)
        return LocalHost("new")

    with pytest.raises(FleetError, match="undone it by itself: the confirmation came too late"):
        box.apply(again=late, **WANTED)
    assert box.whole() == "old"
    assert not (box.state / "lock").is_symlink()


def test_silence_that_is_too_long(box: Box, timer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting, "SILENCE_SECONDS", 1)

    def slow() -> LocalHost:
        while (box.state / "1").exists():
            time.sleep(0.05)
        return LocalHost("new")

    acted = box.apply(again=slow, **WANTED)
    assert acted.failure == "the machine has undone it: it heard nothing for too long"
    assert acted.undone
    assert box.whole() == "old"


def test_without_a_timer_nothing_dangerous_is_done(
    box: Box, timer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIMER", "refused")
    with pytest.raises(FleetError, match="systemd-run cannot set the timer") as caught:
        box.apply(again=lambda: LocalHost("new"), **WANTED)
    assert caught.value.hint == "nothing was changed"
    assert box.whole() == "old"
    assert list(box.state.iterdir()) == []


def test_an_undo_that_fails_says_what_and_can_be_repeated(box: Box) -> None:
    assert box.apply(**WANTED).ok
    two = box.root / "live" / "two"
    two.unlink()
    two.mkdir()
    with pytest.raises(FleetError, match="could not be undone wholly") as caught:
        box.rollback()
    assert "two" in caught.value.what
    assert (box.state / "1" / "undo.sh").exists()
    two.rmdir()
    box.set("two", "new")
    box.rollback()
    assert box.whole() == "old"


def test_the_record_says_what_was_done(box: Box) -> None:
    box.apply(**WANTED)
    record = json.loads((box.state / "1" / "record.json").read_text())
    assert record["settings"] == [str(box.ours), "values.one", "values.two"]
    assert stat.S_IMODE((box.state / "1").stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_permission_denied_changes_nothing(box: Box) -> None:
    class Nobody(LocalHost):
        def converse(self, script: str, *, sudo: bool = False) -> Conversation:
            return super().converse(f"exec setpriv --reuid 65534 sh -c {quote(script)}", sudo=sudo)

    with pytest.raises(FleetError, match="Permission denied") as caught:
        box.apply(Nobody("box"), **WANTED)
    assert caught.value.hint == "nothing was changed"
    assert box.whole() == "old"
