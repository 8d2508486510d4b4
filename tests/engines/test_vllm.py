"""Real vLLM on the CPU behind rendered units of a machine with its own systemd, natively as S3.

Heavy: `nox -s vllm` runs it, CI does not. The models have random weights: what counts is that it
starts, what it answers to, what it refuses and in which words, and that nothing of it stays.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.fleet import REPOSITORY, Fleet, Ran
from testbed.machine import TestMachine

pytestmark = pytest.mark.vllm

KEY = "canary-51c2"
UNIT = "native-llm.service"
OPTIONS = {
    "max-model-len": 1024,
    "max-num-seqs": 4,
    "dtype": "float32",
    "enforce-eager": True,
    "chat-template": "/mnt/models/chat.jinja",
    "enable-prefix-caching": True,
    "enable-lora": True,
    "max-lora-rank": 8,
    "lora-modules": ["tiny-lora=/mnt/models/adapter"],
}
CHAT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "temperature": 0}


class Place:
    """The machine with one service `llm` of the kind vllm, run by its systemd."""

    def __init__(self, machine: TestMachine, folder: Path, environment: Path) -> None:
        self.machine, self.folder, self.environment = machine, folder, environment
        self.fleet = Fleet(folder, machine.home)
        (folder / "key").write_text(f"{KEY}\n")
        self.seconds: dict[str, float] = {}

    def write(self, env: dict[str, Any] | None = None, **service: Any) -> None:
        made = {
            "kind": "vllm",
            "model": "/mnt/models/llama",
            "served-name": "tiny",
            "port": 5005,
            "program": f"{self.environment}/bin/vllm",
            "options": OPTIONS,
            "secrets": ["VLLM_API_KEY"],
            "env": {"VLLM_CPU_KVCACHE_SPACE": 1, **(env or {})},
            "start-timeout": "10m",
            **service,
        }
        self.fleet.host(
            self.machine,
            {"llm": {key: value for key, value in made.items() if value is not None}},
            root="/opt/native",
            user="admin",
            sudo=True,
            runtime="systemd",
            secrets={"VLLM_API_KEY": {"file": str(self.folder / "key")}},
        )

    def invoke(self, task: str, *words: str) -> Ran:
        """Run a task; how long `up` and `down` took is kept, and the key shows nowhere."""
        began = time.monotonic()
        done = self.fleet.invoke(task, "--host", self.machine.name, *words, timeout=700)
        self.seconds[f"{len(self.seconds)} {task}"] = round(time.monotonic() - began, 1)
        assert KEY not in done.out + done.err
        return done

    def ask(self, path: str, body: Any = None, key: str = KEY) -> tuple[int, Any]:
        """HTTP status and JSON, or the text, of an answer, asked on the machine itself."""
        words = ["curl", "-s", "-m", "60", "-w", "\n%{http_code}", f"http://127.0.0.1:5005{path}"]
        words += ["-H", f"Authorization: Bearer {key}"] if key else []
        words += ["-H", "Content-Type: application/json", "-d", "@-"] if body is not None else []
        reply = self.machine.check(shlex.join(words), stdin=json.dumps(body).encode())
        text, _, status = reply.rpartition("\n")
        try:
            return int(status), json.loads(text)
        except ValueError:
            return int(status), text

    def processes(self) -> list[str]:
        """Command lines of everything in the machine that runs out of the environment."""
        lines = self.machine.check("ps -eo args").splitlines()
        return [line for line in lines if f"{self.environment}/bin" in line or "VLLM::" in line]

    def command(self) -> str:
        return self.machine.check(f"systemctl show -p ExecStart {UNIT}")


@pytest.fixture(scope="module")
def place(
    vllm_machine: TestMachine, vllm_environment: Path, tmp_path_factory: pytest.TempPathFactory
) -> Place:
    return Place(vllm_machine, tmp_path_factory.mktemp("place"), vllm_environment)


def test_a_native_server_and_what_it_refuses(place: Place) -> None:
    place.write()
    fresh = place.invoke("up")
    assert fresh.rc == 0, fresh
    assert "ready after" in fresh.err
    print(fresh.out)

    # Its key guards its API, its health and metrics are open; so is /invocations: a hazard.
    status, models = place.ask("/v1/models")
    assert (status, [model["id"] for model in models["data"]]) == (200, ["tiny", "tiny-lora"])
    assert place.ask("/v1/models", key="")[0] == 401
    assert place.ask("/health", key="")[0] == 200
    assert place.ask("/invocations", {"model": "tiny", **CHAT}, key="")[0] == 200
    for name in ("tiny", "tiny-lora"):
        status, chat = place.ask("/v1/chat/completions", {"model": name, **CHAT})
        assert (status, chat["usage"]["completion_tokens"]) == (200, 4), chat
    # The template of the machine file: its first line comes before the message.
    status, counted = place.ask("/tokenize", {"model": "tiny", "messages": CHAT["messages"]})
    assert (status, counted["count"]) == (200, len("SHOUT\nuser: Hi\nassistant: "))
    assert 'enable_prefix_caching="True"' in place.ask("/metrics")[1]
    assert place.invoke("health").rc == 0
    assert place.invoke("plan").rc == 0
    assert "--enable-prefix-caching" in place.command()
    assert KEY not in place.machine.check("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")

    # A name that does not exist is told before anything starts, with the nearest that does.
    place.write(options={**OPTIONS, "max-modle-len": 1024})
    unknown = place.invoke("up")
    assert unknown.rc == 64, unknown
    assert "did you mean max-model-len?" in unknown.err
    # A value that only the engine can judge: its words, and the service as it was.
    place.write(options={**OPTIONS, "block-size": 16})
    refused = place.invoke("up", "--format", "json")
    assert refused.rc == 1, refused
    assert refused.data[0]["result"] == "rolled back"
    assert "No common block size for 16" in refused.out + refused.err
    assert "block-size" not in place.command()
    assert place.ask("/v1/chat/completions", {"model": "tiny", **CHAT})[0] == 200

    place.write()
    down = place.invoke("down")
    assert down.rc == 0, down
    assert place.processes() == []
    print(place.seconds)


def test_the_options_of_the_kind_are_those_of_the_parser(vllm_environment: Path) -> None:
    program = vllm_environment / "bin" / "vllm"
    version = subprocess.check_output([program, "--version"], text=True).split()[-1]
    kind = yaml.safe_load((REPOSITORY / "services" / "vllm.yaml").read_text())
    assert kind["compose"]["image"] == f"vllm/vllm-openai:v{version.partition('+')[0]}"
    text = subprocess.check_output([program, "serve", "--help=all"], text=True)
    heads = [re.split(r"\s{2,}|\n", line)[0] for line in re.findall(r"^  (-.*)$", text, re.M)]
    names = {name for head in heads for name in re.findall(r"--([a-z][a-z0-9-]*)", head)}
    assert names == set(kind["options"]["known"])


def test_two_workers_and_nothing_of_them_stays(place: Place) -> None:
    # Between workers even eager execution compiles a step, and the machine has no compiler.
    env = {"VLLM_CPU_OMP_THREADS_BIND": "0|1", "TORCHDYNAMO_DISABLE": 1}
    options = {**OPTIONS, "tensor-parallel-size": 2, "distributed-executor-backend": "mp"}
    options["enable-prefix-caching"] = False
    for name in ("enable-lora", "max-lora-rank", "lora-modules"):
        del options[name]
    place.write(env, options=options)
    up = place.invoke("up")
    assert up.rc == 0, up
    assert place.ask("/v1/chat/completions", {"model": "tiny", **CHAT})[0] == 200
    # Off is said in the form that every version understands.
    assert "--no-enable-prefix-caching" in place.command()
    assert 'enable_prefix_caching="False"' in place.ask("/metrics")[1]
    workers = [line for line in place.processes() if "Worker" in line]
    assert len(workers) == 2, place.processes()
    began = time.monotonic()
    down = place.invoke("down")
    assert down.rc == 0, down
    assert time.monotonic() - began < 60  # the kind's stop-timeout: nothing had to be killed
    assert place.processes() == []
    assert "SIGKILL" not in place.machine.check(f"journalctl -u {UNIT} --no-pager -n 40")
    assert place.machine.check("ls /dev/shm").split() == []
    print(place.seconds)


def test_embeddings(place: Place) -> None:
    options = {"runner": "pooling", "max-model-len": 256, "dtype": "float32", "enforce-eager": True}
    place.write(model="/mnt/models/embedder", options=options)
    up = place.invoke("up")
    assert up.rc == 0, up
    status, answer = place.ask("/v1/embeddings", {"model": "tiny", "input": "Hello"})
    assert (status, len(answer["data"][0]["embedding"])) == (200, 128)
    assert place.invoke("health").rc == 0
    assert place.invoke("down").rc == 0
    assert place.processes() == []
    print(place.seconds)
