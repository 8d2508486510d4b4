"""Headers of GGUF and safetensors: exact sizes, and nothing believed of a damaged file."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable

import model_configs as real
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferfleet.capacity.shape import gguf as module
from inferfleet.capacity.shape.config import config_shape
from inferfleet.capacity.shape.gguf import Many, Reader, read_gguf
from inferfleet.capacity.shape.gguf_shape import gguf_shape
from inferfleet.capacity.shape.reading import shape_of
from inferfleet.capacity.shape.safetensors import index_files, read_safetensors, stored_shape
from inferfleet.errors import FleetError


class Memory:
    """A file in memory that counts what is read of it."""

    def __init__(self, data: bytes, name: str = "m.gguf") -> None:
        self.data, self.name, self.size = data, name, len(data)
        self.asked: list[tuple[int, int]] = []

    def read(self, offset: int, length: int) -> bytes:
        self.asked.append((offset, length))
        return self.data[offset : offset + length]


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def number(key: str, value: int) -> bytes:
    return text(key) + struct.pack("<II", 4, value)


def words(key: str, values: list[str]) -> bytes:
    return text(key) + struct.pack("<IIQ", 9, 8, len(values)) + b"".join(map(text, values))


def tensor(name: str, dimensions: list[int], kind: int, offset: int) -> bytes:
    head = text(name) + struct.pack("<I", len(dimensions))
    return (
        head + struct.pack(f"<{len(dimensions)}Q", *dimensions) + struct.pack("<IQ", kind, offset)
    )


def gguf_file(entries: list[bytes], tensors: list[bytes], data: int, version: int = 3) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(entries))
    head += b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(data)


ENTRIES = [
    text("general.architecture") + struct.pack("<I", 8) + text("llama"),
    number("llama.block_count", 1),
    number("llama.embedding_length", 64),
    number("llama.attention.head_count", 4),
    number("llama.attention.head_count_kv", 2),
    words("tokenizer.ggml.tokens", [f"word{one}" for one in range(30_000)]),
]
TENSORS = [
    tensor("token_embd.weight", [64, 100], 8, 0),  # q8_0: 34 bytes for 32 numbers
    tensor("blk.0.attn_q.weight", [64, 64], 1, 6816),
]
WHOLE = gguf_file(ENTRIES, TENSORS, 6816 + 8192)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("version", [2, 3])
def test_a_header_is_read_in_pieces(known: bool, version: int) -> None:
    file = Memory(gguf_file(ENTRIES, TENSORS, 6816 + 8192, version))
    found = read_gguf(file.read, file.size if known else None)
    assert found.metadata["tokenizer.ggml.tokens"] == Many(30_000)
    assert [one.bytes for one in found.tensors] == [6800, 8192]
    assert found.end == file.size
    assert file.asked[0] == (0, module.FIRST_READ)
    assert all(length <= module.LONGEST_READ for _, length in file.asked)
    shape = gguf_shape([found])
    assert (shape.weights.total, shape.weights.embedding, shape.weights.tied) == (14992, 6800, True)
    assert (shape.vocab, shape.layers[0].heads, shape.layers[0].key) == (30_000, 2, 16)


def damaged(change: Callable[[bytearray], object]) -> bytes:
    data = bytearray(WHOLE)
    change(data)
    return bytes(data)


WORD = text("llama.block_count") + struct.pack("<I", 8) + text("x")
BAD = {
    "empty": (b"", "cannot be in a file"),
    "other magic": (b"GGML" + WHOLE[4:], "does not begin with GGUF"),
    "version": (b"GGUF" + struct.pack("<I", 9) + WHOLE[8:], "version is 9"),
    "big endian": (b"GGUF" + struct.pack(">I", 3) + WHOLE[8:], "big endian"),
    "many entries": (WHOLE[:16] + struct.pack("<Q", 1 << 60) + WHOLE[24:], "cannot be in a file"),
    "many tensors": (WHOLE[:8] + struct.pack("<Q", 1 << 60) + WHOLE[16:], "cannot be in a file"),
    "long key": (WHOLE[:24] + struct.pack("<Q", 1 << 40) + WHOLE[32:], "a name of"),
    "cut in the header": (WHOLE[:5000], "cannot be in a file|truncated"),
    "cut in the tensors": (WHOLE[:-1], "truncated"),
    "unknown type": (gguf_file(ENTRIES, [tensor("a", [32], 99, 0)], 64), "unknown type 99"),
    "half a block": (gguf_file(ENTRIES, [tensor("a", [33], 8, 0)], 64), "no multiple"),
    "five dimensions": (gguf_file(ENTRIES, [tensor("a", [1] * 5, 0, 0)], 64), "5 dimensions"),
    "huge": (gguf_file(ENTRIES, [tensor("a", [1 << 40, 1 << 40], 0, 0)], 64), "impossibly large"),
    "no architecture": (gguf_file([], [], 0), "no general.architecture"),
    "text for a number": (gguf_file([*ENTRIES[:1], WORD], [], 0), "not a number"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_gguf(name: str) -> None:
    data, words_ = BAD[name]
    with pytest.raises(FleetError, match=words_):
        gguf_shape([read_gguf(Memory(data).read, len(data))])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=12), st.integers(0, 2000))
def test_whatever_is_in_it_the_answer_is_a_shape_or_an_error(
    place: int, noise: bytes, cut: int
) -> None:
    small = gguf_file([*ENTRIES[:5], words("tokenizer.ggml.tokens", ["a"] * 9)], TENSORS, 15008)
    data = (small[:place] + noise + small[place + len(noise) :])[: len(small) - cut]
    for size in (len(data), None):
        try:
            shape = gguf_shape([read_gguf(Memory(data).read, size)])
        except FleetError:
            continue
        assert shape.weights.total >= 0


def stored(tensors: dict[str, tuple[str, list[int]]], **more: object) -> bytes:
    sizes, header, at = {"BF16": 2, "F8_E4M3": 1, "F32": 4}, {}, 0
    for key, (kind, shape) in tensors.items():
        size = sizes[kind]
        for one in shape:
            size *= one
        header[key] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    body = json.dumps(header | more).encode()
    return struct.pack("<Q", len(body)) + body + bytes(at)


TWO = {
    "model.embed_tokens.weight": ("BF16", [100, 8]),
    "model.layers.0.mlp.experts.0.up_proj.weight": ("F8_E4M3", [8, 8]),
    "model.layers.0.self_attn.q_proj.weight": ("BF16", [8, 8]),
    "model.layers.1.self_attn.q_proj.weight": ("BF16", [8, 8]),
    "lm_head.weight": ("BF16", [100, 8]),
    "visual.blocks.0.attn.weight": ("BF16", [4, 4]),
}
CONFIG = real.QWEN3_32B | {"num_hidden_layers": 1, "hidden_size": 8, "vocab_size": 100}


def test_exact_weights_by_part() -> None:
    file = Memory(stored(TWO, __metadata__={"format": "pt"}))
    shape = stored_shape(config_shape(CONFIG), [read_safetensors(file.read, file.size)])
    weights = shape.weights
    # Without the layer beyond the model's own, which engines do not load.
    assert (weights.total, weights.how) == (1600 * 2 + 64 + 128 + 32, "exact")
    assert shape.source == "safetensors"
    assert shape.notes == ("128 bytes of layers for further tokens are not loaded",)
    assert (weights.embedding, weights.output, weights.experts) == (1600, 1600, 64)
    assert weights.idle == 32  # the part that sees
    assert weights.layers == (64 + 128,)
    assert weights.read_per_token(1, 1) == 1600 + 64 + 128
    tied = stored_shape(
        config_shape(CONFIG | {"tie_word_embeddings": True}), [read_safetensors(file.read)]
    )
    assert tied.weights.total == weights.total - 1600  # engines load one of the two


BAD_STORED = {
    "short": (b"\0" * 4, "truncated"),
    "long header": (struct.pack("<Q", 1 << 50) + b"{}", "claims"),
    "no json": (struct.pack("<Q", 4) + b"nope", "no JSON"),
    "a list": (struct.pack("<Q", 2) + b"[]", "no JSON object"),
    "cut": (stored(TWO)[:-1], "truncated"),
    "no place": (stored({}, a={"dtype": "F32", "shape": [1]}), "not described"),
    "backwards": (
        stored({}, a={"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}), "impossible place",
    ),
    "other size": (
        stored({}, a={"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}), "another size",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_STORED)
def test_a_bad_safetensors(name: str) -> None:
    data, words_ = BAD_STORED[name]
    with pytest.raises(FleetError, match=words_):
        read_safetensors(Memory(data).read, len(data))


def test_an_index() -> None:
    text_ = json.dumps(
        {"metadata": {"total_size": 7}, "weight_map": {"a": "2", "b": "1", "c": "1"}}
    )
    assert index_files(text_) == (("1", "2"), 7)
    for bad in ("", "[]", "{}", '{"weight_map": 3}'):
        with pytest.raises(FleetError, match="names no files"):
            index_files(bad)


def files(**data: bytes) -> list[Memory]:
    return [Memory(body, name.replace("_", ".").replace("..", "_")) for name, body in data.items()]


def test_a_quantization_beside_the_config() -> None:
    """ModelOpt before 0.31 says it in a file of its own; config.json goes before it."""
    algorithms = {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}
    said = {"producer": {"name": "modelopt"}, "quantization": algorithms}
    beside = Memory(json.dumps(said).encode(), "hf_quant_config.json")
    found = shape_of([Memory(json.dumps(real.LLAMA_8B).encode(), "config.json"), beside])
    assert (found.quantization, found.cache_type) == ("modelopt", "fp8_e4m3")
    own = real.LLAMA_8B | {"quantization_config": real.FP8}
    found = shape_of([Memory(json.dumps(own).encode(), "config.json"), beside])
    assert (found.quantization, found.cache_type) == ("fp8", "")


def test_a_gguf_file_beside_a_whole_model() -> None:
    """What serves a directory reads the safetensors; some repositories have a GGUF file, too."""
    config, gguf = json.dumps(CONFIG).encode(), Memory(b"GGUF, of another size", "model.gguf")
    whole = files(config_json=config, model_safetensors=stored(TWO))
    assert shape_of([gguf, *whole]) == shape_of(whole)
    for some in ([gguf, whole[0]], [gguf, whole[1]]):
        with pytest.raises(FleetError, match=r"model\.gguf"):
            shape_of(some)


def test_files_of_a_model() -> None:
    config = json.dumps(CONFIG).encode()
    exact = shape_of(files(config_json=config, model_safetensors=stored(TWO)))
    assert exact.weights.how == "exact"
    assert shape_of(files(config_json=config)).weights.how == "estimated"
    loose = shape_of(files(config_json=config, pytorch__model_bin=bytes(5000)))
    assert (loose.weights.total, loose.weights.how) == (5000, "exact")
    assert shape_of(files(m_gguf=WHOLE, mmproj_gguf=b"")).architecture == "llama"
    for bad, words_ in (
        (files(readme_md=b""), "neither a GGUF"),
        (files(a_gguf=WHOLE, b_gguf=WHOLE), "several GGUF"),
        (files(config_json=b"{"), "no JSON"),
    ):
        with pytest.raises(FleetError, match=words_):
            shape_of(bad)


def test_parts_of_a_split_file() -> None:
    second = gguf_file([], [tensor("blk.0.ffn_up.weight", [64, 64], 1, 0)], 8192)
    parts = [
        Memory(WHOLE, "m-00001-of-00002.gguf"), Memory(second, "m-00002-of-00002.gguf"),
    ]  # fmt: skip
    assert shape_of(parts).weights.total == 14992 + 8192
    with pytest.raises(FleetError, match="1 of 2 parts"):
        shape_of(parts[:1])


def test_a_file_like_ours_is_a_reader() -> None:
    reader: Reader = Memory(WHOLE).read
    assert read_gguf(reader).version == 3
