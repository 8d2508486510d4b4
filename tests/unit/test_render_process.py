"""The rendered supervisor, run for real with small shell programs as the service."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import render_cases
from fleet_files import error_lines, load_files

from inferfleet.render.render import render, write_release
from inferfleet.secrets import Secret

SERVICE = "guarded"
STEADY = 'trap "exit 0" TERM; echo "up $LLAMA_API_KEY"; while :; do sleep 0.05; done'


class Process:
    """One rendered service whose program is a shell script."""

    def __init__(self, folder: Path, script: str, path: str | None = None) -> None:
        self.folder = folder
        program = folder / "program"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        fleet = render_cases.with_service(
            render_cases.fleet("laptop"), "case-laptop", SERVICE, program=str(program)
        )
        machine = fleet.machines["case-laptop"].model_copy(update={"root": str(folder / "ro ot")})
        fleet = dataclasses.replace(fleet, machines={"case-laptop": machine})
        release = render(fleet, "case-laptop", {"LLAMA_API_KEY": Secret("it's $HOME\n\\n")})
        write_release(release, folder / "ro ot" / "current")
        self.run_file = folder / "ro ot/current/process" / SERVICE / "run"
        self.state_dir = folder / "ro ot/.inferbase/run" / SERVICE
        self.environ = {**os.environ, "PATH": path or os.environ["PATH"]}

    def __call__(self, verb: str) -> str:
        done = subprocess.run(
            ["/bin/sh", self.run_file, verb],
            capture_output=True,
            text=True,
            check=False,
            env=self.environ,
        )
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout.strip()

    def pid(self, of: str) -> int:
        return int((self.state_dir / of).read_text().split()[0])

    def up(self, times: int = 1) -> bool:
        """The service has said so, and its process is on record."""
        return self.log().count("up") >= times and (self.state_dir / "child").exists()

    def log(self) -> str:
        return (self.state_dir / "log").read_text()

    def left(self) -> list[str]:
        """Processes that have this test's folder in their command line."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = entry.read_bytes().decode(errors="replace")
            except OSError:
                continue
            if str(self.folder) in words:
                found.append(words)
        return found


def until(condition: Callable[[], object]) -> None:
    """Returns when the condition holds; the limit only ends a test that has failed."""
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit, "the condition was never met"
        time.sleep(0.02)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    made: list[Process] = []

    def make_one(script: str = STEADY, path: str | None = None) -> Process:
        made.append(Process(tmp_path, script, path))
        return made[-1]

    yield make_one
    for process in made:
        process("stop")
        until(lambda process=process: not process.left())  # type: ignore[misc]


def test_life(make: Callable[..., Process]) -> None:
    process = make()
    assert process("state") == "stopped"
    process("start")
    until(lambda: (process.state_dir / "child").exists())
    word, pid, since, restarts = process("state").split()
    assert (word, int(pid), restarts) == ("running", process.pid("child"), "0")
    assert abs(int(since) - time.time()) < 60
    supervisor = process.pid("supervisor")
    process("start")
    assert process.pid("supervisor") == supervisor
    process("stop")
    assert process("state") == "stopped"
    assert os.listdir(process.state_dir) == ["log"]
    assert process.state_dir.stat().st_mode & 0o777 == 0o700


def test_secret_and_arguments_arrive(make: Callable[..., Process]) -> None:
    process = make('printf "[%s]" "$LLAMA_API_KEY" "$@"; exec sleep 1000')
    process("start")
    until(lambda: process.log().endswith("[--metrics]"))
    assert "[it's $HOME\n\\n]" in process.log()
    assert "[a 'quoted'\n$HOME `template`]" in process.log()
    environ = Path(f"/proc/{process.pid('supervisor')}/cmdline").read_bytes()
    assert b"it's" not in environ


