"""One QEMU process: its command line, its monitor and its end.

A process started here dies with the thread that started it, so it outlives no test session.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import shlex
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from testbed.shell import CommandError, run

PROGRAM = "qemu-system-x86_64"
GUEST_MIB = 2048
_TCG = "tcg,thread=multi,tb-size=512"
# A boot sector that writes 0x21 to I/O port 0xf4: mov dx,0xf4; mov al,0x21; out dx,al; hlt.
_BOOT_SECTOR = bytes.fromhex("baf400 b021 ee f4").ljust(510, b"\0") + b"\x55\xaa"
# The isa-debug-exit device makes QEMU exit with twice that value and one.
_BOOTED = 0x21 * 2 + 1


@functools.cache
def accelerator() -> str:
    """Return the -accel value: KVM where a guest really runs with it, otherwise emulation.

    /dev/kvm may exist and open where virtual machines cannot be nested, so one is tried.
    """
    if Path("/dev/kvm").exists():
        with tempfile.NamedTemporaryFile() as disk:
            disk.write(_BOOT_SECTOR.ljust(1 << 20, b"\0"))
            disk.flush()
            tried = [
                PROGRAM, "-nodefaults", "-machine", "q35", "-accel", "kvm", "-cpu", "max",
                "-m", "64", "-display", "none", "-device", "isa-debug-exit,iobase=0xf4,iosize=1",
                "-drive", f"file={disk.name},format=raw,if=ide,snapshot=on",
            ]  # fmt: skip
            with contextlib.suppress(subprocess.TimeoutExpired):
                done = subprocess.run(tried, capture_output=True, timeout=10, check=False)
                if done.returncode == _BOOTED:
                    return "kvm"
    return _TCG


def identity() -> str:
    """Return what a saved memory state depends on: QEMU's version, accelerator and processor."""
    version = run(PROGRAM, "--version").splitlines()[0]
    found = re.search(r"^model name.*", Path("/proc/cpuinfo").read_text(), re.M)
    processor = found[0] if found and accelerator() == "kvm" else ""
    return f"{version} {accelerator()} {processor}"


class Qemu:
    """A running virtual machine with one disk and one network card, whose port 22 is forwarded.

    The guest reaches nothing but this forwarding. serial receives what the guest writes to its
    serial console, appended. port 0 picks a free port; `port` is then the one in use.
    memory is a file that `save_memory` wrote: the machine goes on from there.
    """

    def __init__(
        self,
        disk: Path,
        serial: Path,
        *options: str,
        disk_format: str = "qcow2",
        port: int = 0,
        memory: Path | None = None,
    ) -> None:
        self._serial = serial
        mine, theirs = socket.socketpair()
        argv = [
            "setpriv", "--pdeathsig", "KILL",
            PROGRAM, "-no-user-config", "-nodefaults", "-display", "none",
            "-machine", "q35", "-accel", accelerator(), "-cpu", "max",
            "-smp", "2", "-m", str(GUEST_MIB),
            "-drive", f"file={disk},format={disk_format},if=virtio,discard=unmap",
            "-netdev", f"user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22",
            "-device", "virtio-net-pci,netdev=net0,romfile=",
            "-device", "virtio-rng-pci",
            "-chardev", f"file,id=serial,path={serial},append=on", "-serial", "chardev:serial",
            "-chardev", f"socket,id=monitor,fd={theirs.fileno()}", "-mon", "monitor,mode=control",
            *options,
        ]  # fmt: skip
        if memory is not None:
            argv += ["-incoming", f"exec:cat {shlex.quote(str(memory))}"]
        with theirs, serial.with_suffix(".qemu").open("wb") as errors:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=[theirs.fileno()],
            )
        mine.settimeout(60)
        self._socket, self._answers = mine, mine.makefile("r")
        try:
            self._answers.readline()
            self.ask("qmp_capabilities")
            self._until("query-status", {"running"}, failed={"internal-error"})
            self.port = self._forwarded_port()
        except BaseException:
            self.kill()
            raise

    def ask(self, command: str, **arguments: Any) -> Any:
        """Send a command of the QEMU machine protocol and return its answer.

        Raises CommandError when QEMU refuses it or is gone.
        """
        with contextlib.suppress(OSError):
            message = {"execute": command, "arguments": arguments}
            self._socket.sendall(json.dumps(message).encode())
            for line in self._answers:
                answer = json.loads(line)
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    raise CommandError(f"{command}: {answer['error']['desc']}")
        errors = self._serial.with_suffix(".qemu").read_text(errors="replace")
        raise CommandError(f"{command}: QEMU does not answer\n{errors[-2000:]}")

    def save_memory(self, file: Path) -> None:
        """Write the machine's whole state but the disk to a file and end the process."""
        self.ask("migrate-set-parameters", **{"max-bandwidth": 1 << 34})
        self.ask("migrate", uri=f"exec:cat >{shlex.quote(str(file))}")
        self._until("query-migrate", {"completed"}, failed={"failed", "cancelled"})
        self.ask("quit")
        self.wait()

    def wait(self, timeout_s: float = 120) -> None:
        """Wait until the guest has turned itself off; raise subprocess.TimeoutExpired if not."""
        self._process.wait(timeout_s)
        self.kill()

    def kill(self) -> None:
        """End the process at once, as when the power goes."""
        self._process.kill()
        self._process.wait()
        self._answers.close()
        self._socket.close()

    def _until(self, query: str, wanted: set[str], *, failed: set[str]) -> None:
        deadline = time.monotonic() + 60
        while (answer := self.ask(query)).get("status") not in wanted:
            if answer.get("status") in failed or time.monotonic() > deadline:
                raise CommandError(f"{query}: {answer}")
            time.sleep(0.02)

    def _forwarded_port(self) -> int:
        listing = self.ask("human-monitor-command", **{"command-line": "info usernet"})
        found = re.search(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", listing)
        if found is None:
            raise CommandError(f"QEMU forwards no port:\n{listing}")
        return int(found[1])
