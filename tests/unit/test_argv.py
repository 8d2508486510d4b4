"""Options of a machine file -> flags of an engine."""

from __future__ import annotations

import pytest

from inferfleet.errors import FleetError
from inferfleet.schema.options import Options
from inferfleet.services.argv import build, flags, merge_options

VLLM = Options(style="vllm")
LLAMA = Options(
    style="llama-cpp",
    known=["ctx-size", "metrics", "jinja", "no-jinja", "flash-attn", "lora", "ngl"],
    short=["ngl"],
    on_off=["flash-attn"],
)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"max-model-len": 4096}, ["--max-model-len", "4096"]),
        ({"max_model_len": "4K"}, ["--max-model-len", "4K"]),
        ({"enforce-eager": True}, ["--enforce-eager"]),
        ({"enable-prefix-caching": False}, ["--no-enable-prefix-caching"]),
        ({"gpu-memory-utilization": 0.9}, ["--gpu-memory-utilization", "0.9"]),
        ({"cudagraph-capture-sizes": [1, 2, 4]}, ["--cudagraph-capture-sizes", "1", "2", "4"]),
        ({"middleware": []}, []),
        (
            {"hf-overrides": {"a": [1, {"b": "\u00e9 '"}]}},
            ["--hf-overrides", '{"a":[1,{"b":"\u00e9 \'"}]}'],
        ),
        ({"chat-template": "-x"}, ["--chat-template=-x"]),
        ({"seed": -1}, ["--seed=-1"]),
        ({"chat-template": ""}, ["--chat-template", ""]),
        ({"tokenizer": "a b\n$c"}, ["--tokenizer", "a b\n$c"]),
    ],
)
def test_vllm(option: dict[str, object], words: list[str]) -> None:
    assert flags(option, VLLM) == words  # type: ignore[arg-type]


def test_vllm_list_cannot_hold_a_dash() -> None:
    with pytest.raises(FleetError, match="begins with a dash"):
        flags({"lora-modules": ["a", "-b"]}, VLLM)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"ctx-size": 4096}, ["--ctx-size", "4096"]),
        ({"ngl": 99}, ["-ngl", "99"]),
        ({"metrics": True}, ["--metrics"]),
        ({"metrics": False}, []),
        ({"jinja": False}, ["--no-jinja"]),
        ({"flash-attn": True}, ["--flash-attn", "on"]),
        ({"flash-attn": False}, ["--flash-attn", "off"]),
        ({"flash-attn": "auto"}, ["--flash-attn", "auto"]),
        ({"lora": ["a", "-b"]}, ["--lora", "a", "--lora", "-b"]),
        ({"predict": -1}, ["--predict", "-1"]),
    ],
)
def test_llama(option: dict[str, object], words: list[str]) -> None:
    assert flags(option, LLAMA) == words  # type: ignore[arg-type]


def test_no_options() -> None:
    assert flags({}, Options()) == []
    with pytest.raises(FleetError, match="takes no options"):
        flags({"a": 1}, Options())


def test_merge() -> None:
    merged = merge_options({"metrics": True, "b": 1}, {"metrics": None, "a": 2, "b": 3})
    assert list(merged.items()) == [("a", 2), ("b", 3)]


def test_groups_without_value_are_left_out() -> None:
    template = ["{program}", ["--model", "{model}"], ["--alias", "{served-name}"], "{options}"]
    values = {"program": "/bin/x", "model": None, "served-name": "{model} {options}"}
    assert build(template, values, ["--a", "1"]) == [  # type: ignore[arg-type]
        "/bin/x", "--alias", "{model} {options}", "--a", "1",
    ]  # fmt: skip
