"""Real LiteLLM before our gateway before a real engine: what one expects the other does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gateway_box
import httpx
import llama_cpp_server
import pytest
from engines.conftest import need
from ports import free_port
from testbed import litellm, model

pytestmark = [pytest.mark.slow, pytest.mark.e2e]
MASTER = "canary-sk-litellm"
SETTINGS = {
    "keys": {"alpha": {"secret": "ALPHA"}, "beta": {"secret": "BETA", "rpm": 2}},
    "routes": {"house": {"to": ["smollm2"], "aliases": ["talk"]}},
}


@dataclass
class Proxy:
    """LiteLLM's proxy, with the engine and the gateway behind it."""

    url: str

    def chat(self, name: str, **more: Any) -> httpx.Response:
        body = {
            "model": name,
            "messages": [{"role": "user", "content": "Count to five."}],
            "max_tokens": 8,
            "temperature": 0,
            "seed": 1,
            **more,
        }
        headers = {"Authorization": f"Bearer {MASTER}"}
        return httpx.post(
            f"{self.url}/v1/chat/completions", json=body, headers=headers, timeout=120
        )


@contextmanager
def _engine() -> Iterator[int]:
    """llama.cpp's server with the real model; its port."""
    given = {"model": str(model.gguf()), "n_ctx": 1024, "n_parallel": 2}
    command = [sys.executable, llama_cpp_server.__file__, json.dumps(given)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace")
    assert server.stderr is not None
    try:
        port = next(
            int(line.rsplit(":", 1)[1].split()[0].strip("/"))
            for line in server.stderr
            if "listening on" in line
        )
        # Its log goes on; a full pipe would hold it.
        threading.Thread(target=server.stderr.read, daemon=True).start()
        yield port
    finally:
        server.kill()
        server.wait()


@contextmanager
def _proxy(folder: Path, models: dict[str, dict[str, str]]) -> Iterator[Proxy]:
    """LiteLLM's proxy with these models, each with its litellm_params."""
    listed = [{"model_name": name, "litellm_params": given} for name, given in models.items()]
    config = {
        "model_list": listed,
        "litellm_settings": {"num_retries": 0, "telemetry": False},
        "general_settings": {"master_key": MASTER},
    }
    path, port = folder / "litellm.json", free_port()
    path.write_text(json.dumps(config))
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    program = litellm.build() / "bin" / "litellm"
    command = [program, "--config", path, "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "litellm.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if httpx.get(f"{url}/health/liveliness", timeout=10).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        else:
            pytest.fail((folder / "litellm.log").read_text(errors="replace")[-2000:])
        yield Proxy(url)
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    need(None if find_spec("xllamacpp") else "needs xllamacpp: pip install -e '.[local]'")
    need(None if Path(gateway_box.NGINX).exists() else "needs nginx")
    folder = tmp_path_factory.mktemp("litellm")
    with _engine() as port:
        services = {"smollm2": gateway_box.engine(port, "smollm2")}
        with gateway_box.gateway(folder, services, SETTINGS) as box:
            ours = {"api_base": f"{box.url}/v1"}
            models = {
                "through": {"model": "openai/house", "api_key": gateway_box.KEY, **ours},
                "alias": {"model": "openai/talk", "api_key": gateway_box.KEY, **ours},
                "limited": {"model": "openai/house", "api_key": gateway_box.OTHER_KEY, **ours},
                "stranger": {"model": "openai/house", "api_key": "sk-wrong", **ours},
                "missing": {"model": "openai/nothing", "api_key": gateway_box.KEY, **ours},
                "past": {
                    "model": "openai/smollm2",
                    "api_key": "none",
                    "api_base": f"http://127.0.0.1:{port}/v1",
                },
            }
            with _proxy(folder, models) as made:
                yield made


def words(answer: httpx.Response) -> str:
    """The text of an answer, streamed or not."""
    assert answer.status_code == 200, answer.text
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return str(answer.json()["choices"][0]["message"]["content"])
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert len(chunks) > 2
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


@pytest.mark.parametrize("stream", [False, True])
def test_through_the_gateway_as_past_it(proxy: Proxy, stream: bool) -> None:
    past = words(proxy.chat("past", stream=stream))
    assert past
    assert words(proxy.chat("through", stream=stream)) == past
    assert words(proxy.chat("alias", stream=stream)) == past


def test_usage_of_a_stream(proxy: Proxy) -> None:
    answer = proxy.chat("through", stream=True, stream_options={"include_usage": True})
    usages = [
        chunk["usage"]
        for line in answer.text.splitlines()
        if line.startswith("data: {") and (chunk := json.loads(line[6:])).get("usage")
    ]
    assert usages[-1]["completion_tokens"] == 8


@pytest.mark.parametrize(
    ("name", "status", "says"), [("stranger", 401, "key"), ("missing", 404, "nothing")]
)
def test_refusals_are_understood(proxy: Proxy, name: str, status: int, says: str) -> None:
    """LiteLLM reads our errors by their status and their form, and passes our words on."""
    answer = proxy.chat(name)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["error"]["message"]


def test_a_limit_is_a_limit(proxy: Proxy) -> None:
    answers = [proxy.chat("limited") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert "RateLimitError" in answers[-1].json()["error"]["message"]
