"""The same twelve files on 1 and 8 machines: inferbase, plain ssh, pyinfra and ansible-core.

All talk to the same sshd processes with the same key and ssh_config. The files are those that
inferbase renders for a machine of six services that are kept by the runtime process and not
started. The peers get them ready made, in one flat folder, and ask nothing else of a machine;
inferbase also asks for the state of its services, sockets, disk and locks.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.figures import Figure
from benchmarks.measure import (
    BenchmarkError,
    Sample,
    in_turns,
    median_ratio,
    median_seconds,
    run,
    run_together,
)
from benchmarks.servers import Farm, farm

REPOSITORY = Path(__file__).resolve().parent.parent
INVOKE = Path(sys.executable).with_name("invoke")
MIB = 1 << 20
FORKS = 16
OURS, SSH, PYINFRA, ANSIBLE = "inferbase", "ssh host true", "pyinfra", "ansible-core"


class Tools:
    """What each tool runs, for a farm of machines."""

    def __init__(self, servers: Farm, with_peers: bool = True) -> None:
        self.farm = servers
        self.overlay = servers.folder / "overlay"
        self.payload = servers.folder / "payload"
        self._rounds = 0
        self._write_overlay()
        first = servers.names[0]
        run([INVOKE, "render", "--out", self.payload, "--host", first], **self._our_place())
        self.files = sorted(
            path
            for path in (self.payload / first).rglob("*")
            if path.is_file() and not path.name.startswith(".")
        )
        if with_peers:
            self.pyinfra = peers.environment("pyinfra") / "pyinfra"
            self.ansible = peers.environment("ansible-core") / "ansible-playbook"
            self._write_pyinfra()
            self._write_ansible()

    def plan(self, hosts: Sequence[str], expect: Sequence[int] = (0,)) -> Sample:
        """`invoke plan`; exit 0 proves that there was nothing to change."""
        return run([INVOKE, "plan", *self._chosen(hosts)], expect=expect, **self._our_place())

    def apply(self, hosts: Sequence[str]) -> Sample:
        """`invoke apply`."""
        return run([INVOKE, "apply", "--yes", *self._chosen(hosts)], **self._our_place())

    def ssh(self, hosts: Sequence[str]) -> Sample:
        """One `ssh host true` a host, all at the same time."""
        commands = [["ssh", "-F", str(self.farm.ssh_config), name, "true"] for name in hosts]
        return run_together(commands, env=self.farm.environment(), cwd=self.farm.folder)

    def run_pyinfra(self, hosts: Sequence[str], dry: bool) -> Sample:
        """pyinfra with one files.put a file; dry: only find out what would change."""
        words = ["--dry"] if dry else ["--yes"]
        return run(
            [self.pyinfra, ",".join(hosts), "deploy.py", *words],
            env=self.farm.environment(),
            cwd=self.farm.folder / "pyinfra",
        )

    def run_ansible(self, hosts: Sequence[str], dry: bool) -> Sample:
        """ansible-playbook with one loop of copy; dry: only find out what would change."""
        words = ["--check"] if dry else []
        self._rounds += 1
        # Connections that Ansible keeps open would make only the later runs cheap; each run gets
        # its own place for them, as a user finds it after a pause.
        sockets = self.farm.folder / "sockets" / str(self._rounds)
        env = self.farm.environment(
            ANSIBLE_CONFIG=str(self.farm.folder / "ansible" / "ansible.cfg"),
            ANSIBLE_SSH_CONTROL_PATH_DIR=str(sockets),
        )
        command = [str(self.ansible), "--inventory", ",".join(hosts) + ",", *words, "site.yaml"]
        return run(command, env=env, cwd=self.farm.folder / "ansible")

    def check(self, hosts: Sequence[str]) -> None:
        """Raise BenchmarkError unless every tool has brought every file to every machine."""
        for host, (source, name, _) in product(hosts, self._flat()):
            relative = Path(source).relative_to(self.payload / self.farm.names[0])
            ours = self.farm.root(host, OURS) / "root" / "current" / relative
            if not ours.is_file():
                raise BenchmarkError(f"{ours} is missing")
            for peer in (PYINFRA, ANSIBLE):
                path = self.farm.root(host, peer) / name
                if not path.is_file() or path.read_bytes() != Path(source).read_bytes():
                    raise BenchmarkError(f"{path} is not what it should be")

    def _our_place(self) -> dict[str, Any]:
        env = self.farm.environment(INFERBASE_OVERLAY=str(self.overlay), LLAMA_API_KEY="benchmark")
        return {"env": env, "cwd": REPOSITORY}

    def _chosen(self, hosts: Sequence[str]) -> list[str]:
        return [word for name in hosts for word in ("--host", name)]

    def _write_overlay(self) -> None:
        for name in self.farm.names:
            path = self.overlay / "inventory" / f"{name}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            content = machine(name, self.farm.root(name, OURS) / "root")
            path.write_text(json.dumps(content))

    def _write_pyinfra(self) -> None:
        folder = self.farm.folder / "pyinfra"
        folder.mkdir()
        (folder / "deploy.py").write_text(
            "from pyinfra import host\nfrom pyinfra.operations import files\n\n"
            f"for source, name, mode in {self._flat()!r}:\n"
            f"    root = f'{self.farm.root('{host.name}', PYINFRA)}'\n"
            "    files.put(src=source, dest=f'{root}/{name}', mode=mode)\n"
        )

    def _write_ansible(self) -> None:
        folder = self.farm.folder / "ansible"
        folder.mkdir()
        root = self.farm.root("{{ inventory_hostname }}", ANSIBLE)
        items = [{"source": s, "name": n, "mode": m} for s, n, m in self._flat()]
        copy = {"src": "{{ item.source }}", "dest": f"{root}/{{{{ item.name }}}}"}
        task = {
            "name": "files",
            "ansible.builtin.copy": {**copy, "mode": "{{ item.mode }}"},
            "loop": items,
        }
        play = {"hosts": "all", "gather_facts": False, "tasks": [task]}
        (folder / "site.yaml").write_text(json.dumps([play]))
        (folder / "ansible.cfg").write_text(
            # Naming the interpreter spares Ansible its search for one.
            f"[defaults]\nforks = {FORKS}\ninterpreter_python = /usr/bin/python3\n"
            "[ssh_connection]\npipelining = True\n"
            f"ssh_args = -F {self.farm.ssh_config} -o ControlMaster=auto -o ControlPersist=15s\n"
        )

    def _flat(self) -> list[tuple[str, str, str]]:
        """(source, name, mode) of every file."""
        top = self.payload / self.farm.names[0]
        return [
            (str(path), "-".join(path.relative_to(top).parts), f"{path.stat().st_mode & 0o777:o}")
            for path in self.files
        ]


def machine(name: str, root: Path) -> dict[str, Any]:
    """A machine file that renders to twelve files: control, six scripts, five with secrets."""
    service = {
        "kind": "llama-cpp",
        "program": "/usr/bin/llama-server",
        "model": "/srv/models/smollm2.gguf",
        "autostart": False,
    }
    secret = {"secrets": ["LLAMA_API_KEY"]}
    services = {
        f"llama{number}": {**service, **(secret if number < 6 else {}), "port": 8000 + number}
        for number in range(1, 7)
    }
    return {
        "address": name,
        "root": str(root),
        "runtime": "process",
        "secrets": {"LLAMA_API_KEY": {"env": "LLAMA_API_KEY"}},
        "services": services,
    }


def measure(rounds: int, slow_rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    """The figures of the fan-out. slow_rounds: of the first apply, where peers take minutes."""
    with tempfile.TemporaryDirectory(prefix="fanout-") as folder, farm(Path(folder), 8) as servers:
        tools = Tools(servers)
        first = {n: _first_applies(tools, servers.names[:n], slow_rounds) for n in (1, 8)}
        no_op = {n: _no_ops(tools, servers.names[:n], rounds) for n in (1, 8)}
    figures = _figures(no_op, first)
    details = {
        "files": len(tools.files),
        "peers": [peers.installed(package) for package in peers.VERSIONS],
        "no-op": {n: _seconds(samples) for n, samples in no_op.items()},
        "first apply": {n: _seconds(samples) for n, samples in first.items()},
    }
    return figures, details


def _no_ops(tools: Tools, hosts: Sequence[str], rounds: int) -> dict[str, list[Sample]]:
    actions: dict[str, Callable[[], Sample]] = {
        OURS: partial(tools.plan, hosts),
        SSH: partial(tools.ssh, hosts),
        PYINFRA: partial(tools.run_pyinfra, hosts, dry=True),
        ANSIBLE: partial(tools.run_ansible, hosts, dry=True),
    }
    return in_turns(actions, rounds)


def _first_applies(tools: Tools, hosts: Sequence[str], rounds: int) -> dict[str, list[Sample]]:
    actions: dict[str, Callable[[], Sample]] = {
        OURS: partial(tools.apply, hosts),
        PYINFRA: partial(tools.run_pyinfra, hosts, dry=False),
        ANSIBLE: partial(tools.run_ansible, hosts, dry=False),
    }

    def empty() -> None:
        for tool in (OURS, PYINFRA, ANSIBLE):
            tools.farm.empty(tool)

    samples = in_turns(actions, rounds, between=empty)
    for action in actions.values():  # what the no-op runs find
        action()
    tools.check(hosts)
    return samples


def _figures(
    no_op: dict[int, dict[str, list[Sample]]], first: dict[int, dict[str, list[Sample]]]
) -> list[Figure]:
    eight, apply = no_op[8], first[8]
    to_ssh = 1 / median_ratio(eight[OURS], eight[SSH])
    peak = max(sample.peak for sample in (*eight[OURS], *apply[OURS]))
    figures = [
        Figure("no-op plan, 8 hosts, to parallel ssh", to_ssh, "times", 1.0),
        Figure("no-op plan, 8 hosts, pyinfra to it", median_ratio(eight[OURS], eight[PYINFRA]),
               "times", 5, at_most=False),
        Figure("no-op plan, 8 hosts, ansible-core to it",
               median_ratio(eight[OURS], eight[ANSIBLE]), "times", 50, at_most=False),
        Figure("first apply, 8 hosts, pyinfra to it", median_ratio(apply[OURS], apply[PYINFRA]),
               "times", 4, at_most=False),
        Figure("peak memory at 8 hosts", peak / MIB, "MiB", 150),
    ]  # fmt: skip
    for what, measured in (("no-op", no_op), ("first apply", first)):
        for count, samples in measured.items():
            plural = "s" if count > 1 else ""
            figures += [
                Figure(f"{what}, {count} host{plural}, {tool}", median_seconds(taken), "s")
                for tool, taken in samples.items()
            ]
    return figures


def _seconds(samples: dict[str, list[Sample]]) -> dict[str, Any]:
    return {
        tool: {
            "seconds": [round(sample.seconds, 3) for sample in taken],
            "cpu": [round(sample.cpu, 3) for sample in taken],
            "peak_mib": round(max(sample.peak for sample in taken) / MIB, 1),
        }
        for tool, taken in samples.items()
    }