def test_own_session(make: Callable[..., Process]) -> None:
    process = make()
    process("start")
    until(process.up)
    child, supervisor = process.pid("child"), process.pid("supervisor")
    assert os.getsid(child) == child
    assert os.getsid(supervisor) == supervisor
    assert os.readlink(f"/proc/{child}/fd/0") == "/dev/null"
    assert not {"3", "4", "5"} & set(os.listdir(f"/proc/{child}/fd"))


def test_crashed_child_returns(make: Callable[..., Process]) -> None:
    process = make()
    process("start")
    until(process.up)
    first = process.pid("child")
    os.kill(first, signal.SIGKILL)
    until(lambda: process("state").split()[3] == "1" and process.pid("child") != first)
    assert "inferbase: exited with 137 after 0 restarts" in process.log()


@pytest.mark.parametrize("code", [64, 126, 127])
def test_useless_restarts_are_not_tried(make: Callable[..., Process], code: int) -> None:
    process = make(f"exit {code}")
    process("start")
    until(lambda: process("state") == f"failed {code}")
    assert process.log().count("exited with") == 1


def test_gives_up(make: Callable[..., Process], tmp_path: Path) -> None:
    """With the pauses between attempts taken out of the script."""
    process = make("exit 3")
    text = process.run_file.read_text()
    assert "pause_first=2 " in text
    process.run_file.write_text(text.replace("pause_first=2 ", "pause_first=0 "))
    process("start")
    # Exit code, restarts, and the window: four times the start-timeout of the kind and the pause.
    until(lambda: process("state") == "failed 3 3 2408")
    assert process.log().count("exited with 3") == 4
    process("start")
    until(lambda: process("state") == "failed 3 3 2408")
    assert process.log().count("exited with 3") == 8
    process("stop")
    assert process("state") == "stopped"


@pytest.mark.parametrize(
    ("step", "pauses", "ends"),
    [
        (0, "2 4 8", True),
        (500, "2 4 8 8 8 8 8 8", False),
        (43200, "2 2 2 2 2 2 2 2", False),
    ],
    ids=["at once", "some within the window", "once a day"],
)
def test_pauses_grow_within_the_window_only(
    make: Callable[..., Process], tmp_path: Path, step: int, pauses: str, ends: bool
) -> None:
    """The clock goes on by `step` seconds at each look, two to an attempt; nobody waits."""
    clock, bin_folder = tmp_path / "clock", tmp_path / "bin"
    clock.write_text("1000000\n")
    bin_folder.mkdir()
    (bin_folder / "date").write_text(
        f"#!/bin/sh\nread now <'{clock}'; echo $((now + {step})) | tee '{clock}'\n"
    )
    (bin_folder / "date").chmod(0o755)
    process = make("exit 3", f"{bin_folder}:{os.environ['PATH']}")
    text = process.run_file.read_text()
    assert text.count('sleep "$delay" ') == 1
    process.run_file.write_text(
        text.replace('sleep "$delay" ', 'echo "pause $delay" >>"$state/log"; sleep 0 ')
    )
    process("start")
    count = len(pauses.split())
    until(lambda: process.log().count("pause ") >= count)
    if ends:
        until(lambda: process("state").startswith("failed 3 3 "))
    process("stop")
    seen = [line.split()[1] for line in process.log().splitlines() if line.startswith("pause ")]
    assert seen[:count] == pauses.split()
    assert (len(seen) == count) or not ends


def test_stop_reaches_the_whole_group(make: Callable[..., Process]) -> None:
    process = make('sleep 1000 & (trap "" TERM; exec sleep 1001) & trap "exit 0" TERM; wait')
    process("start")
    until(lambda: (process.state_dir / "child").exists())
    group = process.pid("child")
    until(lambda: os.getpgid(group) == group)
    process("stop")
    until(lambda: not group_alive(group))


