"""One test machine: what a test may do to it and how it is reached."""

from __future__ import annotations

import shlex
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from testbed import model
from testbed.shell import CommandError, run

# The real model inside every machine once testbed.model.gguf() has fetched it, readable by all.
MODEL = f"/srv/testbed/models/{Path(model.MEMBER).name}"
# Both must answer before a machine counts as up: its sshd and its Docker daemon.
_UP = "docker version >/dev/null 2>&1 && [ -n \"$(ss -Hltn 'sport = :22')\" ]"


class Result(NamedTuple):
    """Exit code and the mixed standard output and error of a command."""

    rc: int
    out: str


def execute(argv: list[str], stdin: bytes, timeout_s: float) -> Result:
    """Run argv on this machine; raise subprocess.TimeoutExpired after timeout_s seconds."""
    done = subprocess.run(
        argv,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout_s,
        check=False,
    )
    return Result(done.returncode, done.stdout.decode(errors="replace"))


@dataclass
class TestMachine:
    """A Debian machine with systemd, sshd and Docker, and no Python.

    Users: ops (deploys: in group docker, owns /opt/inference), admin (sudo without a password),
    pwadmin (sudo asks for the password in `sudo_password`). All accept the session's key.
    `run` and its kin go through the outer Docker daemon, so they work with the network cut.
    """

    __test__ = False  # keeps pytest from collecting this class

    name: str
    address: str
    container: str
    home: Path
    identity: Path
    user: str = "ops"
    ssh_port: int = 22
    sudo_password: str = field(default="correct horse", repr=False)

    @property
    def key_file(self) -> Path:
        """The private key that every user of the machine accepts."""
        return self.home / ".ssh" / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The known_hosts file that holds this machine's host key."""
        return self.home / ".ssh" / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        """The client configuration in which `name` is a host."""
        return self.home / ".ssh" / "config"

    @property
    def host_key(self) -> str:
        """The public host key, as `type base64`."""
        public = (self.identity / "ssh_host_ed25519_key.pub").read_text()
        return " ".join(public.split()[:2])

    def run(
        self, command: str, *, user: str = "root", stdin: bytes = b"", timeout_s: float = 120
    ) -> Result:
        """Run a command line with sh in the machine, past the network and sshd.

        Raises subprocess.TimeoutExpired after timeout_s seconds.
        """
        argv = ["docker", "exec", "-i", "-u", user, self.container, "sh", "-c", command]
        return execute(argv, stdin, timeout_s)

    def check(self, command: str, *, user: str = "root", stdin: bytes = b"") -> str:
        """Run a command line and return its output; raise CommandError if it fails."""
        done = self.run(command, user=user, stdin=stdin)
        if done.rc != 0:
            raise CommandError(f"{self.name}: {command}: exit code {done.rc}\n{done.out}")
        return done.out

    def ssh(
        self,
        command: str,
        *,
        user: str | None = None,
        stdin: bytes = b"",
        timeout_s: float = 120,
    ) -> Result:
        """Run a command line through the ssh binary with strict host key checking.

        Raises subprocess.TimeoutExpired after timeout_s seconds.
        """
        argv = ["ssh", "-F", str(self.ssh_config), "-o", "BatchMode=yes"]
        argv += ["-l", user or self.user, self.name, command]
        return execute(argv, stdin, timeout_s)

    def read(self, path: str) -> str:
        """Return the text of a file in the machine."""
        return self.check(f"cat -- {shlex.quote(path)}")

    def exists(self, path: str) -> bool:
        """Whether a path, or a link whatever it points to, exists in the machine."""
        quoted = shlex.quote(path)
        return self.run(f"test -e {quoted} || test -L {quoted}").rc == 0

    def write(self, path: str, text: str, *, owner: str = "root", mode: str = "644") -> None:
        """Write a file in the machine, making its folder."""
        quoted = shlex.quote(path)
        self.check(
            f'mkdir -p -- "$(dirname -- {quoted})" && cat > {quoted} && '
            f"chown {shlex.quote(owner)} {quoted} && chmod {mode} {quoted}",
            stdin=text.encode(),
        )

    def wait_up(self, timeout_s: float = 60) -> None:
        """Wait until sshd and the Docker daemon answer; raise CommandError when they do not."""
        script = f"i=0; until {_UP}; do i=$((i+1)); [ $i -lt 40 ] || exit 1; sleep 0.05; done"
        deadline = time.monotonic() + timeout_s
        while True:
            done = self.run(script)
            if done.rc == 0:
                return
            if time.monotonic() > deadline:
                state = self.run("systemctl --failed --no-legend; journalctl -n 30 --no-pager")
                raise CommandError(f"{self.name} did not come up\n{done.out}\n{state.out}")
            time.sleep(0.05)

    def started_at(self) -> str:
        """Return when the machine booted last; the kernel's boot_id does not change here."""
        return run("docker", "inspect", "-f", "{{.State.StartedAt}}", self.container).strip()

    def reboot(self, *, timeout_s: float = 60) -> None:
        """Reboot through systemd and wait until the machine is up again."""
        before = self.started_at()
        self.run("systemctl reboot")
        deadline = time.monotonic() + timeout_s
        while self.started_at() == before:
            if time.monotonic() > deadline:
                raise CommandError(f"{self.name} did not reboot within {timeout_s:.0f} s")
            time.sleep(0.05)
        self.wait_up(timeout_s)

    def lose_power(self) -> None:
        """Kill everything in the machine at once; `start` boots it again."""
        run("docker", "kill", self.container)

    def stop(self) -> None:
        """Shut the machine down in order; `start` boots it again."""
        run("docker", "stop", "--time", "20", self.container)

    def start(self) -> None:
        """Boot a stopped machine and wait until it is up."""
        run("docker", "start", self.container)
        self.wait_up()

    def cut(self) -> None:
        """Drop every packet on the machine's network card, in both directions."""
        self.check("iptables -I INPUT -i eth0 -j DROP && iptables -I OUTPUT -o eth0 -j DROP")

    def uncut(self) -> None:
        """Undo `cut`."""
        self.check("iptables -D INPUT -i eth0 -j DROP && iptables -D OUTPUT -o eth0 -j DROP")

    def accept_ssh_only_from(self, address: str) -> None:
        """Drop ssh from everywhere but this address, to put the machine behind a jump host."""
        source = shlex.quote(address)
        self.check(f"iptables -I INPUT -p tcp --dport 22 ! -s {source} -j DROP")

    def freeze(self) -> None:
        """Stop every process of the machine where it is."""
        run("docker", "pause", self.container)

    def thaw(self) -> None:
        """Let the processes go on after `freeze`."""
        run("docker", "unpause", self.container)
