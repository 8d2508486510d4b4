"""`invoke capacity` as a user runs it: S4's figure, what does not fit, what is asked wrongly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import qwen_files
from invoke.context import Context
from invoke.exceptions import Exit
from unit.models_servers import Hub, serving

from inferfleet.tasks.capacity import capacity

MODEL = f"hf:{qwen_files.NAME}"


class Task:
    """Runs the task with a hub on loopback that has Qwen3-32B-FP8."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, **options: Any) -> tuple[int, str, str]:
        code = 0
        try:
            capacity.body(Context(), **options)
        except Exit as end:
            code = end.code
        out, err = self._capsys.readouterr()
        assert "hf_canary" not in out + err
        return code, out, err

    def data(self, **options: Any) -> tuple[int, Any]:
        code, out, err = self(**options, format="json")
        assert err == ""
        return code, json.loads(out)[0]


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    with serving() as server, serving() as storage:
        qwen_files.publish(Hub(server, storage, qwen_files.NAME))
        yield server.url


@pytest.fixture
def ask(
    hub: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Task:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", hub)
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    monkeypatch.delenv("INFERBASE_OVERLAY", raising=False)
    return Task(capsys)


def test_the_spark(ask: Task) -> None:
    """Its KV figure to the byte; its two services one at a time."""
    code, found = ask.data(host=["spark"])
    assert code == 0
    assert found["source"] == "as inventory/hardware/dgx-spark.yaml says"
    vllm, ollama = found["services"]
    terms = {term["name"]: term for term in vllm["terms"]}
    assert (terms["KV per token"]["amount"], terms["KV per token"]["how"]) == (262_144, "exact")
    assert terms["KV cache"]["amount"] == 71_135_395_840 == 66.25 * (1 << 30)
    assert (terms["KV tokens"]["amount"], terms["KV tokens"]["how"]) == (271_360, "exact")
    assert terms["weights"]["amount"] == qwen_files.weights()
    assert vllm["model_read"] == "at the hub"
    assert (vllm["fits"], ollama["fits"]) == (True, True)
    assert found["together"] is None
    assert found["beside"][0]["services"] == [vllm["service"], ollama["service"]]
    assert found["beside"][0]["fits"] is False

    code, out, _ = ask(host=["spark"], service=[vllm["service"], ollama["service"]])
    assert code == 2
    assert "262,144 bytes/token" in out
    assert "66.25 GiB" in out
    assert "271,360 tokens" in out
    last = out.splitlines()[-1]
    assert last.startswith(f"{vllm['service']} and {ollama['service']} do not fit because together")
    assert "12 GiB kept for the host" in last


def test_a_model_that_no_service_names(ask: Task) -> None:
    code, found = ask.data(host=["rtx5090"], model=MODEL)
    assert code == 2
    assert found["services"][0]["kind"] == "vllm"
    assert found["services"][0]["fits"] is False
    assert found["services"][0]["model"] == MODEL
    options = "kv-cache-memory-bytes=1073741824,max-model-len=4096"
    options += ',hf-overrides={"a": 1, "b": 2},enforce-eager'
    code, found = ask.data(host=["spark"], model=MODEL, options=options)
    assert code == 0
    terms = {term["name"]: term["amount"] for term in found["services"][0]["terms"]}
    assert terms["KV tokens"] == 4096


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "vllm"}, "--kind and --options are for --model"),
        ({"model": MODEL, "service": ["x"]}, "--model asks about no service"),
        ({"model": MODEL, "kind": "vlm"}, "did you mean vllm?"),
        ({"model": MODEL, "options": "max-modellen=1"}, "did you mean max-model-len?"),
        ({"model": "hf:nonsense"}, "is not a repository of the hub"),
    ],
)
def test_asked_wrongly(ask: Task, options: dict[str, Any], message: str) -> None:
    code, out, err = ask(host=["spark"], **options)
    assert (code, out) == (64, "")
    assert message in err


def test_what_is_not_known(ask: Task) -> None:
    """The reason, and no refusal."""
    code, found = ask.data(host=["spark"], model="hf:org/none", kind="llama-cpp")
    assert code == 0
    assert found["services"][0]["fits"] is None
    assert "it answers HTTP 404" in found["services"][0]["model_unknown"]
    code, here = ask.data()
    assert code == 0
    assert here["source"] == "as the machine says now"
    assert here["memory"]["available"] <= here["memory"]["total"]
