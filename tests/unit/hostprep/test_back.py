"""Undo steps where there is nothing to undo, run by the real shell."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from inferfleet.hostprep.kinds import back
from inferfleet.hostprep.kinds.memory import zram
from inferfleet.hostprep.steps import Run


def run(step: Run, path: str | None = None) -> int:
    env = {"PATH": path or os.environ["PATH"]}
    return subprocess.run(step.argv, env=env, capture_output=True, check=False).returncode


def stub(folder: Path, name: str, status: int = 0) -> str:
    """A program that notes its arguments, first in PATH."""
    program = folder / name
    program.write_text(f'#!/bin/sh\necho "$@" >>{folder}/ran\nexit {status}\n')
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize(
    "step",
    [
        back.unload(["inferbase_no_such_module"]),
        back.rmdir(["/nonexistent/folder"]),
        back.umount("/nonexistent/mount"),
        back.mount("tmpfs", "rw", "tmpfs", "/"),
        back.script("/nonexistent/script.sh", "stop"),
    ],
)
def test_nothing_to_undo_is_no_failure(step: Run) -> None:
    assert run(step) == 0


def test_a_module_that_stays_is_a_failure(tmp_path: Path) -> None:
    loaded = sorted(path.name for path in Path("/sys/module").iterdir())[:2]
    assert run(back.unload(loaded), stub(tmp_path, "rmmod", 1)) == 1
    assert (tmp_path / "ran").read_text() == "".join(f"-- {name}\n" for name in loaded)


def test_only_empty_folders_are_removed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "file").touch()
    step = back.rmdir([str(tmp_path / one) for one in ("a/b", "a", "c")])
    assert run(step) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_swap_that_is_not_in_use_is_put_to_use(tmp_path: Path) -> None:
    step = back.swapon("/no\\040swap", "-p", "5", "--", "/no swap")
    assert run(step, stub(tmp_path, "swapon")) == 0
    assert (tmp_path / "ran").read_text() == "-p 5 -- /no swap\n"
    # The head of the table, as if it were a space of that name.
    assert run(back.swapon("Filename", "--", "x"), stub(tmp_path, "swapon", 1)) == 0


def test_a_script_that_is_there_runs(tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text('[ "$1" = stop ]\n')
    assert run(back.script(str(script), "stop")) == 0
    assert run(back.script(str(script), "start")) == 1


def test_the_script_of_compressed_swap_makes_and_removes_its_device(tmp_path: Path) -> None:
    """With a folder in place of /sys, /run and /dev, and programs that note what they are given."""
    text = next(file.content or "" for file in zram.files(4096) if file.path == zram.SCRIPT)
    for place in ("/sys/", "/run/", "/proc/"):
        text = text.replace(place, f"{tmp_path}{place}")
    for folder in ("sys/class/zram-control", "sys/block/zram3", "proc"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "sys/class/zram-control/hot_add").write_text("3\n")
    (tmp_path / "proc/swaps").write_text("Filename\n/dev/zram3 partition 4092 0 100\n")
    script = tmp_path / "zram.sh"
    script.write_text(text)
    for name in ("modprobe", "mkswap", "swapon", "swapoff"):
        path = stub(tmp_path, name)
    for words in (("start", "4096"), ("stop",), ("stop",)):
        assert run(Run(("sh", str(script), *words)), path) == 0
    assert (tmp_path / "ran").read_text() == "zram\n/dev/zram3\n-p 100 /dev/zram3\n/dev/zram3\n"
    assert (tmp_path / "sys/block/zram3/disksize").read_text() == "4096\n"
    assert (tmp_path / "sys/class/zram-control/hot_remove").read_text() == "3\n"
    assert not (tmp_path / "run/inferbase/zram").exists()
