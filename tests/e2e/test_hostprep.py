"""Host preparation of real machines: applied, read back, undone; refused, killed, cut off."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.fault_fleet import FaultFleet, Operator
from e2e.fleet import Ran
from testbed.machine import TestMachine
from testbed.session import Testbed

from inferfleet.errors import LOCKED

STATE = "/var/lib/inferbase/hostprep"
DROP_IN = "/etc/sysctl.d/90-inferbase.conf"
FILE = "/etc/inferbase-test.conf"
RULES = "/etc/iptables/inferbase-test.rules"
SSHD = "/etc/ssh/sshd_config.d/inferbase-test.conf"
# Of the machine's own network, with what its kernel gives a new one.
BEFORE = {"net.core.somaxconn": "4096", "net.ipv4.tcp_fin_timeout": "60"}
SETTINGS: dict[str, Any] = {
    "sysctl": {"net.core.somaxconn": 1234, "net.ipv4.tcp_fin_timeout": 15},
    "files": {FILE: {"content": "first\nsecond\n", "mode": "0640"}},
}


class Ground:
    """A test machine whose host is prepared, and the consumer's fleet that says how."""

    def __init__(self, machine: TestMachine, fleet: FaultFleet) -> None:
        self.machine, self.fleet = machine, fleet

    def wants(self, user: str = "admin", sudo: bool = True, **settings: Any) -> None:
        """Write the machine file."""
        self.fleet.host(self.machine, {}, user=user, sudo=sudo, hostprep=settings)

    def invoke(self, task: str, *words: str) -> Ran:
        return self.fleet.cli(f"hostprep.{task}", "--host", self.machine.name, *words)

    def verdicts(self) -> tuple[int, dict[str, str]]:
        """Exit code of a check, and setting -> verdict."""
        done = self.invoke("check", "--format", "json")
        return done.rc, {row["setting"]: row["verdict"] for row in done.data}

    def begin(self, cut: int | None = None) -> Operator:
        """Start an apply and leave it running; cut: seconds of the machine's timer."""
        return self.fleet.begin("hostprep.apply", "--host", self.machine.name, "--yes", cut=cut)

    def live(self) -> dict[str, str]:
        lines = self.machine.check(f"sysctl {' '.join(BEFORE)}").splitlines()
        return {key: value for key, _, value in (line.partition(" = ") for line in lines)}

    def assert_untouched(self) -> None:
        """As before the first run, but for the history."""
        assert self.live() == BEFORE
        assert not any(self.machine.exists(path) for path in (DROP_IN, FILE, RULES, SSHD))
        left = self.machine.run(f"ls -A {STATE}").out.split()
        assert set(left) <= {"history", "undone"} or "No such file" in " ".join(left), left
        # What the last start has run stays known to systemd, dead, until it reads its files anew.
        alive = "systemctl list-units --all --no-legend --state=active,activating,failed"
        assert self.machine.check(f"{alive} 'inferbase-*'") == ""
        left = "/etc/systemd/system/inferbase-hostprep-undo.service"
        assert not self.machine.exists(left)

    def await_idle(self) -> None:
        """Wait until no run is on the machine any more, and the timer has done its work."""
        self.machine.check(
            f"timeout 30 sh -c 'while [ -e {STATE}/journal ] || [ -h {STATE}/lock ]; "
            "do sleep 0.1; done'"
        )


def _clean(machine: TestMachine) -> None:
    machine.check(
        f"umount /proc/sys 2>/dev/null; iptables -F INPUT; "
        f"rm -rf {STATE} {DROP_IN} {FILE} {RULES} {SSHD} /etc/sysctl.d/99-site.conf /tmp/gate; "
        f"systemctl reload ssh; sysctl -q -w {' '.join(f'{k}={v}' for k, v in BEFORE.items())}"
    )


@pytest.fixture
def ground(shared_machine: TestMachine, testbed: Testbed, tmp_path: Path) -> Iterator[Ground]:
    made = Ground(shared_machine, FaultFleet(tmp_path, testbed.home))
    yield made
    _clean(shared_machine)


