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
OLLAMA, GGUF = "ollama:qwen3:8b", "/m/a.gguf"
BIND = "in a machine file use the key bind"
SERVED = "hint: it is for kind sglang or vllm"


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

    # The comments of its file say what is said here.
    text = (Path(__file__).parents[2] / "inventory" / "spark.yaml").read_text()
    first, second = (round(one["needs"]["main memory"] / 2**30) for one in (vllm, ollama))
    assert f"({first} GiB and {second} GiB of" in text
    # What has to be free at the start is there beside what the host may have.
    (room,) = vllm["rooms"]
    assert 0 < room["asks"][vllm["service"]] <= room["left"]

    code, out, _ = ask(host=["spark"], service=[vllm["service"], ollama["service"]])
    assert code == 2
    assert "262,144 B/token" in out
    assert "66.25 GiB" in out
    assert "271,360 tokens" in out
    last = out.splitlines()[-1]
    assert last.startswith(f"{vllm['service']} and {ollama['service']} do not fit because together")
    assert "12 GiB kept for the host" in last


def test_the_spark_without_the_hub(ask: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its figure comes from its model files then, and says so."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    code, found = ask.data(host=["spark"])
    assert code == 0
    vllm, ollama = found["services"]
    terms = {term["name"]: term for term in vllm["terms"]}
    assert (terms["KV per token"]["amount"], terms["KV per token"]["how"]) == (262_144, "declared")
    assert terms["KV cache"]["amount"] == 66.25 * (1 << 30)
    assert (terms["KV tokens"]["amount"], terms["KV tokens"]["how"]) == (271_360, "declared")
    assert terms["weights"]["amount"] == pytest.approx(qwen_files.weights(), rel=0.001)
    where = "in inventory/models/qwen3-32b-fp8.yaml (the hub http://127.0.0.1:9 cannot be reached"
    assert vllm["model_read"].startswith(where)
    assert (vllm["fits"], ollama["fits"]) == (True, True)
    assert ollama["terms"][0]["how"] == "declared"


@pytest.mark.parametrize("hub_is", ["down", "without it"])
def test_a_model_that_cannot_be_read(
    ask: Task, monkeypatch: pytest.MonkeyPatch, hub_is: str
) -> None:
    """Said in the table, in the sentence and as data, on memory of either sort."""
    if hub_is == "down":
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    why = "cannot be reached" if hub_is == "down" else "HTTP 404"
    for host in ("spark", "rtx5090"):
        asked: dict[str, Any] = {"host": [host], "model": "hf:org/none", "kind": "vllm"}
        asked["options"] = "kv-cache-memory-bytes=1073741824,gpu-memory-utilization=0.5"
        code, found = ask.data(**asked)
        assert code == 0
        assert (found["services"][0]["fits"], found["fits"]) == (None, True)
        assert why in found["services"][0]["model_unknown"]
        assert why in found["services"][0]["because"]
        _, out, _ = ask(**asked)
        assert out.splitlines()[1].split() == ["model", "not", "known", "-"]
        last = out.splitlines()[-1]
        assert last.startswith("hf:org/none: not known whether it fits: the model of hf:org/none")
        assert why in last


def test_what_would_fit(ask: Task) -> None:
    asked: dict[str, Any] = {"host": ["spark"], "model": MODEL, "kind": "vllm"}
    code, found = ask.data(**asked, options="max-model-len=32000")
    assert (code, found["services"][0]["fits"]) == (2, False)
    assert found["services"][0]["would_fit_with"] == [{"gpu-memory-utilization": 0.86}]
    code, out, _ = ask(**asked, options="max-model-len=32000")
    assert code == 2
    assert f"{MODEL} would fit with gpu-memory-utilization: 0.86" in out.splitlines()


def test_a_terminal_of_80_columns(ask: Task) -> None:
    """No row is longer; the sums stand there when asked for."""
    _, out, _ = ask(host=["spark"])
    rows = out.splitlines()
    end = next(number for number, row in enumerate(rows) if row.startswith("spark: "))
    assert end > 20
    assert max(map(len, rows[:end])) <= 80
    assert "FORMULA" not in rows[0]
    _, out, _ = ask(host=["spark"], service=["vllm-qwen3-32b-fp8"])
    assert out.splitlines()[0].split() == ["TERM", "AMOUNT", "HOW"]
    _, out, _ = ask(host=["spark"], exact=True)
    assert out.splitlines()[0].split() == [
        "SERVICE", "TERM", "AMOUNT", "EXACTLY", "HOW", "FORMULA"
    ]  # fmt: skip
    assert "262,144 bytes/token" in out


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
    ("host", "model", "kind"),
    [
        ("spark", "qwen3-32b-q8", "ollama"),  # a model file whose source is ollama:
        ("rtx5090", "qwen3-14b-q4", "llama-cpp"),  # one whose source is a GGUF file
        ("rtx5090", "qwen3-32b-fp8", "vllm"),
        ("rtx5090", "/srv/models/either", "vllm"),
    ],
)
def test_the_kind_follows_from_what_the_model_is(
    ask: Task, host: str, model: str, kind: str
) -> None:
    assert ask.data(host=[host], model=model)[1]["services"][0]["kind"] == kind


