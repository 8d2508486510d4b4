"""A test session's network, ssh client files and machines; everything goes when it is closed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from testbed import images
from testbed.machine import TestMachine
from testbed.proxy import Proxy
from testbed.shell import CommandError, alone, cache_dir, run

LABEL = "inferbase-test.pid"
_FIRST, _LAST = 11, 250


def unavailable() -> str | None:
    """Return why test machines cannot be made here, or None when they can."""
    if os.geteuid() != 0:
        return "test machines need root (debootstrap, ssh host keys)"
    for tool in ("docker", "debootstrap", "ssh", "ssh-keygen"):
        if shutil.which(tool) is None:
            return f"test machines need {tool}: run .ci/install"
    try:
        run("docker", "version")
    except CommandError:
        return "test machines need a Docker daemon that answers: run .ci/install"
    return None


def sweep() -> None:
    """Remove machines and networks that sessions which no longer run have left behind."""
    with alone("sweep"):
        _sweep()


def _sweep() -> None:
    for kind, remove in (("ps", ["rm", "-fv"]), ("network", ["network", "rm"])):
        listing = ["network", "ls"] if kind == "network" else ["ps", "-a"]
        template = f'{{{{.ID}}}} {{{{.Label "{LABEL}"}}}}'
        found = run("docker", *listing, "--filter", f"label={LABEL}", "--format", template)
        for line in found.splitlines():
            name, pid = line.split()
            if not Path(f"/proc/{pid}").exists():
                run("docker", *remove, name)


class Testbed:
    """Makes machines on a network of its own, with fixed addresses and unique host keys.

    folder receives `home` (give it to a program as HOME: .ssh/config, known_hosts and a key are
    in it) and the machines' identities. The user's own ~/.ssh is never read or written.
    """

    __test__ = False  # keeps pytest from collecting this class

    def __init__(
        self, folder: Path, *, llama: str = images.LLAMA, binds: Mapping[Path, str] | None = None
    ) -> None:
        """binds: folders of this machine -> where every test machine sees them, read-only."""
        sweep()
        self._binds = dict(binds or {})
        self.folder = folder
        self.home = folder / "home"
        self.machines: dict[str, TestMachine] = {}
        self._image = images.preloaded_image(llama)
        self._aliases: dict[str, tuple[str, int, str]] = {}
        self._proxies: list[Proxy] = []
        self._used = 0
        self._made = 0
        ssh = self.home / ".ssh"
        ssh.mkdir(parents=True, mode=0o700)
        _keygen(ssh / "id_ed25519")
        self._write_client_files()
        self.network, self._prefix = self._make_network()

    def machine(
        self, name: str | None = None, *, tmpfs: dict[str, int] | None = None
    ) -> TestMachine:
        """Return a new machine that is up; tmpfs maps paths to the MiB of a disk mounted there."""
        return self._boot([self._reserve(name)], tmpfs)[0]

    def make(self, count: int, *, tmpfs: dict[str, int] | None = None) -> list[TestMachine]:
        """Return count new machines that are up, booted at the same time."""
        return self._boot([self._reserve(None) for _ in range(count)], tmpfs)

    def _reserve(self, name: str | None) -> TestMachine:
        """Give a machine its name, address and host key; nothing runs yet."""
        self._made += 1
        name = name or f"m{self._made}"
        if name in self.machines:
            raise ValueError(f"this session has a machine {name} already")
        container = f"{self.network}-{name}"
        identity = self.folder / "identity" / container
        identity.mkdir(parents=True)
        _keygen(identity / "ssh_host_ed25519_key")
        shutil.copyfile(self.home / ".ssh" / "id_ed25519.pub", identity / "authorized_keys")
        made = TestMachine(name, self._free_address(), container, self.home, identity)
        self.machines[name] = made
        self._write_client_files()
        return made

    def _boot(self, machines: list[TestMachine], tmpfs: dict[str, int] | None) -> list[TestMachine]:
        (cache_dir() / "models").mkdir(exist_ok=True)
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(lambda machine: self._boot_one(machine, tmpfs or {}), machines))
        return machines

    def _boot_one(self, machine: TestMachine, tmpfs: dict[str, int]) -> None:
        disks = [
            word
            for path, size in tmpfs.items()
            for word in ("--tmpfs", f"{path}:exec,size={size}m,mode=755,uid=1000,gid=1000")
        ]
        for folder, path in self._binds.items():
            disks += ["--volume", f"{folder}:{path}:ro"]
        run(
            "docker", "run", "--detach", "--name", machine.container, "--hostname", machine.name,
            "--label", f"{LABEL}={os.getpid()}", "--restart", "always",
            "--network", self.network, "--ip", machine.address, "--cgroupns", "host",
            "--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE",
            "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
            "--security-opt", "systempaths=unconfined", "--stop-signal", "SIGRTMIN+3",
            "--tmpfs", "/run:exec", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec", *disks,
            "--shm-size", "1g",
            "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw", "--volume", "/var/lib/docker",
            "--volume", f"{machine.identity}:/srv/testbed/identity:ro",
            "--volume", f"{cache_dir() / 'models'}:/srv/testbed/models:ro",
            # systemd hands credentials to units through mounts that have to spread.
            "--entrypoint", "/bin/sh", self._image,
            "-c", "mount --make-rshared / && exec /sbin/init",
        )  # fmt: skip
        machine.wait_up()

    def proxy(self, machine: TestMachine, *, latency_s: float = 0.0) -> Proxy:
        """Return a running proxy in front of a machine's sshd.

        `NAME-proxied` (host 127.0.0.1, the proxy's port) is then a host in the ssh client files.
        """
        made = Proxy(machine.address, machine.ssh_port, latency_s=latency_s)
        self._proxies.append(made)
        self._aliases[f"{machine.name}-proxied"] = ("127.0.0.1", made.port, machine.name)
        self._write_client_files()
        return made

    def change_host_key(self, machine: TestMachine, *, trust: bool = False) -> None:
        """Give a machine another host key; without trust known_hosts keeps the old one."""
        for file in machine.identity.glob("ssh_host_*"):
            file.unlink()
        _keygen(machine.identity / "ssh_host_ed25519_key")
        machine.check("systemctl restart ssh")
        machine.wait_up()
        if trust:
            self._write_client_files()

    def forget_host_key(self, machine: TestMachine) -> None:
        """Remove a machine's host key from known_hosts."""
        file = machine.known_hosts
        kept = [x for x in file.read_text().splitlines() if not x.startswith(machine.address)]
        file.write_text("".join(f"{line}\n" for line in kept))

    def trust_all(self) -> None:
        """Put every machine's present host key into known_hosts."""
        self._write_client_files()

    def destroy(self, machine: TestMachine) -> None:
        """Remove a machine, its disks and its entries in the ssh client files."""
        if run("docker", "ps", "-aq", "--filter", f"name=^{machine.container}$").strip():
            run("docker", "rm", "-fv", machine.container)
        shutil.rmtree(machine.identity)
        del self.machines[machine.name]
        self._aliases = {k: v for k, v in self._aliases.items() if v[2] != machine.name}
        self._write_client_files()

    def close(self) -> None:
        """Remove everything the session made outside its folder."""
        for proxy in self._proxies:
            proxy.close()
        for machine in list(self.machines.values()):
            self.destroy(machine)
        run("docker", "network", "rm", self.network)

    def _free_address(self) -> str:
        taken = {machine.address for machine in self.machines.values()}
        for _ in range(_FIRST, _LAST):
            address = f"{self._prefix}.{_FIRST + self._used % (_LAST - _FIRST)}"
            self._used += 1
            if address not in taken:
                return address
        raise RuntimeError("the session's network has no free address")

    def _make_network(self) -> tuple[str, str]:
        name = f"inferbase-test-{os.getpid()}"
        refused = ""
        for attempt in range(40):
            prefix = f"10.{213 + attempt % 8}.{(os.getpid() + attempt * 37) % 250}"
            subnet = f"{prefix}.0/24"
            try:
                run("docker", "network", "create", "--label", f"{LABEL}={os.getpid()}",
                    "--subnet", subnet, name)  # fmt: skip
            except CommandError as error:
                refused = str(error)
                continue
            return name, prefix
        raise CommandError(refused)

    def _write_client_files(self) -> None:
        ssh = self.home / ".ssh"
        hosts = {m.name: (m.address, m.ssh_port, m.name) for m in self.machines.values()}
        config, known = [], []
        for alias, (address, port, owner) in {**hosts, **self._aliases}.items():
            config.append(
                f"Host {alias}\n  HostName {address}\n  Port {port}\n"
                f"  User {self.machines[owner].user}\n"
            )
            where = address if port == 22 else f"[{address}]:{port}"
            known.append(f"{where} {self.machines[owner].host_key}\n")
        config.append(
            f"Host *\n  IdentityFile {ssh / 'id_ed25519'}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {ssh / 'known_hosts'}\n  GlobalKnownHostsFile /dev/null\n"
            "  StrictHostKeyChecking yes\n"
        )
        (ssh / "config").write_text("".join(config))
        (ssh / "known_hosts").write_text("".join(known))


def _keygen(file: Path) -> None:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "inferbase-test", "-f", file)
