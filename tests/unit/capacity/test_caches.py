"""Bytes per token, cells and blocks, by tables; the engines' own answers are in tests/engines."""

from __future__ import annotations

from dataclasses import replace

import model_configs as real
import pytest

from inferfleet.capacity.engines.blocks import Blocks, Cache, blocks
from inferfleet.capacity.engines.cells import Slots, cells
from inferfleet.capacity.engines.kv import (
    llama_row,
    llama_token,
    token_bytes,
    vllm_state,
    vllm_token,
)
from inferfleet.capacity.shape.config import config_shape
from inferfleet.capacity.shape.shape import Layer, Shape, Weights
from inferfleet.errors import FleetError

QWEN = config_shape(real.QWEN3_32B)
GIB = 1 << 30


def test_s4_comes_out() -> None:
    """Qwen3-32B in bf16: 256 KiB a token, and 66.25 GiB for 271,360 tokens in blocks of 16."""
    assert token_bytes(QWEN) == 262_144
    plan = blocks(QWEN, Cache())
    count = plan.count(int(66.25 * GIB))
    assert (count, plan.bytes) == (16_960, 4 << 20)
    assert plan.tokens(count, 32_000) == 271_360
    assert count * blocks(QWEN, Cache(type="fp8")).bytes == int(33.125 * GIB)


FULL = Layer("full", 8, 128, 128)
LATENT = Layer("mla", 1, latent=512, rope=64)
# (layer, cache type, ranks, bytes per token)
VLLM = [
    (FULL, "auto", 1, 4096),
    (FULL, "fp8", 1, 2048),
    (FULL, "fp8_e5m2", 4, 512),
    (FULL, "auto", 8, 512),
    (FULL, "auto", 16, 512),  # ranks beyond the KV heads repeat them
    (FULL, "int8_per_token_head", 1, 8 * (256 + 8)),
    (FULL, "int4_per_token_head", 1, 8 * (128 + 8)),
    (FULL, "nvfp4", 1, 8 * 2 * (64 + 8)),
    (Layer("full", 2, 192, 128), "auto", 1, 2 * 320 * 2),
    (LATENT, "auto", 1, 1152),
    (LATENT, "auto", 8, 1152),  # every rank has the whole latent
    (LATENT, "fp8", 1, 576),
    (LATENT, "fp8_ds_mla", 1, 656),
    (Layer("none"), "auto", 1, 0),
]


@pytest.mark.parametrize(("layer", "cache", "ranks", "size"), VLLM)
def test_vllm_token(layer: Layer, cache: str, ranks: int, size: int) -> None:
    assert vllm_token(layer, cache, 2, ranks) == size


# (numbers, type, bytes): ggml's blocks
ROWS = [(128, "f16", 256), (128, "f32", 512), (128, "q8_0", 136), (128, "q4_0", 72)]
ROWS += [(128, "q4_1", 80), (128, "q5_0", 88), (128, "q5_1", 96), (128, "iq4_nl", 72)]


@pytest.mark.parametrize(("numbers", "kind", "size"), ROWS)
def test_llama_row(numbers: int, kind: str, size: int) -> None:
    assert llama_row(numbers, kind) == size


def test_llama_token() -> None:
    assert llama_token(FULL) == 4096
    assert llama_token(FULL, "q8_0", "q8_0") == 2176
    assert llama_token(LATENT) == 1152  # values are a view of the keys
    with pytest.raises(FleetError, match="no cache type fp8"):
        llama_row(128, "fp8")
    with pytest.raises(FleetError, match="multiples of 32"):
        llama_row(48, "q8_0")


# (slots, cells of one request, stores, tokens of a step, cells of a window of 512)
SLOTS = [
    (Slots(4096, 2), 2048, 2, 512, 1024),
    (Slots(1000, 3), 512, 3, 512, 512),
    (Slots(4096, 4, unified=True), 4096, 1, 512, 2560),
    (Slots(300), 512, 1, 300, 512),
    (Slots(4096, 2, full=True), 2048, 2, 512, 2048),
    (Slots(4096, ubatch=128), 4096, 1, 128, 768),
    (Slots(4096, batch=64), 4096, 1, 64, 768),
]


