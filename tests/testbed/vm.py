"""A virtual machine with a kernel of its own, for what containers share: boot, memory, modules."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from pathlib import Path

from testbed import disk
from testbed.machine import Result, TestMachine, execute
from testbed.qemu import Qemu
from testbed.shell import CommandError, run

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class KernelMachine(TestMachine):
    """A Debian machine with its own kernel, GRUB, systemd and sshd; no Docker and no Python.

    Users: root and admin (sudo without a password); both accept the session's key and nothing
    else. Its sshd is at 127.0.0.1:ssh_port. Emulated, so slow: use as few commands as will do.
    `run` and its kin go through sshd over one kept connection; `ssh` connects anew. Both fail
    while the network is cut. `restore` undoes everything.
    """

    __test__ = False  # keeps pytest from collecting this class

    def __init__(self, name: str, image: disk.Image, folder: Path, control: Path) -> None:
        home = folder / "home"
        super().__init__(name, "127.0.0.1", "", home, folder, user="admin", ssh_port=0)
        self._image = image
        self._disk = folder / "disk.qcow2"
        self._control = control / name
        self._qemu: Qemu | None = None
        (home / ".ssh").mkdir(parents=True, mode=0o700)
        shutil.copyfile(image.host_key_file, folder / "ssh_host_ed25519_key.pub")
        shutil.copyfile(image.key_file, self.key_file)
        self.key_file.chmod(0o600)
        self._start(fresh=True)

    @property
    def serial(self) -> Path:
        """The file with all that the machine has written to its serial console."""
        return self.identity / "serial.log"

    def run(
        self, command: str, *, user: str = "root", stdin: bytes = b"", timeout_s: float = 120
    ) -> Result:
        """Run a command line with the user's shell; an exit code of 255 means no connection.

        Raises subprocess.TimeoutExpired after timeout_s seconds.
        """
        return self._connected(command, user, stdin, timeout_s, connect_timeout_s=15)

    def boot_id(self) -> str:
        """Return the kernel's boot_id, which every boot changes."""
        return self.read(_BOOT_ID).strip()

    def started_at(self) -> str:
        """Return `boot_id`, under the name that other test machines use."""
        return self.boot_id()

    def wait_up(self, timeout_s: float = 360, *, boot_id_was: str = "") -> None:
        """Wait until the boot has ended, and set the clock, which a saved memory makes late.

        With boot_id_was, a machine that still has that boot_id has yet to shut down. Raises
        CommandError with the serial console's last lines when the machine does not come up.
        """
        deadline = time.monotonic() + timeout_s
        # Exit code 1 of is-system-running is a failed unit, which is a test's own business.
        script = (
            f'[ "$(cat {_BOOT_ID})" != "{boot_id_was}" ] || exit 99; date -s @%d >/dev/null; '
            "systemctl is-system-running --wait >/dev/null; true"
        )
        attempt = 0
        while (left := deadline - time.monotonic()) > 0:
            self._hang_up()
            # A packet to a machine that is booting is lost: short attempts notice sooner that it
            # is up, long ones get through to a slow one.
            wait = 3 + attempt // 5
            with contextlib.suppress(subprocess.TimeoutExpired):
                done = self._connected(script % time.time(), "root", b"", left, wait)
                if done.rc == 0:
                    return
            attempt += 1
            time.sleep(0.2)
        written = self.serial.read_text(errors="replace")
        raise CommandError(f"{self.name} is not up after {timeout_s:.0f} s\n{written[-3000:]}")

    def reboot(self, *, timeout_s: float = 360) -> None:
        """Reboot through systemd and GRUB and wait until the machine is up again."""
        before = self.boot_id()
        self.run("systemctl reboot")
        self.wait_up(timeout_s, boot_id_was=before)

    def restore(self) -> None:
        """Throw away all changes: the machine is again as it was after its first boot."""
        self.lose_power()
        self._start(fresh=True)

    def lose_power(self) -> None:
        """End the machine at once; what it had not synced is lost. `start` boots it again."""
        if self._qemu is not None:
            self._qemu.kill()
            self._qemu = None
        self._hang_up()

    def stop(self) -> None:
        """Shut the machine down in order; `start` boots it again."""
        self.run("systemctl poweroff")
        if self._qemu is not None:
            self._qemu.wait()
            self._qemu = None

    def start(self) -> None:
        """Boot a stopped machine from its disk and wait until it is up."""
        self._start(fresh=False)

    def close(self) -> None:
        """End the machine and remove its disk."""
        self.lose_power()
        self._disk.unlink(missing_ok=True)

    def cut(self) -> None:
        """Pull the machine's network cable."""
        self._running.ask("set_link", name="net0", up=False)

    def uncut(self) -> None:
        """Undo `cut`."""
        self._running.ask("set_link", name="net0", up=True)

    def freeze(self) -> None:
        """Stop the machine's processors where they are."""
        self._running.ask("stop")

    def thaw(self) -> None:
        """Let the processors go on after `freeze`."""
        self._running.ask("cont")

    @property
    def _running(self) -> Qemu:
        if self._qemu is None:
            raise CommandError(f"{self.name} is turned off")
        return self._qemu

    def _start(self, *, fresh: bool) -> None:
        if self._qemu is not None:
            raise CommandError(f"{self.name} is turned on already")
        if fresh:
            self._disk.unlink(missing_ok=True)
            run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", self._image.disk,
                self._disk)  # fmt: skip
        memory = self._image.memory if fresh else None
        self._qemu = Qemu(self._disk, self.serial, port=self.ssh_port, memory=memory)
        if not self.ssh_port:
            self.ssh_port = self._qemu.port
            self._write_client_files()
        try:
            self.wait_up()
        except BaseException:
            self.lose_power()
            raise

    def _connected(
        self, command: str, user: str, stdin: bytes, timeout_s: float, connect_timeout_s: int
    ) -> Result:
        argv = ["ssh", "-F", str(self.ssh_config), "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]
        argv += ["-o", "ControlMaster=auto", "-o", f"ControlPath={self._control}-%r"]
        argv += ["-o", "ControlPersist=300", "-o", "ServerAliveInterval=5"]
        argv += ["-o", f"ConnectTimeout={connect_timeout_s}", "-l", user, self.name, command]
        return execute(argv, stdin, timeout_s)

    def _hang_up(self) -> None:
        """Close the kept connections: one to an earlier boot would hang."""
        for socket in self._control.parent.glob(f"{self.name}-*"):
            execute(["ssh", "-S", str(socket), "-O", "exit", self.name], b"", 10)
            socket.unlink(missing_ok=True)

    def _write_client_files(self) -> None:
        self.ssh_config.write_text(
            f"Host {self.name}\n  HostName {self.address}\n  Port {self.ssh_port}\n"
            f"  User {self.user}\n  IdentityFile {self.key_file}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.known_hosts}\n  GlobalKnownHostsFile /dev/null\n"
            "  StrictHostKeyChecking yes\n"
        )
        self.known_hosts.write_text(f"[{self.address}]:{self.ssh_port} {self.host_key}\n")
