"""GGUF headers -> Shape: what llama.cpp makes of a model's metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from inferfleet.capacity.shape.gguf import Gguf, Many, Value
from inferfleet.capacity.shape.shape import Layer, Shape, State, Weights
from inferfleet.errors import FleetError

# Every how many layers one is without a window; llama.cpp has this per architecture in its code
# (set_swa_pattern in src/models/*.cpp), the file says only the window. Negative: the first of
# the group is the one without.
PERIODS = {
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "cohere2": 4,
    "llama4": 4,
    "exaone4": 4,
    "olmo2": 4,
    "afmoe": 4,
    "smallthinker": -4,
}
# The files of these older conversions may lack the window's size.
WINDOWS = {"gemma2": 4096, "llama4": 8192}
# Architectures whose window llama.cpp reads and does not use.
UNUSED_WINDOWS = ("phi3",)
# All layers are states; the others of these families mark theirs by zero KV heads.
STATES_ONLY = ("mamba", "mamba2")
STATES_BY_HEADS = ("jamba", "granitehybrid", "lfm2", "lfm2moe", "kimi-linear", "plamo2")
STATES_BY_PERIOD = ("qwen3next", "qwen35", "qwen35moe")
BOTH = ("falcon-h1",)
# llama_model::create_memory makes none for these: encoders, and what writes a text all at once.
WITHOUT = (
    "bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3",
    "modern-bert", "eurobert", "gemma-embedding", "dream", "llada", "llada-moe", "rnd1",
)  # fmt: skip
MOST_LAYERS = 4096

_LAYER = re.compile(r"blk\.(\d+)\.")


class _Fields:
    """Metadata of one architecture; refuses what has the wrong type."""

    def __init__(self, metadata: Mapping[str, Value], name: str) -> None:
        self._metadata = metadata
        self._name = name
        self.architecture = metadata.get("general.architecture")
        if not isinstance(self.architecture, str):
            raise FleetError(f"{name} says no general.architecture")

    def get(self, key: str) -> Value | None:
        return self._metadata.get(f"{self.architecture}.{key}")

    def number(self, key: str, default: int | None = None) -> int:
        value = self.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, tuple) and value:
            value = max(value)
        if type(value) is not int or value < 0:
            raise FleetError(f"{self._name}: {self.architecture}.{key} is not a number: {value!r}")
        return value

    def each(self, key: str, layers: int, default: int = 0) -> tuple[int, ...]:
        """One number per layer, from a list or from one number for all."""
        value = self.get(key)
        if isinstance(value, tuple):
            if len(value) < layers or any(type(one) not in (int, bool) for one in value):
                raise FleetError(f"{self._name}: {self.architecture}.{key} is no number per layer")
            return tuple(int(one) for one in value[:layers])
        return (self.number(key, default),) * layers


def gguf_shape(headers: Sequence[Gguf], name: str = "the file") -> Shape:
    """The shape of a model from the header of its file, or of all parts of a split one.

    Raises FleetError if the metadata lacks what every model has.
    """
    fields = _Fields(headers[0].metadata, name)
    architecture = str(fields.architecture)
    blocks = fields.number("block_count")
    further = fields.number("nextn_predict_layers", 0)
    if not further <= blocks <= MOST_LAYERS:
        raise FleetError(f"{name}: {architecture}.block_count is {blocks}")
    hidden = fields.number("embedding_length")
    experts = fields.number("expert_count", 0)
    tokens = headers[0].metadata.get("tokenizer.ggml.tokens")
    vocab = tokens.count if isinstance(tokens, Many) else fields.number("vocab_size", 0)
    return Shape(
        architecture=architecture,
        layers=_layers(fields, architecture, blocks - further, hidden),
        hidden=hidden,
        vocab=vocab,
        heads=max(fields.each("attention.head_count", blocks, 0), default=0),
        wide=_wide(fields),
        weights=_weights(headers, blocks, further),
        parameters=sum(_product(t.dimensions) for h in headers for t in h.tensors),
        context=fields.number("context_length", 0),
        experts=experts,
        used=fields.number("expert_used_count", 0) if experts else 0,
        source="gguf",
    )


def _wide(fields: _Fields) -> int:
    """The widest inner activation of a token: a dense layer's, or of all experts that answer."""
    experts = fields.number("expert_feed_forward_length", 0) * fields.number("expert_used_count", 0)
    return max(fields.number("feed_forward_length", 0), experts)


