"""Values of options as kinds declare them: what is wrong is found with its place, before a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fleet_files import error_lines

from inferfleet.load.load import load
from inferfleet.paths import Roots
from inferfleet.schema.options import OptionValue
from inferfleet.services.values import gpu_count, split_names, split_words, wrong_value

OURS = Path(__file__).parents[2]
SHARE = OptionValue(type="number", above=0, most=1)
LENGTH = OptionValue(type="size", least=1, words=["auto", -1])
NO_LENGTH = "should be a size such as 4096, 4K or 1.5k, at least 1 or auto or -1"
COUNT = OptionValue(type="whole", least=1)
TYPE = OptionValue(one_of=["auto", "fp8"])


@pytest.mark.parametrize(
    ("value", "rule", "told"),
    [
        (0.5, SHARE, ""),
        (1, SHARE, ""),
        ("0.92", SHARE, ""),
        (0, SHARE, "should be a number, above 0 and at most 1"),
        (-0.5, SHARE, "should be a number, above 0 and at most 1"),
        (1.5, SHARE, "should be a number, above 0 and at most 1"),
        (float("nan"), SHARE, "should be a number, above 0 and at most 1"),
        (True, SHARE, "should be a number, above 0 and at most 1"),
        ("half", SHARE, "should be a number, above 0 and at most 1"),
        (4096, LENGTH, ""),
        ("4K", LENGTH, ""),
        ("1.5g", LENGTH, ""),
        ("auto", LENGTH, ""),
        ("AUTO", LENGTH, ""),
        # vLLM takes none of these: a fraction of a power of 1024, a unit, a fraction alone.
        *((value, LENGTH, NO_LENGTH) for value in ("66.25G", "1.5K", "4GiB", "4kb", 4.5, "4.5")),
        (-1, LENGTH, ""),
        ("abc", LENGTH, NO_LENGTH),
        (0, LENGTH, NO_LENGTH),
        (2, COUNT, ""),
        ("2", COUNT, ""),
        (2.5, COUNT, "should be a whole number, at least 1"),
        ("2e3", COUNT, "should be a whole number, at least 1"),
        ([1, 2], COUNT, ""),
        ([1, 0], COUNT, "should be a whole number, at least 1"),
        ("fp8", TYPE, ""),
        ("FP8", TYPE, "should be one of auto, fp8"),
        ("q8_0", TYPE, "should be one of auto, fp8"),
        ("anything", OptionValue(), ""),
    ],
)
def test_values(value: object, rule: OptionValue, told: str) -> None:
    assert wrong_value(value, rule) == told


SPLIT: dict[str, Any] = {
    "factors": [["tp", "tensor"], ["dp"]],
    "without": {"dp-inside": ["dp"]},
    "elsewhere": ["nnodes", "backend=ray"],
}


@pytest.mark.parametrize(
    ("options", "count", "words"),
    [
        ({}, 1, ""),
        ({"tp": 4}, 4, "tp 4"),
        ({"tensor": "4", "dp": 2}, 8, "tensor 4 x dp 2"),
        ({"tp": 2, "dp": 2, "dp_inside": True}, 2, "tp 2 x dp 2"),
        ({"tp": 2, "dp": 2, "dp-inside": False}, 4, "tp 2 x dp 2"),
        ({"tp": 8, "nnodes": 2}, None, "tp 8"),
        ({"tp": 8, "nnodes": 1}, 8, "tp 8"),
        ({"tp": 8, "backend": "ray"}, None, "tp 8"),
        ({"tp": 8, "backend": "mp"}, 8, "tp 8"),
        ({"tp": "many"}, 1, "tp many"),
    ],
)
def test_gpus(options: dict[str, Any], count: int | None, words: str) -> None:
    assert gpu_count(SPLIT, options) == count
    assert split_words(SPLIT, options) == words
    assert split_names(SPLIT, ["x", *options]) == [
        n for n in options if n in ("tp", "tensor", "dp")
    ]


# (kind, a further key, an option, what is told; "": nothing)
WRONG = [
    ("vllm", "", "gpu-memory-utilization: -0.5", "should be a number, above 0 and at most 1"),
    ("vllm", "", "max-model-len: abc", "should be a size such as 4096, 4K or 1.5k, at least 1"),
    ("vllm", "", "kv-cache-dtype: q8_0", "should be one of auto, float16"),
    ("vllm", "", "tensor-parallel-size: 8", "tensor-parallel-size 8 needs 8 GPUs, and the service"),
    ("sglang", "gpus: [0]", "tp-size: 2", "tp-size 2 needs 2 GPUs, and the service has 1"),
    ("sglang", "", "mem-fraction-static: 1.5", "should be a number, above 0 and at most 1"),
    ("tgi", "", "cuda-memory-fraction: 2", "should be a number, above 0 and at most 1"),
    ("llama-cpp", "", "ctx-size: long", "should be a whole number, at least 0"),
    ("llama-cpp", "", "cache-type-k: fp8", "should be one of f32, f16"),
    ("vllm", "", "max-model-len: 32K", ""),
    ("vllm", "", "data-parallel-size: 1", ""),
    ("vllm", "gpus: none", "tensor-parallel-size: 2", ""),
]


def test_validate_says_where(tmp_path: Path) -> None:
    """Against our own kinds and hardware, through an overlay's machine."""
    folder = tmp_path / "inventory"
    folder.mkdir()
    text, expected = "address: h\nhardware: rtx-5090\nservices:\n", []
    for number, (kind, more, option, told) in enumerate(WRONG):
        model = "hf:o/m/m.gguf" if kind == "llama-cpp" else "hf:o/m"
        text += f"  s{number}:\n    kind: {kind}\n    model: {model}\n    port: {8000 + number}\n"
        text += f"    {more}\n" if more else ""
        text += f"    options: {{{option}}}\n"
        name = option.partition(": ")[0]
        place = f"{text.count(chr(10))}:{len('    options: {' + name + ': ') + 1}"
        expected += [f"m.yaml:{place}: services.s{number}.options.{name}: {told}"] if told else []
    (folder / "m.yaml").write_text(text)
    found = [line for line in error_lines(load(Roots(OURS, tmp_path))).splitlines() if ": " in line]
    told_of = [line for line in found if not line.startswith("hint:")]
    assert len(told_of) == len(expected)
    for line in expected:
        assert any(line in one for one in told_of), line


def test_every_helper_says_what_it_usually_takes() -> None:
    kinds = load(Roots(OURS, None)).fleet.kinds
    helpers = {name for name, kind in kinds.items() if kind.memory_estimate}
    assert helpers == {
        "gateway", "jupyter", "open-webui", "mlflow", "node-exporter", "dcgm-exporter"
    }  # fmt: skip
    for kind in kinds.values():
        known = kind.options_known or frozenset(kind.options.values)
        named = {
            name
            for names in (kind.options.gpus.factors if kind.options.gpus else [])
            for name in names
        }
        assert {*kind.options.values, *named} <= known