def test_a_whole_life(ground: Ground) -> None:
    ground.wants(**SETTINGS)
    assert ground.verdicts() == (
        2,
        {
            "files./etc/inferbase-test.conf": "differs",
            "sysctl.net.core.somaxconn": "differs",
            "sysctl.net.ipv4.tcp_fin_timeout": "differs",
        },
    )
    plan = ground.invoke("plan")
    assert plan.rc == 2
    for line in (
        f"+++ {DROP_IN}",
        "+net.core.somaxconn = 1234",
        f"+++ {FILE}",
        "+second",
        "~ sysctl.net.core.somaxconn: 4096 -> 1234",
        "~ sysctl.net.ipv4.tcp_fin_timeout: 60 -> 15",
    ):
        assert f"  {line}\n" in plan.out, plan
    ground.assert_untouched()  # a look changes nothing

    applied = ground.invoke("apply", "--yes", "--format", "json")
    assert applied.rc == 0, applied
    assert applied.data == [{"machine": ground.machine.name, "result": "changed", "detail": ""}]
    assert ground.live() == {"net.core.somaxconn": "1234", "net.ipv4.tcp_fin_timeout": "15"}
    assert ground.machine.read(FILE) == "first\nsecond\n"
    assert ground.machine.check(f"stat -c '%a %U' {FILE}") == "640 root\n"
    assert "net.ipv4.tcp_fin_timeout = 15\n" in ground.machine.read(DROP_IN)
    state = ground.machine.check(f"ls -A {STATE}; stat -c %a {STATE} {STATE}/1").split()
    assert state == ["1", "history", "700", "700"]

    code, verdicts = ground.verdicts()
    assert (code, set(verdicts.values())) == (0, {"ok"})
    plan = ground.invoke("plan")
    assert (plan.rc, "nothing to change" in plan.out) == (0, True)
    assert ground.invoke("plan", "--format", "json").data[0]["changes"] == []
    again = ground.invoke("apply", "--yes", "--format", "json")
    assert (again.rc, again.data[0]["result"]) == (0, "unchanged")
    # What a start of the machine would read is what is in force.
    ground.machine.check(f"sysctl -q -p {DROP_IN}")
    assert ground.live()["net.core.somaxconn"] == "1234"

    back = ground.invoke("rollback", "--yes")
    assert back.rc == 0, back
    assert f"{FILE}: as it was before" in back.err
    ground.assert_untouched()
    assert "nothing to undo" in ground.invoke("rollback", "--yes").err
    assert ground.verdicts()[0] == 2


def test_mistakes_in_files_and_options_are_exit_64(ground: Ground) -> None:
    ground.wants(profiles=["no-such-profile"])
    for task in ("plan", "apply"):
        done = ground.invoke(task)
        assert (done.rc, "there is no profile no-such-profile" in done.err) == (64, True), done
    ground.wants(**SETTINGS)
    done = ground.invoke("check", "--format", "xml")
    assert (done.rc, "unknown format" in done.err) == (64, True)


def test_what_is_not_wanted_any_more_goes(ground: Ground) -> None:
    ground.wants(**SETTINGS)
    assert ground.invoke("apply", "--yes").rc == 0
    ground.wants(sysctl={"net.core.somaxconn": 1234})
    assert ground.invoke("apply", "--yes").rc == 0
    assert "tcp_fin_timeout" not in ground.machine.read(DROP_IN)
    ground.wants()
    plan = ground.invoke("plan")
    assert (plan.rc, f"--- {DROP_IN}" in plan.out) == (2, True), plan
    assert ground.invoke("apply", "--yes").rc == 0
    assert not ground.machine.exists(DROP_IN)
    for _ in range(3):
        assert ground.invoke("rollback", "--yes").rc == 0
    ground.assert_untouched()


