"""The disk of a machine with its own kernel, and its memory just after boot, built once.

Debian with its cloud kernel, GRUB, systemd and sshd. Run as `python3 -m testbed.disk` to build.
"""

from __future__ import annotations

import contextlib
import shutil
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

from testbed import debian, qemu
from testbed.images import recipe_hash
from testbed.qemu import Qemu
from testbed.shell import CommandError, alone, cache_dir, run

SUITE = "bookworm"
# The cloud kernel is a quarter of the other one and has all that host preparation sets.
PACKAGES = [
    "dbus",
    "grub-pc",
    "initramfs-tools",
    "iproute2",
    "kmod",
    "linux-image-cloud-amd64",
    "lz4",
    "openssh-server",
    "procps",
    "sudo",
    "systemd",
    "systemd-sysv",
    "udev",
    "util-linux",
    "zstd",
]
_DISK_MIB = 4096
_PARTITION_SECTOR = 2048
_SECTOR = 512
_HERE = Path(__file__).parent
# Part of the key: raise it when this module builds the disk in another way.
_REVISION = "1"


@dataclass(frozen=True)
class Image:
    """The files of one built machine; they are shared, so nothing may write to them."""

    folder: Path

    @property
    def disk(self) -> Path:
        """The qcow2 disk: a backing file for the machines' own."""
        return self.folder / "disk.qcow2"

    @property
    def memory(self) -> Path:
        """The memory of a machine that had just booted from `disk`."""
        return self.folder / "memory"

    @property
    def key_file(self) -> Path:
        """The private key that root and admin accept."""
        return self.folder / "id_ed25519"

    @property
    def host_key_file(self) -> Path:
        """The machine's public host key."""
        return self.folder / "ssh_host_ed25519_key.pub"


def image() -> Image:
    """Return the built image, building it when its recipe or QEMU has changed."""
    made_by = (_HERE / "vm", Path(qemu.__file__))
    key = recipe_hash(SUITE, *PACKAGES, *made_by, qemu.identity(), _REVISION)
    kept = cache_dir() / "images" / f"kernel-{key}"
    kept.parent.mkdir(exist_ok=True)
    with alone("kernel"):
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=cache_dir()) as folder:
                ready = Path(folder) / "ready"
                ready.mkdir()
                _build(Path(folder), Image(ready))
                ready.rename(kept)
    return Image(kept)


def _build(work: Path, ready: Image) -> None:
    root, raw = work / "root", work / "raw"
    (root / "etc").mkdir(parents=True)
    # Before the packages, so that the kernel's one initramfs is made as it says.
    for part in ("etc", "usr"):
        run("cp", "-rT", "--preserve=mode", _HERE / "vm" / part, root / part)
    run(
        "debootstrap",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        f"--keyring={debian.KEYRING}",
        SUITE,
        root,
        debian.mirror(),
        env={"DEBIAN_FRONTEND": "noninteractive"},
        timeout=900,
    )
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "inferbase-test", "-f", ready.key_file)
    shutil.copyfile(ready.key_file.with_suffix(".pub"), root / "root" / "authorized_keys")
    shutil.copyfile(root / "etc/ssh/ssh_host_ed25519_key.pub", ready.host_key_file)
    shutil.copyfile(_HERE / "vm" / "first-boot.sh", root / "usr/sbin/first-boot")
    (root / "usr/sbin/first-boot").chmod(0o755)
    run("chroot", root, "/bin/sh", "-s", stdin=(_HERE / "vm" / "setup.sh").read_bytes())
    kernel, initramfs = work / "kernel", work / "initramfs"
    shutil.copyfile(next((root / "boot").glob("vmlinuz-*")), kernel)
    shutil.copyfile(next((root / "boot").glob("initrd.img-*")), initramfs)
    _make_disk(root, raw)
    _install_boot_loader(work, raw, kernel, initramfs)
    run("qemu-img", "convert", "-O", "qcow2", raw, ready.disk)
    _boot_and_save(work, ready)


def _make_disk(root: Path, raw: Path) -> None:
    """Put a folder's contents into the one partition of a new disk, without a loop device."""
    sectors = _DISK_MIB * (1 << 20) // _SECTOR - _PARTITION_SECTOR
    entry = struct.pack(
        "<B3sB3sII", 0x80, b"\xff" * 3, 0x83, b"\xff" * 3, _PARTITION_SECTOR, sectors
    )
    with raw.open("wb") as file:
        file.write(bytes(446) + entry + bytes(48) + b"\x55\xaa")
        file.truncate(_DISK_MIB << 20)
    offset = _PARTITION_SECTOR * _SECTOR
    # Nothing may be left for the kernel to do to the file system in the background.
    options = f"offset={offset},lazy_itable_init=0,lazy_journal_init=0"
    size = f"{sectors * _SECTOR // 1024}k"
    run("mkfs.ext4", "-q", "-L", "root", "-N", "65536", "-d", root, "-E", options, raw, size)


def _install_boot_loader(work: Path, raw: Path, kernel: Path, initramfs: Path) -> None:
    serial = work / "install.log"
    machine = Qemu(
        raw, serial, "-kernel", str(kernel), "-initrd", str(initramfs), "-no-reboot",
        "-append", "root=LABEL=root ro console=ttyS0 quiet panic=-1 init=/sbin/first-boot",
        disk_format="raw",
    )  # fmt: skip
    machine.wait()
    written = serial.read_text(errors="replace")
    if "installed-boot-loader" not in written:
        raise CommandError(f"GRUB could not be installed on the test disk\n{written[-4000:]}")


def _boot_and_save(work: Path, ready: Image) -> None:
    """Boot through GRUB, wait until nothing is left to start, and keep the machine's memory."""
    machine = Qemu(ready.disk, work / "boot.log")
    host = f"[127.0.0.1]:{machine.port}"
    (work / "known_hosts").write_text(f"{host} {ready.host_key_file.read_text()}")
    ssh = ["ssh", "-F", "/dev/null", "-i", str(ready.key_file), "-p", str(machine.port)]
    ssh += ["-o", f"UserKnownHostsFile={work / 'known_hosts'}", "-o", "ConnectTimeout=5"]
    ssh += ["-o", "BatchMode=yes", "-o", "ConnectionAttempts=30", "root@127.0.0.1"]
    settled = "systemctl is-system-running --wait; systemctl --failed --no-legend; sync"
    try:
        for _ in range(60):
            with contextlib.suppress(CommandError):
                state = run(*ssh, settled)
                break
        else:
            written = (work / "boot.log").read_text(errors="replace")
            raise CommandError(f"the test disk does not boot\n{written[-4000:]}")
        if state.split() != ["running"]:
            raise CommandError(f"the test disk boots badly\n{state}")
        machine.save_memory(ready.memory)
    finally:
        machine.kill()


if __name__ == "__main__":
    print(image().folder)