def test_parameters_of_a_modelfile(ask: Task) -> None:
    asked: dict[str, Any] = {"host": ["spark"], "model": "qwen3-32b-q8"}
    caches = []
    for tokens in (4096, 8192):
        code, found = ask.data(**asked, options=f"num_ctx={tokens}")
        assert (code, found["services"][0]["fits"]) == (0, True)
        terms = {term["name"]: term["amount"] for term in found["services"][0]["terms"]}
        caches.append(terms["KV cache"])
    assert caches[1] == 2 * caches[0] > 0


def test_a_kind_of_ones_own_with_the_rules_of_an_engine(
    ask: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of a kind is counted as the engine it says it is, with what would fit."""
    shipped = Path(__file__).parents[2] / "services" / "vllm.yaml"
    (tmp_path / "services").mkdir()
    for name, text in {
        "vllm-nightly": shipped.read_text(),
        "vllm-else": shipped.read_text().replace("engine: vllm\n", ""),
    }.items():
        (tmp_path / "services" / f"{name}.yaml").write_text(text)
    service = {"kind": "vllm-nightly", "model": MODEL, "options": {"max-model-len": 32_000}}
    machine = {"address": "192.0.2.1", "hardware": "dgx-spark", "services": {"chat": service}}
    (tmp_path / "inventory").mkdir()
    (tmp_path / "inventory" / "mine.yaml").write_text(json.dumps(machine))
    monkeypatch.setenv("INFERBASE_OVERLAY", str(tmp_path))
    asked: dict[str, Any] = {"host": ["spark"], "model": MODEL, "options": "max-model-len=32000"}
    for code, found in (ask.data(**asked, kind="vllm-nightly"), ask.data(host=["mine"])):
        assert (code, found["services"][0]["fits"]) == (2, False)
        assert found["services"][0]["would_fit_with"] == [{"gpu-memory-utilization": 0.86}]
    code, found = ask.data(**asked, kind="vllm-else")
    assert (code, found["services"][0]["fits"]) == (0, None)
    assert ask.data(host=["spark"], model=MODEL)[1]["services"][0]["kind"] == "vllm"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "vllm"}, "--kind and --options are for --model"),
        ({"model": MODEL, "service": ["x"]}, "--model asks about no service"),
        ({"model": MODEL, "kind": "vlm"}, "did you mean vllm?"),
        ({"model": MODEL, "options": "max-modellen=1"}, "did you mean max-model-len?"),
        ({"model": "hf:nonsense"}, "is not a repository of the hub"),
        ({"model": MODEL, "options": "max-model-len=abc"}, "max-model-len: should be a size"),
        ({"model": MODEL, "options": "gpu-memory-utilization=-0.5"}, "should be a number, above 0"),
        ({"model": MODEL, "options": "kv-cache-dtype=q8_0"}, "should be one of auto, float16"),
        ({"model": MODEL, "options": "host=1"}, f"is set by inferbase\nhint: leave it out; {BIND}"),
        ({"model": MODEL, "options": "swap-space=1"}, "no such option any more\nhint: gone since"),
        ({"model": OLLAMA, "options": "num_ctxx=1000000"}, "did you mean num_ctx?"),
        ({"model": OLLAMA, "options": "num_ctx=long"}, "num_ctx: should be a whole number"),
        ({"model": GGUF, "options": "n-ubatch=1"}, "the image of kind llama-cpp is older than"),
        ({"model": MODEL, "kind": "gateway"}, f"gateway serves no model of its own\n{SERVED}"),
        ({"model": "x", "kind": "gateway"}, "there is no model x in inventory/models"),
        ({"model": OLLAMA, "kind": "tgi"}, "and ollama:qwen3:8b is a model of Ollama's own store"),
        ({"model": OLLAMA, "kind": "tgi"}, "it is for kind ollama"),
        ({"model": MODEL, "kind": "llama-cpp"}, "kind llama-cpp takes one GGUF file, and hf:"),
        ({"model": MODEL, "kind": "llama-cpp"}, "NAME.gguf; it is for kind sglang or vllm"),
        ({"model": "hf:a/b/c.onnx"}, "no kind takes hf:a/b/c.onnx, which is a file of another"),
    ],
)
def test_asked_wrongly(ask: Task, options: dict[str, Any], message: str) -> None:
    code, out, err = ask(host=["spark"], **options)
    assert (code, out) == (64, "")
    assert message in err


def test_what_is_not_known(ask: Task) -> None:
    """The reason, and no refusal."""
    code, found = ask.data(host=["spark"], model="hf:org/none/a.gguf")
    assert code == 0
    assert found["services"][0]["fits"] is None
    assert found["services"][0]["kind"] == "llama-cpp"
    assert "(HTTP 404)" in found["services"][0]["model_unknown"]
    code, here = ask.data()
    assert code == 0
    assert here["source"] == "as the machine says now"
    assert here["memory"]["available"] <= here["memory"]["total"]
