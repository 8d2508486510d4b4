"""One run of host preparation on a real shell: done, undone, interrupted, refused."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from shlex import quote

import pytest
from hostprep_box import Box

from inferfleet.errors import LOCKED, FleetError
from inferfleet.host import Conversation
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
        "if ! arm; then",
        "if forward; then",
        "attempt 'values.one",
        "attempt 'values.two",
        "say 'look",
        "disarm",
        "history_line",
        'rm -f "$state/journal"',
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

    with pytest.raises(FleetError):
        box.apply(Gone("box"), **WANTED)
    assert box.whole() == "old"
    assert sorted(path.name for path in box.state.iterdir()) == ["history"]


def test_undo_needs_nothing_but_the_machine(box: Box) -> None:
    """What a timer or the next start of the machine runs."""
    assert box.apply(**WANTED).ok
    subprocess.run(["sh", str(box.state / "1" / "undo.sh")], check=True, env={"PATH": "/bin"})
    assert box.whole() == "old"
    assert not (box.state / "1").exists()


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
