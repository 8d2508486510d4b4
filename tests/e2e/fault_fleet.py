"""An operator that can be stopped at any event, and machines that can be held at any command."""

from __future__ import annotations

import re

from e2e.fleet import ANSWER, ROOT, Fleet, ask, inspect
from e2e.forked import Operator, Ran
from testbed.machine import TestMachine

STATE = f"{ROOT}/.inferbase"
# Holds a command of the machine while /tmp/gate is there, and says so.
_GATE = """#!/bin/sh
case "$0 $*" in {pattern})
  if [ -e /tmp/gate ]; then
    : >/tmp/gate.reached
    while [ -e /tmp/gate ]; do sleep 0.02; done
  fi
  ;;
esac
exec /usr/bin/{command} "$@"
"""


class FaultFleet(Fleet):
    """A fleet whose command line can be stopped half way."""

    def begin(
        self,
        *words: str,
        stop_at: tuple[str, str] | None = None,
        silence: int | None = None,
        cut: int | None = None,
        **env: str,
    ) -> Operator:
        """Start `invoke WORDS`; silence: seconds after which the machine gives a mute run up;
        cut: seconds after which a machine that nobody reaches undoes a host preparation."""
        return Operator(words, self.environment(**env), self._outputs(), stop_at, silence, cut)

    def cli(self, *words: str, **env: str) -> Ran:
        """Run `invoke WORDS` to its end."""
        return self.begin(*words, stop_at=None, silence=None, **env).ended()

    def up(self, name: str) -> Ran:
        """Bring a machine up, which must succeed."""
        done = self.cli("up", "--host", name, "--yes")
        assert done.rc == 0, done
        return done


class Gate:
    """A command of the machine that waits at the gate when its words match a sh pattern."""

    def __init__(self, machine: TestMachine, command: str, pattern: str) -> None:
        self._machine = machine
        self._path = f"/usr/local/bin/{command}"
        script = _GATE.format(command=command, pattern=pattern)
        machine.write(self._path, script, mode="755")
        machine.check("rm -f /tmp/gate.reached; : >/tmp/gate; chmod 666 /tmp/gate")
        # The gate marks itself as reached, whoever comes.
        machine.check("chmod 1777 /tmp")

    def reached(self) -> None:
        """Wait until the command stands at the gate."""
        self._machine.check(
            "timeout 60 sh -c 'until [ -e /tmp/gate.reached ]; do sleep 0.02; done'"
        )

    def open(self) -> None:
        """Let it pass, now and later."""
        self._machine.check(f"rm -f /tmp/gate {self._path}")


def settle(machine: TestMachine) -> None:
    """Wait until no transaction runs on the machine any more, finished or given up."""
    machine.check(
        f"timeout 60 sh -c 'while l=$(readlink {STATE}/lock) && [ -e /proc/${{l%%|*}} ]; "
        "do sleep 0.05; done'"
    )


def in_force(machine: TestMachine) -> int:
    """The generation in force, which must be whole to the byte; 0 when there is none."""
    found = machine.check(
        f"cd {ROOT}/current 2>/dev/null || {{ echo 0; exit; }}; "
        f"sha256sum --quiet -c .sha256 && readlink {ROOT}/current"
    )
    return int(found.strip().rpartition("/")[2])


def running(machine: TestMachine, container: str = "inference-llama") -> str:
    """Which edit the running container was made from."""
    found = inspect(machine, container)
    assert found["State"]["Running"]
    words: list[str] = found["Config"]["Env"]
    return next(word for word in words if word.startswith("EDIT="))


def wanted(machine: TestMachine) -> str:
    """Which edit the generation in force holds."""
    found = re.search(r'EDIT: "(\d+)"', machine.read(f"{ROOT}/current/compose.yaml"))
    assert found
    return f"EDIT={found[1]}"


def converged(fleet: FaultFleet, machine: TestMachine, name: str | None = None) -> None:
    """One `up` mends everything: the service answers, no plan, no leftovers, no stray process."""
    fleet.up(name or machine.name)
    plan = fleet.cli("plan", "--host", name or machine.name)
    assert (plan.rc, "nothing to change" in plan.out) == (0, True), plan
    in_force(machine)
    assert running(machine) == wanted(machine)
    answers(machine)
    assert leftovers(machine) == []


def answers(machine: TestMachine) -> None:
    """The service answers a question rightly, once it has loaded its model."""
    machine.check(
        "timeout 30 sh -c 'until curl -sf http://127.0.0.1:8080/health; do sleep 0.1; done'"
    )
    assert ask(machine) == ANSWER


def leftovers(machine: TestMachine) -> list[str]:
    """What a run that has ended must not leave: temporary files, lock, journal, processes."""
    files = machine.check(
        f"find {ROOT} \\( -name '*.new*' -o -name '*.stale' -o -name '*inferbase-new' "
        f"-o -name '.probe' \\) ; ls -d {STATE}/lock {STATE}/journal 2>/dev/null || true"
    ).split()
    containers = machine.check(
        "docker ps -a --format '{{.Names}}' --filter label=com.docker.compose.project"
    ).split()
    odd = [name for name in containers if not name.startswith("inference-")]
    return [*files, *odd, *transactions(machine)]


def transactions(machine: TestMachine) -> list[str]:
    """Processes of our shell programs on the machine."""
    listing = machine.check("ps -u ops -o pid=,args= | cut -c 1-200 || true")
    return [line for line in listing.splitlines() if f"root={ROOT}" in line]
