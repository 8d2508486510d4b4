"""Full and read-only disks, cut uploads, things in the way, damaged records."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faults.fleet import FleetBox

from inferfleet.errors import FleetError
from inferfleet.hosts.host import Conversation
from inferfleet.hosts.local import LocalHost

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@contextmanager
def tmpfs(path: Path, options: str) -> Iterator[None]:
    path.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not possible here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


class CuttingHost(LocalHost):
    """Sends only the first bytes of the upload, then closes its end."""

    def __init__(self, size: int) -> None:
        super().__init__("box")
        self.size = size

    def converse(self, script: str, *, sudo: bool = False) -> Conversation:
        talk = super().converse(script, sudo=sudo)
        whole = talk.send

        def send(data: bytes) -> None:
            whole(data[: self.size])
            talk._session.program.close_input()  # type: ignore[attr-defined]

        talk.send = send  # type: ignore[method-assign]
        return talk


@pytest.mark.parametrize("size", [0, 700, 5120, 12_000])
def test_upload_cut(box: FleetBox, size: int) -> None:
    box.serve("two")
    with pytest.raises(FleetError, match=r"archive did not arrive|tar: "):
        box.up(host=CuttingHost(size))
    assert box.says() == "one"
    assert box.kept() == [1]
    assert box.leftovers() == []
    assert box.up().ok
    assert box.says() == "two"


def test_upload_cut_exactly_at_the_last_file(empty: FleetBox) -> None:
    from inferfleet.release.archive import pack

    planned = empty.planned()
    # All the files, without the blocks of zeros that end the archive.
    size = len(pack(planned.release).rstrip(b"\0")) // 512 * 512
    with pytest.raises(FleetError):
        empty.up(host=CuttingHost(size))
    assert empty.current() == 0
    assert empty.leftovers() == []


@needs_root
def test_disk_too_small_is_found_before_anything_is_written(empty: FleetBox) -> None:
    with tmpfs(empty.root, "size=256k"):
        (problem,) = empty.plan().problems
        assert "MiB free" in problem.what
        assert list(empty.root.iterdir()) == []


@needs_root
@pytest.mark.parametrize("left", [0, 4096, 16_384])
def test_disk_that_fills_up(empty: FleetBox, left: int) -> None:
    with tmpfs(empty.root, "size=8m"):
        assert empty.up().ok
        empty.serve("two")
        planned = empty.planned()
        filler = empty.root / "filler"
        free = os.statvfs(empty.root)
        filler.write_bytes(b"x" * max(0, free.f_bavail * free.f_frsize - left))
        with pytest.raises(FleetError, match=r"No space left|cannot write"):
            planned.talk.apply(planned, "up", lambda event: None)
        assert empty.says() == "one"
        assert (empty.current(), empty.kept()) == (1, [1])
        assert empty.leftovers() == []
        filler.unlink()
        assert empty.up().ok
        assert empty.says() == "two"
        empty.end()


@needs_root
def test_disk_that_is_full_after_the_switch_can_still_return(empty: FleetBox) -> None:
    with tmpfs(empty.root, "size=8m,nr_inodes=200"):
        assert empty.up().ok
        # A release whose service fills the disk, to the last inode, and never gets ready.
        script = empty.root.parent / "fill.sh"
        script.write_text(
            f"head -c 99m </dev/zero >{empty.root}/filler\n"
            f"i=0; while : >{empty.root}/n$i; do i=$((i+1)); done\nexit 64\n"
        )
        empty.serve("two", mode="crash", env={"BEFORE": str(script)})
        outcome = empty.up()
        assert outcome.rolled_back
        assert empty.current() == 1
        for path in empty.root.glob("n*"):
            path.unlink()
        (empty.root / "filler").unlink(missing_ok=True)
        empty.serve("one")
        empty.services["echo"].pop("env")
        empty.serve("one")
        assert empty.up().ok
        assert empty.says() == "one"
        assert empty.plan().empty
        empty.end()


@needs_root
def test_read_only_disk(empty: FleetBox) -> None:
    with tmpfs(empty.root, "size=8m"):
        assert empty.up().ok
        empty.serve("two")
        planned = empty.planned()
        # A mount of its own over it: the service's log keeps the other one open for writing.
        root = str(empty.root)
        subprocess.run(["mount", "--bind", root, root], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", root], check=True)
        try:
            with pytest.raises(FleetError, match="Read-only file system"):
                planned.talk.apply(planned, "up", lambda event: None)
            (problem,) = empty.plan().problems
            assert "is on a read-only file system" in problem.what or "read-only" in problem.what
            assert empty.says() == "one"
        finally:
            subprocess.run(["umount", "-l", root], check=True)
        assert empty.up().ok
        assert empty.says() == "two"
        empty.end()


@pytest.mark.parametrize("place", ["", ".inferbase", ".inferbase/generations"])
def test_symbolic_link_in_the_way(empty: FleetBox, place: str) -> None:
    elsewhere = empty.root.parent / "elsewhere"
    elsewhere.mkdir()
    target = empty.root / place if place else empty.root
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(elsewhere)
    planned = empty.planned()
    (problem,) = planned.plan.problems
    assert problem.what == f"{target} is a symbolic link"
    with pytest.raises(FleetError, match="symbolic link"):
        planned.talk.apply(planned, "up", lambda event: None)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("place", ["", ".inferbase"])
def test_symbolic_link_put_there_between_plan_and_apply(empty: FleetBox, place: str) -> None:
    planned = empty.planned()
    elsewhere = empty.root.parent / "elsewhere"
    elsewhere.mkdir()
    target = empty.root / place if place else empty.root
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(elsewhere)
    with pytest.raises(FleetError, match="symbolic link"):
        planned.talk.apply(planned, "up", lambda event: None)
    assert list(elsewhere.iterdir()) == []


def test_dangling_root(empty: FleetBox) -> None:
    empty.root.symlink_to(empty.root.parent / "nowhere")
    (problem,) = empty.plan().problems
    assert "symbolic link" in problem.what


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_something_else_where_current_belongs(empty: FleetBox, kind: str) -> None:
    empty.root.mkdir()
    current = empty.root / "current"
    if kind == "file":
        current.write_text("mine")
    elif kind == "directory":
        current.mkdir()
    else:
        current.symlink_to("/tmp")
    (problem,) = empty.plan().problems
    assert problem.what.startswith(f"{current} ")
    assert os.path.lexists(current)


def test_current_put_there_between_plan_and_apply(empty: FleetBox) -> None:
    planned = empty.planned()
    empty.root.mkdir()
    (empty.root / "current").write_text("mine")
    with pytest.raises(FleetError, match="changed by another run"):
        planned.talk.apply(planned, "up", lambda event: None)
    assert (empty.root / "current").read_text() == "mine"
    assert empty.leftovers() == []


@pytest.mark.parametrize("content", ["", "garbage\n", "1\t2\n"])
def test_damaged_journal(box: FleetBox, content: str) -> None:
    (box.state / "journal").write_text(content)
    box.serve("two")
    (problem,) = box.plan().problems
    assert problem.what == f"{box.state}/journal is damaged"
    assert f"rm {box.state}/journal" in problem.hint
    with pytest.raises(FleetError, match="journal is damaged"):
        box.down()
    assert box.says() == "one"
    (box.state / "journal").unlink()
    assert box.up().ok
    (box.state / "journal").write_text(content)
    assert box.rollback().ok
    assert box.says() == "one"
    assert box.leftovers() == []


@pytest.mark.parametrize("content", [None, "", "{", '{"format": 99}'])
def test_damaged_manifest(box: FleetBox, content: str | None) -> None:
    box.serve("two")
    assert box.up().ok
    manifest = box.root / "current" / ".manifest"
    if content is None:
        manifest.unlink()
    else:
        manifest.write_text(content)
    (problem,) = box.plan().problems
    assert problem.what.startswith(str(box.state / "generations" / "2" / ".manifest"))
    assert "`invoke rollback --to N` returns to one of 1" in problem.hint
    with pytest.raises(FleetError):
        box.down()
    assert box.rollback(1).ok
    assert box.says() == "one"
    box.serve("one")
    assert box.plan().empty


def test_damaged_kept_generation(box: FleetBox) -> None:
    box.serve("two")
    assert box.up().ok
    (box.state / "generations" / "1" / "process" / "echo" / "run").write_text("broken")
    with pytest.raises(FleetError, match="generation 1 is damaged: process/echo/run"):
        box.rollback(1)
    assert box.says() == "two"