def test_one_of_two_machines_fails(ground: Ground, machine: TestMachine) -> None:
    """The good one is changed, the bad one is as before, to the last file."""
    other = Ground(machine, ground.fleet)
    ground.wants(files=SETTINGS["files"], sysctl={"net.core.somaxconn": -5})
    other.wants(**SETTINGS)
    done = ground.fleet.cli(
        "hostprep.apply", "--host", ground.machine.name, "--host", machine.name, "--yes",
        "--format", "json",
    )  # fmt: skip
    assert done.rc == 1, done
    bad, good = done.data
    assert (bad["machine"], bad["result"]) == (ground.machine.name, "undone")
    assert "net.core.somaxconn" in bad["detail"]
    assert "Invalid argument" in bad["detail"]
    assert (good["machine"], good["result"]) == (machine.name, "changed")
    ground.assert_untouched()
    assert other.live()["net.ipv4.tcp_fin_timeout"] == "15"
    # A plan of both: one would change, none has failed.
    words = ("--host", ground.machine.name, "--host", machine.name)
    assert ground.fleet.cli("hostprep.plan", *words).rc == 2
    machine.lose_power()
    lost = ground.fleet.cli("hostprep.check", *words)
    assert lost.rc == 1, lost
    assert "net.core.somaxconn" in lost.out


def test_sudo_with_a_password(ground: Ground) -> None:
    ground.wants(user="pwadmin", **SETTINGS)
    words = ("hostprep.apply", "--host", ground.machine.name)
    code, shown = ground.fleet.on_terminal(
        *words,
        replies=[("sudo password:", ground.machine.sudo_password), ("[y/N]", "n")],
    )
    assert (code, "nothing was changed" in shown) == (1, True), shown
    ground.assert_untouched()
    code, shown = ground.fleet.on_terminal(
        *words,
        replies=[("sudo password:", ground.machine.sudo_password), ("[y/N]", "y")],
    )
    assert code == 0, shown
    assert ground.machine.sudo_password not in shown
    assert ground.live()["net.core.somaxconn"] == "1234"


@pytest.mark.parametrize(
    ("user", "sudo", "words"),
    [
        ("ops", False, "Permission denied"),
        ("pwadmin", True, "there is no terminal to ask on"),
    ],
)
def test_without_root_nothing_is_changed(user: str, sudo: bool, words: str, ground: Ground) -> None:
    ground.wants(user=user, sudo=sudo, **SETTINGS)
    done = ground.invoke("apply", "--yes", "--format", "json")
    assert done.rc == 1, done
    assert done.data[0]["result"] == "failed"
    assert words in done.err
    assert "hint:" in done.err
    assert "Traceback" not in done.err
    ground.assert_untouched()


def test_read_only_values(ground: Ground) -> None:
    ground.wants(**SETTINGS)
    ground.machine.check("mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys")
    done = ground.invoke("apply", "--yes", "--format", "json")
    assert done.rc == 1, done
    assert done.data[0]["result"] == "undone", done.data
    assert "Read-only file system" in done.data[0]["detail"]
    ground.assert_untouched()


def test_a_later_file_wins(ground: Ground) -> None:
    ground.wants(sysctl={"net.core.somaxconn": 1234})
    site = "/etc/sysctl.d/99-site.conf"
    ground.machine.write(site, "# of this site\nnet.core.somaxconn = 777\n")
    done = ground.invoke("apply", "--yes")
    assert done.rc == 0, done
    assert ground.live()["net.core.somaxconn"] == "1234"
    check = ground.invoke("check")
    assert check.rc == 2
    assert f"{site}:2 sets 777 later" in check.out
    assert ground.invoke("plan").rc == 0
    # A file of that name in /etc, even an empty one, hides that of a package.
    ground.machine.check(f"mv {site} /usr/lib/sysctl.d/99-site.conf && ln -s /dev/null {site}")
    assert ground.verdicts() == (0, {"sysctl.net.core.somaxconn": "ok"})
    ground.machine.check("rm /usr/lib/sysctl.d/99-site.conf")


