"""The boot check's program on a machine in a folder: confirmed, gone back, never twice."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from inferfleet.remote import program

ROUTE = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
DEFAULT = "eth0\t00000000\t0202000A\t0003\t0\t0\t1024\t00000000\t0\t0\t0\n"
LOCAL = "eth0\t0002000A\t00000000\t0001\t0\t0\t1024\t00FFFFFF\t0\t0\t0\n"
ROUTE6 = f"{'0' * 32} 00 {'0' * 32} 00 %s 00000400 00000001 00000000 00000003 %8s\n"
# Answers from files; what it is told to do is written down.
SYSTEMCTL = """\
#!/bin/sh
case "$*" in
  is-system-running) cat "$BOX/stage" ;;
  *is-active*) [ -e "$BOX/sshd" ] ;;
  list-units*) sed 's/$/ loaded failed failed a unit/' "$BOX/failed" ;;
  *) echo "$*" >>"$BOX/log" ;;
esac
"""
NEW, OLD = "root=/dev/sda1 iommu=pt inferbase.trial", "root=/dev/sda1 quiet"


class Box:
    """A machine whose new line is iommu=pt, without quiet; generation 3 of 3 has brought it."""

    def __init__(self, root: Path) -> None:
        self.root, self.home, self.state = root, root / "home", root / "state"
        self.armed = self.home / "armed"
        for folder in ("bin", "home", "proc/sys/kernel/random", "proc/net"):
            (root / folder).mkdir(parents=True)
        self.tool("systemctl", SYSTEMCTL)
        self.tool("sleep", "#!/bin/sh\n")
        for name in ("trial", "entry", "menu", "unit"):
            self.put(name, "")
        self.put("home/words", "+iommu=pt\n+inferbase.trial\n-quiet\n")
        for number in (1, 2, 3):
            self.generation(number)
        self.put("state/journal", "3\n")
        self.put("failed", "old.service\n")
        self.put("sshd", "")
        self.boot("a", OLD)

    def put(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def tool(self, name: str, text: str) -> None:
        self.put(f"bin/{name}", text)
        (self.root / "bin" / name).chmod(0o755)

    def generation(self, number: int, *, good: bool = True) -> None:
        """One whose undo does what the core's does, or fails."""
        folder = self.state / str(number)
        back = f"rm -rf {self.armed} {self.root}/trial {self.root}/entry {self.root}/menu"
        end = f"{back}; rm -rf {folder} {self.state}/journal" if good else "exit 1"
        log = f'echo "undo {number} $(cat {self.state}/journal) by $1" >>{self.root}/log'
        self.put(f"state/{number}/undo.sh", f"{log}\n{end}\n")

    def boot(self, boot: str, line: str, *, stage: str = "running", route: str = DEFAULT) -> None:
        self.put("proc/sys/kernel/random/boot_id", f"{boot}\n")
        self.put("proc/cmdline", f"BOOT_IMAGE=/vmlinuz {line}\n")
        self.put("proc/net/route", ROUTE + LOCAL + route)
        self.put("stage", f"{stage}\n")

    def run(self, *words: str) -> tuple[int, list[str]]:
        """Exit code, and what was done."""
        (self.root / "log").write_text("")
        text = program(
            "lock", "bootcheck", state=str(self.state), home=str(self.home),
            trial=f"{self.root}/trial {self.root}/entry", menu=f"{self.root}/menu",
            settle=f"echo settled >>{self.root}/log; rm {self.root}/menu",
            install=f"{self.root}/unit", proc=f"{self.root}/proc", mine="", claim="",
        )  # fmt: skip
        path = f"{self.root}/bin:/usr/bin:/bin"
        done = subprocess.run(
            ["sh", "-c", text, "boot-check", *words],
            env={"PATH": path, "BOX": str(self.root)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, (self.root / "log").read_text().splitlines()

    def result(self) -> list[str]:
        return (self.home / "result").read_text().rstrip("\n").split("\t")

    def left(self) -> set[str]:
        """What should be gone when all is over."""
        names = ("trial", "entry", "menu", "unit", "home/words", "home/armed", "state/lock")
        return {name for name in names if (self.root / name).exists()}


ALL = {"trial", "entry", "menu", "unit", "home/words", "home/armed"}


@pytest.fixture
def box(tmp_path: Path) -> Box:
    made = Box(tmp_path)
    assert made.run("arm") == (0, [])
    return made


def test_does_nothing_before_the_restart(box: Box) -> None:
    assert box.run() == (0, [])
    assert box.left() == ALL


def test_confirmed(box: Box) -> None:
    box.boot("b", NEW, stage="degraded")
    assert box.run() == (0, ["settled", "daemon-reload"])
    assert box.left() == set()
    assert box.result()[0] == "confirmed"
    assert sorted(path.name for path in box.state.iterdir()) == ["1", "2", "3", "journal"]
    assert box.run() == (0, [])


def test_power_lost_while_confirming(box: Box) -> None:
    """The menu was not made again, and the machine came up with the old line."""
    (box.armed / "confirmed").touch()
    (box.root / "trial").unlink()
    box.boot("c", OLD)
    assert box.run() == (0, ["settled", "daemon-reload"])
    assert box.left() == set()


def test_without_one_try_no_menu_is_made(box: Box) -> None:
    for name in ("trial", "entry", "menu"):
        (box.root / name).unlink()
    box.boot("b", NEW)
    assert box.run() == (0, ["daemon-reload"])
    assert box.left() == set()


def new_failure(box: Box) -> None:
    box.put("failed", "old.service\nnew.service\n")


def no_sshd(box: Box) -> None:
    (box.root / "sshd").unlink()


def no_route(box: Box) -> None:
    box.boot("b", NEW, route="")
    box.put("proc/net/ipv6_route", ROUTE6 % ("0" * 32, "lo"))


def emergency(box: Box) -> None:
    box.boot("b", NEW, stage="maintenance")


def hangs(box: Box) -> None:
    box.boot("b", NEW, stage="starting")


BAD: dict[Callable[[Box], None], str] = {
    new_failure: "failed: new.service",
    no_sshd: "sshd was not active",
    no_route: "there was no default route",
    emergency: "it came up in emergency or rescue mode",
    hangs: "it was still starting after 900 s",
}


@pytest.mark.parametrize("harm", BAD, ids=lambda harm: str(harm.__name__))
def test_tried_once_and_back(box: Box, harm: Callable[[Box], None]) -> None:
    """The restart alone brings the old line; there everything is undone."""
    box.boot("b", NEW)
    harm(box)
    assert box.run()[1] == ["reboot --force"]
    assert box.left() == ALL
    box.boot("c", OLD)
    assert box.run() == (0, ["undo 3 3 by the machine itself"])
    assert box.left() == {"unit", "home/words"}  # which the core's undo puts back as they were
    assert (box.result()[0], box.result()[2]) == ("failed", BAD[harm])
    assert box.result()[3].split() == ["+iommu=pt", "+inferbase.trial", "-quiet"]
    assert box.run() == (0, [])


def test_never_came_up(box: Box) -> None:
    box.boot("b", OLD)
    assert box.run() == (0, ["undo 3 3 by the machine itself"])
    assert box.result()[2].startswith("the new line did not come up")


def test_undone_first_where_a_loader_tries_nothing(box: Box) -> None:
    for name in ("trial", "entry", "menu"):
        (box.root / name).unlink()
    box.boot("b", NEW)
    new_failure(box)
    assert box.run()[1] == ["undo 3 3 by the machine itself", "reboot --force"]
    box.boot("c", OLD)
    assert box.run() == (0, [])


def test_never_restarts_twice(box: Box) -> None:
    for name in ("trial", "entry", "menu"):
        (box.root / name).unlink()
    box.generation(3, good=False)
    box.boot("b", NEW)
    new_failure(box)
    assert box.run()[1] == ["undo 3 3 by the machine itself", "reboot --force"]
    assert box.result()[2] == "failed: new.service; not all could be undone"
    box.boot("c", NEW)
    code, done = box.run()
    assert (code != 0, done) == (True, [])


def test_what_was_built_on_it_is_undone_too(box: Box) -> None:
    """Armed by 3, then 4 changed something else, then 5 the line again, before any restart."""
    for number in (4, 5, 12):
        box.generation(number)
    box.put("state/journal", "5\n")
    assert box.run("arm") == (0, [])
    box.boot("b", OLD)
    undone = [line.split()[1] for line in box.run()[1]]
    assert undone == ["12", "5", "4", "3"]
    assert sorted(path.name for path in box.state.iterdir()) == ["1", "2"]


def test_nothing_that_was_not_there_is_asked_for(tmp_path: Path) -> None:
    box = Box(tmp_path)
    no_sshd(box)
    box.boot("a", OLD, route="")
    assert box.run("arm")[0] == 0
    box.boot("b", NEW, route="")
    box.run()
    assert box.result()[0] == "confirmed"


def test_a_route_of_ipv6_counts(box: Box) -> None:
    no_route(box)
    box.put("proc/net/ipv6_route", ROUTE6 % ("fe80" + "0" * 27 + "1", "eth0"))
    box.run()
    assert box.result()[0] == "confirmed"


@pytest.mark.parametrize("missing", ["home/words", "state/journal"])
def test_not_armed_without_a_way_back(tmp_path: Path, missing: str) -> None:
    box = Box(tmp_path)
    (box.root / missing).unlink()
    assert box.run("arm")[0] == 1
    assert not box.armed.exists()
