"""A consumer's overlay for test machines, and the command line run as a user runs it."""

from __future__ import annotations

import itertools
import json
import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from e2e.forked import REPOSITORY, Operator, Ran
from testbed.machine import MODEL, TestMachine

INVOKE = Path(sys.executable).with_name("invoke")
ROOT = "/opt/inference"
QUESTION = {
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is the capital of France?"},
    ],
    "temperature": 0,
    "max_tokens": 16,
}
ANSWER = "The capital of France is Paris."

_NUMBERS = itertools.count(1)


def llama(**changes: Any) -> dict[str, Any]:
    """A service: the real llama.cpp server with the real model; None removes a key."""
    options = {"ctx-size": 512, "threads": 1, **changes.pop("options", {})}
    made = {
        "kind": "llama-cpp",
        "model": MODEL,
        "served-name": "smol",
        "port": 8080,
        "options": options,
        **changes,
    }
    return {key: value for key, value in made.items() if value is not None}


class Fleet:
    """An overlay folder with machine files, and `invoke` with it and the testbed's ssh files."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.overlay = folder / "fleet"
        self.home = home
        self._runs = 0
        (self.overlay / "inventory").mkdir(parents=True)

    def machine(self, name: str, **keys: Any) -> None:
        """Write inventory/NAME.yaml; keys with underscores are written with dashes."""
        path = self.overlay / "inventory" / f"{name}.yaml"
        path.write_text(yaml.safe_dump({k.replace("_", "-"): v for k, v in keys.items()}))

    def host(self, machine: TestMachine, services: Mapping[str, Any], **keys: Any) -> None:
        """Write the file of a test machine, reached by its ssh alias."""
        made = {"address": machine.name, "root": ROOT, "runtime": "compose", **keys}
        self.machine(machine.name, **made, services=dict(services))

    def environment(self, **extra: str) -> dict[str, str]:
        """What the command line finds in its environment."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("INFERBASE_", "SSH_"))}
        return {**kept, "HOME": str(self.home), "INFERBASE_OVERLAY": str(self.overlay), **extra}

    def invoke(self, *words: str, timeout: float = 180, input: str = "", **env: str) -> Ran:
        """Run `invoke WORDS` in the checkout without a terminal."""
        if not input:
            return Operator(words, self.environment(**env), self._outputs()).ended(timeout)
        done = subprocess.run(
            [INVOKE, *words],
            cwd=REPOSITORY,
            env=self.environment(**env),
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def _outputs(self) -> Path:
        """A new folder for the outputs of a run."""
        self._runs += 1
        folder = self.overlay.parent / f"run-{self._runs}"
        folder.mkdir()
        return folder

    def shell(self, line: str) -> Ran:
        """Run a command line that a message told the user to run.

        ssh looks for the user's files where the password database says, not in $HOME, and asks
        on a terminal whether to accept a key: a program in front of it stands for both.
        """
        front = self.overlay.parent / "bin" / "ssh"
        front.parent.mkdir(exist_ok=True)
        files, real = self.home / ".ssh", shutil.which("ssh")
        front.write_text(
            f"#!/bin/sh\nexec {real} -F {files}/config -o UserKnownHostsFile={files}/known_hosts"
            ' -o StrictHostKeyChecking=accept-new "$@"\n'
        )
        front.chmod(0o755)
        done = subprocess.run(
            ["sh", "-c", line],
            env=self.environment(PATH=f"{front.parent}:{os.environ['PATH']}"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start `invoke WORDS` and leave it running."""
        return subprocess.Popen(
            [INVOKE, *words],
            cwd=REPOSITORY,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def on_terminal(
        self, *words: str, replies: Sequence[tuple[str, str]], timeout: float = 120
    ) -> tuple[int, str]:
        """Run `invoke WORDS` on a terminal; replies: (text to wait for, line to type then).

        Returns the exit code and all that the terminal showed.
        """
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(REPOSITORY)
            os.execve(INVOKE, ["invoke", *words], self.environment(TERM="dumb"))
        shown, waiting, seen = b"", list(replies), 0
        deadline = time.monotonic() + timeout
        try:
            while True:
                if time.monotonic() > deadline:
                    os.kill(pid, 9)
                    raise TimeoutError(shown.decode(errors="replace"))
                if not select.select([terminal], [], [], 0.5)[0]:
                    continue
                try:
                    chunk = os.read(terminal, 65536)
                except OSError:  # the other side of the terminal is closed
                    break
                if not chunk:
                    break
                shown += chunk
                if waiting and (at := shown.find(waiting[0][0].encode(), seen)) >= 0:
                    seen = at + len(waiting[0][0])
                    os.write(terminal, waiting.pop(0)[1].encode() + b"\n")
        finally:
            os.close(terminal)
            status = os.waitpid(pid, 0)[1]
        return os.waitstatus_to_exitcode(status), shown.decode(errors="replace")


class Place:
    """A root of its own on the shared machine, so that tests do not meet."""

    def __init__(self, machine: TestMachine, fleet: Fleet) -> None:
        number = next(_NUMBERS)
        self.machine, self.fleet = machine, fleet
        self.root, self.port = f"/opt/inference/r{number}", 9000 + number
        self.container = f"r{number}-llama"

    def write(self, **changes: Any) -> None:
        """The machine file, with one llama service and some changes to it."""
        service = llama(**{"port": self.port, **changes})
        self.fleet.host(self.machine, {"llama": service}, root=self.root)

    def invoke(self, task: str, *words: str, timeout: float = 180) -> Ran:
        """Run a task on the machine."""
        return self.fleet.invoke(task, "--host", self.machine.name, *words, timeout=timeout)

    def ask(self) -> str:
        """The model's answer to QUESTION."""
        return ask(self.machine, self.port)


def ask(machine: TestMachine, port: int = 8080, key: str = "") -> str:
    """The model's answer to QUESTION, asked on the machine itself."""
    header = f"-H {shlex.quote(f'Authorization: Bearer {key}')} " if key else ""
    reply = machine.check(
        f"curl -sS --fail-with-body http://127.0.0.1:{port}/v1/chat/completions {header}"
        "-H 'Content-Type: application/json' -d @-",
        stdin=json.dumps(QUESTION).encode(),
    )
    text: str = json.loads(reply)["choices"][0]["message"]["content"]
    return text.strip()


def inspect(machine: TestMachine, container: str) -> dict[str, Any]:
    """What the machine's Docker daemon says of a container."""
    found: dict[str, Any] = json.loads(machine.check(f"docker inspect {container}"))[0]
    return found


def tree(machine: TestMachine, path: str = ROOT) -> str:
    """Every path below a directory with type, mode, size and link target, sorted."""
    return machine.check(f"find {path} -printf '%p %y %m %s %l\\n' | sort")