def test_values_that_cannot_be_had(ground: Ground) -> None:
    secret = "net.ipv4.tcp_fastopen_key"
    sysctl = {secret: "0-0-0-1", "net.core.no_such_key": 1, "net.ipv4.route.flush": 1}
    ground.wants(user="ops", sudo=False, sysctl=sysctl)
    assert ground.verdicts() == (
        2,
        {
            f"sysctl.{secret}": "unknown",
            "sysctl.net.core.no_such_key": "absent",
            "sysctl.net.ipv4.route.flush": "unknown",
        },
    )
    # Not even root can read a key that is only for writing.
    ground.wants(sysctl={"net.ipv4.route.flush": 1})
    assert ground.verdicts()[1] == {"sysctl.net.ipv4.route.flush": "unknown"}


def gate(path: str = FILE) -> dict[str, Any]:
    """A file whose program waits at /tmp/gate while that is there."""
    wait = ": >/tmp/gate.reached; while [ -e /tmp/gate ]; do sleep 0.05; done"
    return {path: {"content": "x\n", "after": ["sh", "-c", wait]}}


def reach(ground: Ground, sysctl: dict[str, int] = SETTINGS["sysctl"]) -> Operator:
    """An apply that stands at the gate, files written, values not yet."""
    ground.wants(sysctl=sysctl, files=gate())
    ground.machine.check("rm -f /tmp/gate.reached; : >/tmp/gate")
    run = ground.begin()
    ground.machine.check("timeout 30 sh -c 'until [ -e /tmp/gate.reached ]; do sleep 0.05; done'")
    assert ground.machine.exists(DROP_IN)
    return run


def test_a_killed_operator(ground: Ground) -> None:
    """SIGKILL in the middle: the machine goes back by itself, and the next run says so."""
    run = reach(ground)
    locked = ground.invoke("apply", "--yes")
    assert locked.rc == LOCKED, locked
    assert "is locked by" in locked.err
    run.kill()
    ground.machine.check("rm /tmp/gate")
    ground.await_idle()
    ground.assert_untouched()
    assert "run 1 was undone by the machine itself" in ground.invoke("plan").out
    assert ground.invoke("apply", "--yes").rc == 0
    assert ground.verdicts()[0] == 0
    assert "undone by the machine" not in ground.invoke("plan").out


def test_a_power_cut_in_the_middle(ground: Ground) -> None:
    """A run that cannot cut us off sets no unit: the next run says so, undoes it, converges."""
    run = reach(ground, {"net.core.somaxconn": 1234})
    ground.machine.lose_power()
    ground.machine.start()
    assert run.ended().rc == 1
    check = ground.invoke("check")
    assert check.rc == 2, check
    assert "run 1 was interrupted" in check.err
    again = ground.invoke("apply", "--yes")
    assert again.rc == 0, again
    assert "the unfinished run 1 was undone" in again.err
    assert ground.verdicts()[0] == 0
    assert ground.invoke("rollback", "--yes").rc == 0
    ground.assert_untouched()


def test_a_killed_machine_side(ground: Ground) -> None:
    """Both sides dead in the middle: the journal stays, the next run undoes it first."""
    run = reach(ground)
    ground.machine.check(f"kill -9 $(readlink {STATE}/lock | cut -d '|' -f 1); rm /tmp/gate")
    ended = run.ended()
    assert (ended.rc, "goes back by itself" in ended.err) == (1, True), ended
    # As if a power cut had taken the timer, too.
    ground.machine.check(f"systemctl stop 'inferbase-*'; rm -f {STATE}/1/armed")
    plan = ground.invoke("plan")
    assert (plan.rc, "run 1 was interrupted" in plan.out) == (2, True), plan
    done = ground.invoke("apply", "--yes")
    assert done.rc == 0, done
    assert "the unfinished run 1 was undone" in done.err
    assert ground.invoke("rollback", "--yes").rc == 0
    ground.assert_untouched()


