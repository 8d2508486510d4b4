"""The shape of a model: what its layers keep per token, and how many bytes its weights are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from inferfleet.capacity.term import How

GUESSED = (
    "how its weights are quantized is not known here: they are counted as if they were not, "
    "and refuse nothing"
)

Attention = Literal["full", "window", "mla", "linear", "none"]


@dataclass(frozen=True)
class State:
    """What a layer without attention keeps per request, whatever the request's length.

    Mamba, Mamba-2, gated delta net (Qwen3-Next), Kimi's delta attention and short convolutions
    (LFM2) all keep (kernel - 1) rows of a convolution over inner + 2 * groups * size channels,
    and a matrix of inner * size numbers. For a delta net inner is value heads * value size,
    groups the key heads and size the key size.

    matrix_bytes: bytes of one number of the matrix in vLLM; 0: as the model itself. kept: states
    that vLLM keeps of a request while prefix caching is on; Mamba-2 keeps one more, the last of
    the prompt (MambaMixer2.get_kv_cache_spec).
    """

    kernel: int
    inner: int
    groups: int = 0
    size: int = 0
    matrix_bytes: int = 0
    kept: int = 2

    def convolution(self, shards: int = 1) -> int:
        """Numbers of the convolution's rows on one of `shards` ranks.

        Groups that do not divide by the ranks are repeated until they do (vLLM's
        MambaStateShapeCalculator.extra_groups_for_head_shards).
        """
        groups = self.groups
        if groups and groups % shards:
            groups += shards - groups
        return max(self.kernel - 1, 0) * (self.inner + 2 * groups * self.size) // shards

    def matrix(self, shards: int = 1) -> int:
        """Numbers of the state matrix on one of `shards` ranks."""
        return self.inner * self.size // shards


@dataclass(frozen=True)
class Layer:
    """One layer's attention.

    full and window: `heads` KV heads with keys of `key` and values of `value` numbers; a window
    layer looks back `window` tokens, or to the start of its chunk of so many (Llama 4). mla: one
    latent of `latent` numbers (kv_lora_rank) and `rope` position numbers (qk_rope_head_dim) for
    all heads, and `index` bytes of an indexer's keys where attention is sparse (DeepSeek V3.2).
    linear: `state`. none: keeps nothing of its own (it shares another layer's cache).
    """

    attention: Attention
    heads: int = 0
    key: int = 0
    value: int = 0
    window: int = 0
    chunked: bool = False
    latent: int = 0
    rope: int = 0
    index: int = 0
    state: State | None = None


@dataclass(frozen=True)
class Weights:
    """Bytes of a model's weights, by what of them is read for one token of text.

    embedding: the table of input tokens, of which one row is read; also the output matrix if
    `tied`. output: the output matrix. experts: all routed experts together. idle: in the files
    but not read for text (vision towers; in a GGUF layers that predict further tokens). layers:
    bytes of each layer, experts included, where known. total includes all of these. guessed:
    an estimate of which nothing is certain, since the way they are quantized is not known.
    """

    total: int
    embedding: int = 0
    output: int = 0
    experts: int = 0
    idle: int = 0
    tied: bool = False
    layers: tuple[int, ...] = ()
    how: How = "exact"
    guessed: bool = False

    def read_per_token(self, used: int, experts: int) -> int:
        """Bytes read for one token of one request when `used` of `experts` experts answer."""
        read = self.total - self.idle - self.experts
        if not self.tied:
            read -= self.embedding
        if experts:
            read += self.experts * used // experts
        return read

    def read_per_batch(self, used: int, experts: int, tokens: int) -> int:
        """Bytes read for `tokens` requests' next tokens in one step.

        Each token chooses its experts independently: an expert is read if at least one of them
        wants it, so the expected share is 1 - (1 - used/experts) ** tokens.
        """
        read = self.read_per_token(0, experts)
        if experts:
            read += int(self.experts * (1 - (1 - used / experts) ** max(tokens, 1)))
        return read


@dataclass(frozen=True)
class Shape:
    """What capacity needs to know of a model.

    heads: query heads. context: the longest context it was made for, 0 unknown. dtype_bytes:
    bytes of one number in the type that it computes in, which is what vLLM's cache takes with
    `auto`; stored_bytes: the same in its files (vLLM computes a float32 model in 16 bits).
    quantization: how the weights are quantized, "" if they are not. experts and used: routed
    experts and how many of them answer a token, 0 in a dense model. wide: a layer's largest
    inner width, for estimates of activations. source: where it was read from. notes: what a
    reader of the figures should know of how they were reached.

    kv: `exact` where what the layers keep follows from rules known here, `estimated` where the
    family is not known: no limit may be drawn from it then. cache_type: vLLM's cache type that the
    quantization asks for, which `auto` takes; "" for none.
    """

    architecture: str
    layers: tuple[Layer, ...]
    hidden: int
    vocab: int
    heads: int
    wide: int
    weights: Weights
    parameters: int = 0
    context: int = 0
    dtype_bytes: int = 2
    stored_bytes: int = 2
    quantization: str = ""
    experts: int = 0
    used: int = 0
    source: Literal["config", "safetensors", "gguf", "declared"] = "config"
    notes: tuple[str, ...] = field(default=())
    kv: How = "exact"
    cache_type: str = ""

    @property
    def keeps(self) -> bool:
        """Whether it has a cache at all; encoders have none."""
        return any(layer.attention != "none" or layer.state for layer in self.layers)

    def of(self, *kinds: Attention) -> tuple[Layer, ...]:
        """The layers whose attention is one of these kinds."""
        return tuple(layer for layer in self.layers if layer.attention in kinds)
