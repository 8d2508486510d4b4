"""vLLM's KV cache: layers grouped, pages made equal, memory divided into blocks.

After get_kv_cache_groups, get_kv_cache_config_from_groups and get_kv_cache_capacity in
vllm/v1/core/kv_cache_utils.py (0.32.0; the same division in 0.33.0's kv_cache_planning.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from inferfleet.capacity.engines.kv import vllm_state, vllm_token
from inferfleet.capacity.shape.shape import Shape

BLOCK = 16  # tokens; what CUDA attention kernels start from
CPU_BLOCK = 128  # platforms/cpu.py
CPU_KERNEL = 32  # CPUAttentionBackend: blocks are multiples of this
MLA_BLOCKS = 128  # hybrids of MLA and states: kernels want this alignment


@dataclass(frozen=True)
class Cache:
    """How vLLM was told to keep its cache.

    block: --block-size. kernel: the smallest block that the attention kernel takes. shards:
    tensor parallel ranks. running: tokens that may be computed and not yet settled: concurrent
    batches (2 with asynchronous scheduling) * max-num-batched-tokens. align: prefix caching is
    on, so a model with states keeps further ones per request (mamba_cache_mode "align").
    convolution and matrix: bytes of --mamba-cache-dtype and --mamba-ssm-cache-dtype, 0 for auto.
    """

    type: str = "auto"
    block: int = BLOCK
    kernel: int = BLOCK
    shards: int = 1
    running: int = 4096
    align: bool = True
    convolution: int = 0
    matrix: int = 0


@dataclass(frozen=True)
class _Page:
    """What one layer needs of a block. kind: layers of different kinds share no group."""

    kind: tuple[object, ...]
    block: int
    bytes: int
    window: int = 0
    chunked: bool = False
    states: int = 0


@dataclass(frozen=True)
class Group:
    """Layers that share a block table: how many, and how a request takes blocks for them.

    states: blocks of a request while prefixes are kept, 0 for attention.
    """

    layers: int
    block: int
    window: int = 0
    chunked: bool = False
    states: int = 0

    def blocks(self, length: int, cache: Cache) -> int:
        """Blocks of one request of `length` tokens.

        Full: ceil(length / block). Window: min(window - 1 + tokens running, length) and one more,
        because a window begins within a block. Chunks: min(chunk + tokens running, length)
        (ChunkedLocalAttentionSpec). State: one, or `states` when prefixes are kept
        (MambaSpec.max_memory_usage_bytes).
        """
        if self.states:
            return self.states if cache.align else 1
        if self.chunked:
            return -(-min(self.window + cache.running, length) // self.block)
        if self.window:
            kept = min(self.window - 1 + cache.running, length)
            return -(-kept // self.block) + 1
        return -(-length // self.block)


@dataclass(frozen=True)
class Blocks:
    """The groups of a model and the bytes that one block takes on one GPU."""

    groups: tuple[Group, ...]
    bytes: int
    block: int
    cache: Cache

    def count(self, memory: int) -> int:
        """Blocks in `memory` bytes."""
        return max(memory, 0) // self.bytes if self.bytes else 0

    def request(self, length: int) -> int:
        """Blocks of one request of `length` tokens, over all groups."""
        return sum(group.blocks(length, self.cache) for group in self.groups)

    def concurrency(self, count: int, length: int) -> float:
        """Requests of `length` tokens that fit into `count` blocks."""
        needed = self.request(length)
        return count / needed if needed else 0.0

    def tokens(self, count: int, length: int) -> int:
        """What vLLM logs as the cache's size: int(concurrency * max-model-len)."""
        return int(self.concurrency(count, length) * length)

    def longest(self, count: int, most: int) -> int:
        """The longest request up to `most` tokens that `count` blocks hold; 0 if none."""
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            if self.request(middle) <= count:
                low = middle
            else:
                high = middle - 1
        return low