RULE = "*filter\n-A INPUT -p tcp --dport 22 -j DROP\nCOMMIT\n"
FOLLOW = f"if [ -e {RULES} ]; then iptables-restore -n {RULES}; else iptables -F INPUT; fi"


@pytest.mark.parametrize("dead", [False, True], ids=["all-alive", "all-dead"])
def test_a_machine_that_cuts_itself_off_comes_back(dead: bool, ground: Ground) -> None:
    """Nobody can connect any more; the machine's own timer restores everything.

    dead: neither the operator nor the program on the machine lives any more, only the timer.
    """
    follow = ["sh", "-c", FOLLOW]
    ground.wants(sysctl=SETTINGS["sysctl"], files={RULES: {"content": RULE, "after": follow}})
    run = ground.begin(cut=8)
    machine = ground.machine
    machine.check("timeout 30 sh -c 'until iptables -S INPUT | grep -q DROP; do sleep 0.02; done'")
    assert machine.exists(RULES)
    with pytest.raises(subprocess.TimeoutExpired):
        machine.ssh("true", user="admin", timeout_s=1.5)
    if dead:
        run.kill()
        machine.check(f"kill -9 $(readlink {STATE}/lock | cut -d '|' -f 1)")
    machine.check("timeout 30 sh -c 'while iptables -S INPUT | grep -q DROP; do sleep 0.1; done'")
    machine.check(f"timeout 30 sh -c 'while [ -e {STATE}/journal ]; do sleep 0.1; done'")
    ended = run.ended()
    if not dead:
        assert (ended.rc, "error: " in ended.err) == (1, True), ended
        ground.await_idle()
    assert machine.ssh("true", user="admin").rc == 0
    check = ground.invoke("check")
    assert "run 1 was undone by the machine itself" in check.err, (check, ended)
    machine.check(f"rm -f {STATE}/lock")  # of a dead process: the next run takes it over
    ground.assert_untouched()


def test_a_machine_that_cut_itself_off_and_lost_its_power(ground: Ground) -> None:
    """No timer outlives that: the next start goes back before there is a network."""
    ground.wants(files={RULES: {"content": RULE, "after": ["sh", "-c", FOLLOW]}})
    run = ground.begin(cut=120)
    machine = ground.machine
    machine.check("timeout 30 sh -c 'until iptables -S INPUT | grep -q DROP; do sleep 0.02; done'")
    machine.lose_power()
    run.kill()
    machine.start()
    assert machine.ssh("true", user="admin").rc == 0
    check = ground.invoke("check")
    assert "run 1 was undone by the machine itself" in check.err, check
    machine.check(f"rm -f {STATE}/lock")  # of a dead process: the next run takes it over
    assert not machine.exists("/etc/systemd/system/inferbase-hostprep-undo.service")
    ground.assert_untouched()


def test_a_machine_that_lets_nobody_in_is_restored_at_once(ground: Ground) -> None:
    """The connection of the run lives on; that no new one can be had is enough."""
    ground.wants(
        files={SSHD: {"content": "DenyUsers *\n", "after": ["systemctl", "reload", "ssh"]}}
    )
    done = ground.invoke("apply", "--yes", "--format", "json")
    assert done.rc == 1, done
    assert done.data[0]["result"] == "undone", done.data
    assert "no new connection could be had" in done.data[0]["detail"]
    ground.assert_untouched()
    assert ground.machine.ssh("true", user="admin").rc == 0
    # A change of the same file that lets us in is kept.
    ground.wants(
        files={SSHD: {"content": "LoginGraceTime 30\n", "after": ["systemctl", "reload", "ssh"]}}
    )
    done = ground.invoke("apply", "--yes")
    assert done.rc == 0, done
    assert "logingracetime 30" in ground.machine.check("sshd -T 2>/dev/null")
    assert ground.invoke("rollback", "--yes").rc == 0
    ground.assert_untouched()