def _layers(fields: _Fields, architecture: str, count: int, hidden: int) -> tuple[Layer, ...]:
    if architecture in WITHOUT:
        return (Layer("none"),) * count
    heads = fields.each("attention.head_count", count, 0)
    groups = fields.each("attention.head_count_kv", count, max(heads, default=0))
    size = hidden // max(max(heads, default=1), 1)
    key = fields.number("attention.key_length", size)
    value = fields.number("attention.value_length", size)
    latent = fields.number("attention.kv_lora_rank", 0)
    latent = latent if fields.get("attention.key_length_mla") is not None else 0
    windows = _windows(fields, architecture, count)
    own = count - fields.number("attention.shared_kv_layers", 0)
    state = _state(fields, architecture, hidden)
    states = _states(fields, architecture, groups)
    inner = fields.each("feed_forward_length", count, 0)
    layers = []
    for index in range(count):
        if architecture == "nemotron_h" and not groups[index]:
            # A layer without KV heads is a state, or with an inner width nothing but an MLP.
            layers.append(Layer("none") if inner[index] else Layer("linear", state=state))
        elif states[index]:
            layers.append(Layer("linear", state=state))
        elif not groups[index] or index >= own:
            layers.append(Layer("none"))
        elif latent:
            rope = fields.number("rope.dimension_count", max(key - latent, 0))
            layers.append(Layer("mla", 1, key, 0, latent=latent, rope=rope))
        elif windows[index]:
            layers.append(
                Layer(
                    "window",
                    groups[index],
                    fields.number("attention.key_length_swa", key),
                    fields.number("attention.value_length_swa", value),
                    window=windows[index],
                )
            )
        else:
            both = state if architecture in BOTH else None
            layers.append(Layer("full", groups[index], key, value, state=both))
    return tuple(layers)


def _windows(fields: _Fields, architecture: str, count: int) -> tuple[int, ...]:
    window = fields.number("attention.sliding_window", WINDOWS.get(architecture, 0))
    if not window or architecture in UNUSED_WINDOWS:
        return (0,) * count
    pattern = fields.get("attention.sliding_window_pattern")
    if isinstance(pattern, tuple):
        return tuple(
            window if one else 0 for one in fields.each("attention.sliding_window_pattern", count)
        )
    period = pattern if type(pattern) is int else PERIODS.get(architecture, 0)
    if not period:
        return (0,) * count
    if period < 0:
        return tuple(window if index % -period else 0 for index in range(count))
    return tuple(0 if index % period == period - 1 else window for index in range(count))


def _states(fields: _Fields, architecture: str, groups: Sequence[int]) -> tuple[bool, ...]:
    if architecture in STATES_ONLY:
        return (True,) * len(groups)
    if architecture in STATES_BY_HEADS:
        return tuple(not heads for heads in groups)
    if architecture in STATES_BY_PERIOD:
        period = fields.number("full_attention_interval", 4)
        return tuple((index + 1) % period != 0 for index in range(len(groups)))
    return (False,) * len(groups)


def _state(fields: _Fields, architecture: str, hidden: int) -> State | None:
    short = fields.number("shortconv.l_cache", 0)
    if short:
        return State(short, hidden)
    kernel = fields.number("ssm.conv_kernel", 0)
    if not kernel:
        return None
    if architecture == "kimi-linear":
        size, heads = fields.number("kda.head_dim", 128), fields.number("attention.head_count")
        return State(kernel, heads * size, heads, size)
    return State(
        kernel,
        fields.number("ssm.inner_size"),
        fields.number("ssm.group_count", 0),
        fields.number("ssm.state_size"),
    )


def _weights(headers: Sequence[Gguf], blocks: int, further: int) -> Weights:
    embedding = output = experts = idle = total = 0
    layers = [0] * (blocks - further)
    for tensor in (tensor for header in headers for tensor in header.tensors):
        total += tensor.bytes
        match = _LAYER.match(tensor.name)
        if match and int(match[1]) < len(layers):
            layers[int(match[1])] += tensor.bytes
            experts += tensor.bytes if "_exps." in tensor.name else 0
        elif match:
            idle += tensor.bytes
        elif tensor.name == "token_embd.weight":
            embedding = tensor.bytes
        elif tensor.name == "output.weight":
            output = tensor.bytes
    return Weights(total, embedding, output, experts, idle, tied=not output, layers=tuple(layers))


def _product(dimensions: Sequence[int]) -> int:
    result = 1
    for one in dimensions:
        result *= one
    return result