def blocks(shape: Shape, cache: Cache) -> Blocks:
    """How vLLM divides a model's cache.

    Raises FleetError for a cache type whose layout is not known here.
    """
    block, padded = _aligned(shape, cache)
    pages = _pages(shape, replace(cache, block=block), padded)
    if not pages:
        return Blocks((), 0, block, cache)
    if len({(page.kind[0], page.window, page.block) for page in pages}) == 1:
        # All look back equally far: one group, whatever the sizes of their heads.
        first = pages[0]
        group = Group(len(pages), block, first.window, first.chunked, first.states)
        return Blocks((group,), sum(page.bytes for page in pages), block, cache)
    widest = max(page.bytes for page in pages)
    return _grouped([_unified(page, widest) for page in pages], widest, block, cache)


def _aligned(shape: Shape, cache: Cache) -> tuple[int, int]:
    """The block that makes an attention page at least as large as a state, and that page.

    Platform._align_hybrid_block_size: kernel blocks enough for the state; states are padded to
    the attention page. (block, 0) for models without states.
    """
    state = max(
        (_state_bytes(shape, cache, index) for index, one in enumerate(shape.layers) if one.state),
        default=0,
    )
    attention = [one for one in shape.layers if one.attention in ("full", "mla", "window")]
    if not state or not attention:
        return cache.block, 0
    token = vllm_token(attention[0], cache.type, shape.dtype_bytes, cache.shards)
    kernel = max(cache.kernel, cache.block)
    if attention[0].attention == "mla":
        kernel = max(kernel, MLA_BLOCKS)
    least = kernel * -(-state // (kernel * token))
    least = cache.kernel * -(-least // cache.kernel)
    block = max(cache.block, least)
    return block, block * token


def _state_bytes(shape: Shape, cache: Cache, index: int) -> int:
    state = shape.layers[index].state
    assert state is not None
    if cache.matrix:
        state = replace(state, matrix_bytes=cache.matrix)
    return vllm_state(state, shape.dtype_bytes, cache.shards, cache.convolution)


def _pages(shape: Shape, cache: Cache, padded: int) -> list[_Page]:
    pages = []
    for index, layer in enumerate(shape.layers):
        if layer.attention in ("full", "mla", "window"):
            token = vllm_token(layer, cache.type, shape.dtype_bytes, cache.shards)
            kind = "window" if layer.attention == "window" else "full"
            size = (layer.heads, layer.key, layer.value, layer.latent)
            page = _Page((kind, layer.window, size), cache.block, token * cache.block)
            pages.append(replace(page, window=layer.window, chunked=layer.chunked))
        if layer.state:
            state = _state_bytes(shape, cache, index)
            pages.append(
                _Page(("state",), cache.block, max(padded, state), states=layer.state.kept)
            )
    return pages


def _unified(page: _Page, widest: int) -> _Page:
    """unify_kv_cache_spec_page_size: smaller pages hold more tokens, or are padded."""
    if page.bytes == widest:
        return page
    if not page.states and widest % page.bytes == 0:
        return replace(page, block=page.block * (widest // page.bytes), bytes=widest)
    return replace(page, bytes=widest)


def _grouped(pages: Sequence[_Page], widest: int, block: int, cache: Cache) -> Blocks:
    """_get_kv_cache_groups_uniform_page_size: groups of as many layers as the rarest kind has.

    If no kind has 1.5 times as many layers as the rarest, groups are as large as the largest.
    """
    buckets: dict[tuple[object, ...], list[_Page]] = {}
    for page in pages:
        buckets.setdefault((page.kind, page.block), []).append(page)
    counts = [len(bucket) for bucket in buckets.values()]
    size = max(counts) if max(counts) < min(counts) * 1.5 else min(counts)
    groups = []
    for bucket in buckets.values():
        number = -(-len(bucket) // size)
        for place in range(number):
            first = bucket[0]
            layers = len(bucket[place::number])
            group = Group(layers, first.block, first.window, first.chunked, first.states)
            groups.append(group)
    return Blocks(tuple(groups), widest * max(group.layers for group in groups), block, cache)