def test_stop_kills_what_ignores_it(make: Callable[..., Process]) -> None:
    process = make('trap "" TERM; echo up; while :; do sleep 0.05; done')
    text = process.run_file.read_text()
    process.run_file.write_text(text.replace("grace=10 ", "grace=1 "))
    process("start")
    until(process.up)
    child = process.pid("child")
    process("stop")
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def tools(folder: Path, *without: str) -> str:
    """A PATH with the few programs that the script may count on."""
    folder.mkdir()
    names = "sh cat mv rm cp mkdir mkfifo sleep date wc setsid setpriv true env"
    for name in names.split():
        if name not in without:
            found = shutil.which(name)
            assert found is not None
            (folder / name).symlink_to(found)
    return str(folder)


@pytest.mark.parametrize("without", [(), ("setpriv",)])
def test_no_orphans_when_the_supervisor_is_killed(
    make: Callable[..., Process], tmp_path: Path, without: tuple[str, ...]
) -> None:
    process = make(f"sleep 1000 & {STEADY}", tools(tmp_path / "bin", *without))
    process("start")
    until(process.up)
    group = process.pid("child")
    os.kill(process.pid("supervisor"), signal.SIGKILL)
    until(lambda: not process.left())
    until(lambda: not group_alive(group))
    assert process("state") == "stopped"
    process("start")
    until(lambda: process.up(times=2))


def group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_recycled_id_is_not_taken_for_ours(make: Callable[..., Process]) -> None:
    process = make()
    process.state_dir.mkdir(parents=True)
    stranger = subprocess.Popen(["sleep", "1000"])
    try:
        for name in ("supervisor", "child"):
            (process.state_dir / name).write_text(f"{stranger.pid} 12345 0 0\n")
        assert process("state") == "stopped"
        process("stop")
        assert stranger.poll() is None
        process("start")
        until(process.up)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_log_rotation(make: Callable[..., Process]) -> None:
    process = make('trap "exit 0" TERM; while :; do echo 0123456789; sleep 0.002; done')
    text = process.run_file.read_text()
    text = text.replace("log_limit=10485760", "log_limit=200").replace(
        "log_look=10 ", "log_look=0.1 "
    )
    process.run_file.write_text(text)
    process("start")
    until(lambda: (process.state_dir / "log.3").exists())
    process("stop")
    assert not (process.state_dir / "log.4").exists()
    # Not the newest: it may have ended between two of the names.
    assert "\n0123456789\n" in (process.state_dir / "log.3").read_text()


def test_inherited_files_are_closed(make: Callable[..., Process], tmp_path: Path) -> None:
    """A lock held by the caller must not live on in the service."""
    process = make()
    lock = tmp_path / "lock"
    script = 'exec 9>"$1"; exec 5>"$1"; sh "$2" start'
    subprocess.run(["sh", "-c", script, "sh", lock, process.run_file], check=True)
    until(process.up)
    for name in ("supervisor", "child"):
        files = Path(f"/proc/{process.pid(name)}/fd")
        assert str(lock) not in {os.readlink(entry) for entry in files.iterdir()}


def test_usage(make: Callable[..., Process]) -> None:
    process = make()
    done = subprocess.run(["sh", process.run_file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (64, "usage: run start|stop|state\n")


def test_a_command_that_needs_no_program(tmp_path: Path) -> None:
    """A kind of one's own says the whole command; it is nothing embedded, here or elsewhere."""
    kind = "summary: x\napi: http\ndefault-port: 99\nprocess:\n  command: [/bin/sh, '{port}']\n"
    near, far = ("services: {a: {kind: own}}\n", "address: h\nservices: {a: {kind: own}}\n")
    files = {"services/own.yaml": kind, "inventory/near.yaml": near, "inventory/far.yaml": far}
    loaded = load_files(tmp_path, files)
    assert error_lines(loaded) == ""
    templates = (render_cases.REPOSITORY / "templates",)
    fleet = dataclasses.replace(loaded.fleet, template_dirs=templates)
    for machine in ("near", "far"):
        release = render(fleet, machine, {}).files
        assert "process/a/engine" not in release
        words = release["process/a/run"].content.decode().replace("\\\n", " ").split()
        assert ("/bin/sh", "99") in pairwise(words)
