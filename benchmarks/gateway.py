"""Five hundred streams at once through our gateway, through LiteLLM's proxy, and past both.

The engine streams tokens at a fixed pace and costs next to nothing; engine, gateway and clients
share this machine. Ours runs with a key, its limits and a budget, as rendered; LiteLLM with two
workers and its master key, because keys with limits need a PostgreSQL there.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import peers, streams
from benchmarks.figures import Figure
from benchmarks.measure import BenchmarkError, end, turn
from benchmarks.servers import free_port

REPOSITORY = Path(__file__).resolve().parent.parent
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
COUNT, TOKENS, PAUSE_MS = 500, 50, 100
ALONE = 200
WAIT_SECONDS = 400.0
OURS, LITELLM, DIRECT = "inferbase", "LiteLLM", "direct"


def measure(rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    """The figures of the gateway."""
    rounds = min(rounds, 3)
    taken: dict[str, list[dict[str, Any]]] = {OURS: [], LITELLM: [], DIRECT: []}
    with tempfile.TemporaryDirectory(prefix="gateway-") as name:
        folder, port = Path(name), free_port()
        engine = _python("engine", str(port), stdout=subprocess.DEVNULL)
        try:
            _answers(port, engine)
            actions: dict[str, Callable[[], dict[str, Any]]] = {
                OURS: lambda: _through(_ours(folder, port)),
                LITELLM: lambda: _through(_litellm(folder, port)),
                DIRECT: lambda: _load(port, None),
            }
            for number in range(rounds):
                for who in turn(list(actions), number):
                    taken[who].append(actions[who]())
        finally:
            end(engine)
    return _figures(taken), taken | {"litellm": peers.installed("litellm")}


def _figures(taken: dict[str, list[dict[str, Any]]]) -> list[Figure]:
    def over(who: str, what: str) -> float:
        """Median over the rounds of what a round adds to the direct way, in milliseconds."""
        pairs = zip(taken[who], taken[DIRECT], strict=True)
        return 1000 * statistics.median(a[what] - b[what] for a, b in pairs)

    def worst(who: str) -> float:
        return COUNT - max(float(run["failed"]) for run in taken[who])

    figures = [
        Figure("streams held at once", worst(OURS), "", COUNT, at_most=False),
        Figure("first token of one stream, added", over(OURS, "alone"), "ms", 10),
        Figure("first token at 500 streams, added (median)", over(OURS, "first"), "ms", 10),
        Figure("streams held at once, LiteLLM", worst(LITELLM), ""),
        Figure("first token of one stream, LiteLLM adds", over(LITELLM, "alone"), "ms"),
        Figure("first token at 500 streams, LiteLLM adds", over(LITELLM, "first"), "ms"),
    ]
    for who in (OURS, LITELLM, DIRECT):
        late = 1000 * statistics.median(run["late_p99"] or 0 for run in taken[who])
        figures.append(Figure(f"tokens late at 500 streams (p99), {who}", late, "ms"))
    for who in (OURS, LITELLM):
        cpu = statistics.median(run["cpu"] for run in taken[who])
        memory = max(run["memory"] for run in taken[who]) / 2**20
        figures.append(Figure(f"processor time for 500 streams, {who}", cpu, "s"))
        figures.append(Figure(f"memory at 500 streams, {who}", memory, "MiB"))
    return figures


def _load(port: int, gateway: subprocess.Popen[bytes] | None) -> dict[str, Any]:
    """One stream after the other, then all at once."""
    alone = _asked("alone", str(port), str(ALONE))
    before = _cpu(gateway)
    found = _asked("load", str(port), str(COUNT), str(TOKENS), str(PAUSE_MS))
    first = found.pop("first")
    return {
        "alone": statistics.median(alone["first"]),
        "first": statistics.median(first) if first else None,
        "first_p99": first[len(first) * 99 // 100] if first else None,
        **found,
        "cpu": _cpu(gateway) - before,
        "memory": _memory(gateway),
    }


def _through(running: Any) -> dict[str, Any]:
    with running as (port, process):
        return _load(port, process)


@contextmanager
def _ours(folder: Path, engine: int) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    from inferfleet.load.load import load_fleet
    from inferfleet.paths import Roots
    from inferfleet.render.render import render, write_release
    from inferfleet.secrets import Secret

    root, port = folder / f"root-{secrets.token_hex(4)}", free_port()
    service = {
        "kind": "llama-cpp", "runtime": "process", "program": "/bin/true", "port": engine,
        "model": "/models/bench.gguf", "served-name": streams.MODEL,
    }  # fmt: skip
    key = {"secret": "BENCH", "rpm": 10**6, "tpm": 10**9, "budget": {"tokens": 10**12}}
    gateway = {"kind": "gateway", "runtime": "process", "program": NGINX, "port": port,
               "gateway": {"keys": {"bench": key}}}  # fmt: skip
    machine = {"root": str(root), "secrets": {"BENCH": {"env": "BENCH"}},
               "services": {"engine": service, "gateway": gateway}}  # fmt: skip
    path = folder / "fleet/inventory/bench-gateway.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(machine))
    fleet = load_fleet(Roots(REPOSITORY, folder / "fleet"))
    write_release(render(fleet, path.stem, {"BENCH": Secret(streams.KEY)}), root / "current")
    (root / ".inferbase/run/gateway").mkdir(parents=True)
    lines = (root / "current/env/gateway.env").read_text().splitlines()
    env = dict(line.split("=", 1) for line in lines)
    config = root / "current/files/gateway/nginx.conf"
    with _running([NGINX, "-e", "stderr", "-c", str(config)], env, root / "log", port) as process:
        yield port, process


@contextmanager
def _litellm(folder: Path, engine: int) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    port = free_port()
    base = f"http://127.0.0.1:{engine}/v1"
    # Its quickest settings as its documentation gives them: no log of requests, no retries.
    config = {
        "model_list": [
            {
                "model_name": streams.MODEL,
                "litellm_params": {
                    "model": f"openai/{streams.MODEL}",
                    "api_base": base,
                    "api_key": "none",
                },
            }
        ],
        "litellm_settings": {"num_retries": 0, "request_timeout": 600, "telemetry": False},
        "general_settings": {"master_key": streams.KEY, "disable_spend_logs": True},
    }
    path = folder / "litellm.json"
    path.write_text(json.dumps(config))
    env = {"LITELLM_LOG": "ERROR", "HOME": str(folder), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    argv = [
        *(str(peers.environment("litellm") / "litellm"), "--config", str(path)),
        *("--host", "127.0.0.1", "--port", str(port), "--num_workers", "2"),
        # uvicorn ends workers that do not answer while they start, and these start slowly.
        *("--timeout_worker_healthcheck", "300"),
    ]
    with _running(argv, env, folder / "litellm.log", port) as process:
        yield port, process


@contextmanager
def _running(
    argv: list[str], env: dict[str, str], log: Path, port: int
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        process = subprocess.Popen(
            argv, env={"PATH": os.environ["PATH"], **env}, stdout=out, stderr=out
        )
    try:
        _answers(port, process)
        yield process
    except BenchmarkError as error:
        raise BenchmarkError(f"{error}:\n{log.read_text(errors='replace')[-2000:]}") from None
    finally:
        end(process)


def _answers(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until whatever starts there streams a token, ten times so that all workers are warm."""
    body = {"model": streams.MODEL, "messages": [{"role": "user", "content": "Hi"}],
            "stream": True, "max_tokens": 1}  # fmt: skip
    deadline, good = time.monotonic() + WAIT_SECONDS, 0
    while good < 10:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {streams.KEY}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                good += b"token" in answer.read()
        except (urllib.error.URLError, OSError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchmarkError(f"port {port} does not answer: {error}") from None
            time.sleep(0.2)


def _python(*words: str, stdout: int) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "benchmarks.streams", *words]
    return subprocess.Popen(argv, cwd=REPOSITORY, stdout=stdout)


def _asked(*words: str) -> dict[str, Any]:
    process = _python(*words, stdout=subprocess.PIPE)
    said, _ = process.communicate()
    if process.returncode:
        raise BenchmarkError(f"the clients ended with {process.returncode}")
    found: dict[str, Any] = json.loads(said)
    return found


def _family(process: subprocess.Popen[bytes] | None) -> list[Path]:
    """The process and everything below it, as folders of /proc."""
    if process is None:
        return []
    found, todo = [], [process.pid]
    while todo:
        pid = todo.pop()
        folder = Path("/proc", str(pid))
        try:
            for thread in (folder / "task").iterdir():
                todo += [int(child) for child in (thread / "children").read_text().split()]
        except OSError:
            continue
        found.append(folder)
    return found


def _cpu(process: subprocess.Popen[bytes] | None) -> float:
    """Seconds of processor time that a server and its workers have used."""
    ticks = 0
    for folder in _family(process):
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _memory(process: subprocess.Popen[bytes] | None) -> int:
    """Most resident memory of a server and its workers together, in bytes; shared counts once
    for each."""
    total = 0
    for folder in _family(process):
        status = (folder / "status").read_text()
        total += int(status.partition("VmHWM:")[2].split()[0]) << 10
    return total