@pytest.mark.parametrize(("slots", "request_", "stores", "step", "window"), SLOTS)
def test_cells(slots: Slots, request_: int, stores: int, step: int, window: int) -> None:
    assert (slots.request, slots.stores, slots.step) == (request_, stores, step)
    assert slots.window(512) == window


def test_a_latent_has_one_type() -> None:
    with pytest.raises(FleetError, match="in one type"):
        cells(config_shape(real.DEEPSEEK_V3), Slots(4096, keys="q8_0"))


def shape(*layers: Layer) -> Shape:
    return replace(QWEN, layers=layers, weights=Weights(0))


def layout(plan: Blocks) -> list[tuple[int, int]]:
    return [(group.layers, group.block) for group in plan.groups]


def test_groups_of_windows() -> None:
    """Gemma 3: 10 full layers of 62; groups of 10, the windows' in six of 8 or 9."""
    plan = blocks(config_shape(real.GEMMA3_27B), Cache())
    assert sorted(layout(plan)) == [(8, 16)] * 2 + [(9, 16)] * 4 + [(10, 16)]
    assert plan.bytes == 10 * 16 * 8192
    # 2048 tokens: 128 blocks for the full layers, windows keep 1023 + 1024 tokens and one block.
    plan = blocks(config_shape(real.GEMMA3_27B), Cache(running=1024))
    assert plan.request(2048) == 128 + 6 * (128 + 1)


def test_chunks_begin_with_a_block() -> None:
    """Llama 4: no block more, as a window of 512 has; counted on vLLM 0.32 itself."""
    chunk = replace(FULL, attention="window", window=512, chunked=True)
    plan = blocks(shape(chunk, FULL), Cache(block=128, running=1024))
    assert plan.request(2048) == 16 + 12
    window = blocks(shape(replace(chunk, chunked=False), FULL), Cache(block=128, running=1024))
    assert window.request(2048) == 16 + 13


def test_nearly_equal_kinds_share_the_larger_size() -> None:
    window = replace(FULL, attention="window", window=128)
    assert layout(blocks(shape(*[FULL] * 13, *[window] * 12), Cache())) == [(13, 16), (12, 16)]
    assert len(blocks(shape(*[FULL] * 10, *[window] * 15), Cache()).groups) == 3


def test_different_heads_of_one_kind_share_a_group() -> None:
    plan = blocks(shape(FULL, replace(FULL, heads=4)), Cache())
    assert (layout(plan), plan.bytes) == ([(2, 16)], 16 * (4096 + 2048))


def test_smaller_pages_hold_more_tokens() -> None:
    window = Layer("window", 4, 128, 128, window=128)
    assert layout(blocks(shape(FULL, window), Cache())) == [(1, 16), (1, 32)]


def test_states_are_padded_to_a_page() -> None:
    """Qwen3-Next: a state of 1 MiB and more needs attention blocks of 544 tokens."""
    plan = blocks(config_shape(real.QWEN3_NEXT_80B), Cache(align=False))
    state = config_shape(real.QWEN3_NEXT_80B).layers[0].state
    assert state is not None
    assert vllm_state(state, 2) == (3 * 8192 + 32 * 128 * 128) * 2
    assert plan.block % 16 == 0
    assert plan.block * 2048 >= vllm_state(state, 2) > (plan.block - 16) * 2048
    assert plan.request(plan.block * 4) == 4 + 3
    aligned = blocks(config_shape(real.QWEN3_NEXT_80B), Cache())
    assert aligned.request(plan.block * 4) == 4 + 3 * 2
    mamba2 = blocks(config_shape(real.GRANITE_H_SMALL), Cache())
    assert mamba2.request(mamba2.block * 4) == 4 + 9 * 3


def test_the_longest_request() -> None:
    plan = blocks(QWEN, Cache())
    assert plan.longest(10, 1000) == 160
    assert plan.longest(10, 100) == 100
    assert plan.longest(0, 100) == 0


def test_nothing_to_keep() -> None:
    plan = blocks(shape(), Cache())
    assert (plan.bytes, plan.count(GIB), plan.tokens(0, 100)) == (0, 0, 0)
