"""Capacity's arithmetic against llama.cpp itself: tiny models with the ratios of real shapes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import llama_cpp_server
import pytest
import tiny_gguf

from inferfleet.capacity.engines.cells import Slots, cells
from inferfleet.capacity.engines.claim import claim
from inferfleet.capacity.engines.kv import llama_token
from inferfleet.capacity.engines.rules import compute_buffer
from inferfleet.capacity.shape.gguf import read_gguf
from inferfleet.capacity.shape.gguf_shape import gguf_shape
from inferfleet.capacity.shape.shape import Shape
from inferfleet.capacity.term import Memory

MIB = 1 << 20
# What the log rounds to: two places of a MiB, in each of the caches' two halves.
ROUNDED = 0.01 * MIB

# (model, settings); the settings' names are ours, of Slots.
CASES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"context": 4096, "slots": 2}),
    ("llama", {"context": 3000, "slots": 3, "unified": True, "keys": "q8_0", "values": "q8_0"}),
    ("gemma3", {"context": 4096, "slots": 2}),
    ("gemma3", {"context": 4096, "slots": 4, "unified": True, "keys": "q4_0", "values": "f16"}),
    ("gemma3", {"context": 4096, "slots": 1, "ubatch": 128}),
    ("gemma3", {"context": 1000, "slots": 3, "full": True}),
    ("deepseek2", {"context": 4096, "slots": 1}),
    ("deepseek2", {"context": 2048, "slots": 2, "keys": "q8_0", "values": "q8_0"}),
    ("qwen3moe", {"context": 2048, "slots": 1, "values": "q5_1"}),
    ("granitehybrid", {"context": 4096, "slots": 3}),
    ("lfm2", {"context": 2048, "slots": 2}),
]
NAMES = {
    "context": "n_ctx", "slots": "n_parallel", "unified": "kv_unified", "full": "swa_full",
    "ubatch": "n_ubatch", "keys": "cache_type_k", "values": "cache_type_v",
}  # fmt: skip
_CACHE = re.compile(
    r"llama_kv_cache: size = +([\d.]+) MiB \( *(\d+) cells, +(\d+) layers, +\d+/(\d+) seqs\)"
)
_STATES = re.compile(r"llama_memory_recurrent: size = +([\d.]+) MiB")
_WORK = re.compile(r"sched_reserve: +CPU compute buffer size = +([\d.]+) MiB")
_MODEL = re.compile(r"load_tensors: .*model buffer size = +([\d.]+) MiB")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder = tmp_path_factory.mktemp("gguf")
    made = {name: folder / f"{name}.gguf" for name in tiny_gguf.MODELS}
    for name, path in made.items():
        tiny_gguf.MODELS[name](path)
    return made


@pytest.fixture(scope="module")
def logs(models: Mapping[str, Path]) -> list[str]:
    """What llama.cpp says when it starts, for each case."""
    if os.environ.get("CI") != "true" and find_spec("xllamacpp") is None:
        pytest.skip("needs xllamacpp: pip install -e '.[local]'")
    given = [
        {"model": str(models[name])} | {NAMES[key]: value for key, value in settings.items()}
        for name, settings in CASES
    ]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(log_of, given))


def log_of(given: Mapping[str, Any]) -> str:
    """The log of one server up to its word that it listens."""
    command = [sys.executable, llama_cpp_server.__file__, json.dumps(given)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace")
    watchdog = threading.Timer(120, server.kill)
    watchdog.start()
    lines = []
    try:
        assert server.stderr is not None
        for line in server.stderr:
            lines.append(line)
            if "listening on" in line:
                return "".join(lines)
    finally:
        watchdog.cancel()
        server.kill()
        server.communicate()
    pytest.fail(f"llama.cpp ended with {given}: {''.join(lines)[-1500:]}")


def shape_of(path: Path) -> Shape:
    with path.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        header = read_gguf(read, path.stat().st_size, path.name)
    assert header.end == path.stat().st_size
    return gguf_shape([header], path.name)


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{n}-{g}" for n, g in CASES])
def test_memory_is_what_llama_cpp_reserves(
    number: int, models: Mapping[str, Path], logs: list[str]
) -> None:
    name, given = CASES[number]
    shape, slots = shape_of(models[name]), Slots(**given)
    ours, log = cells(shape, slots), logs[number]
    caches = [
        (float(size) * MIB, int(count) * int(stores), int(layers))
        for size, count, layers, stores in _CACHE.findall(log)
    ]
    assert caches, log[-2000:]
    assert sum(layers for _, _, layers in caches) == len(shape.of("full", "window", "mla"))
    states = sum(float(size) for size in _STATES.findall(log)) * MIB
    seen = sum(size for size, _, _ in caches) + states
    assert ours.total == pytest.approx(seen, rel=0.02, abs=ROUNDED)
    assert ours.states == pytest.approx(states, rel=0.02, abs=ROUNDED)
    # Bytes per token are exact: the log's size is rounded, its cells and layers are not.
    whole, windows = len(shape.of("full", "mla")), len(shape.of("window"))
    expected = [(ours.cells, whole, ours.token), (ours.window_cells, windows, ours.window_token)]
    expected = [one for one in expected if one[1]]
    assert [one[:2] for one in expected] == [one[1:] for one in caches]
    for (count, _, token), (size, *_) in zip(expected, caches, strict=True):
        assert round(size / count) == pytest.approx(token, abs=ROUNDED / count + 0.5)


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{n}-{g}" for n, g in CASES])
def test_estimates_are_near(number: int, models: Mapping[str, Path], logs: list[str]) -> None:
    name, given = CASES[number]
    shape = shape_of(models[name])
    work = max(float(size) for size in _WORK.findall(logs[number])) * MIB
    assert 0.85 * work <= compute_buffer(shape, Slots(**given)) <= 2 * work
    # Weights in the log: all tensors, with the padding between them.
    loaded = sum(float(size) for size in _MODEL.findall(logs[number])) * MIB
    assert shape.weights.total == pytest.approx(loaded, rel=0.02, abs=ROUNDED)


def test_a_claim_counts_what_is_reserved(models: Mapping[str, Path], logs: list[str]) -> None:
    options = {"ctx-size": 4096, "parallel": 2}
    made = claim("llama", "llama-cpp", options, shape_of(models["llama"]), Memory(host=1 << 34))
    terms = {term.name: term for term in made.terms}
    assert terms["KV cache"].amount == 8 * MIB
    assert terms["KV per token"].amount == 4 * llama_token(shape_of(models["llama"]).layers[0])
    assert made.amount == sum(term.amount for term in made.terms if term.unit == "bytes")
    assert (made.pool, made.limits) == ("host", ())
