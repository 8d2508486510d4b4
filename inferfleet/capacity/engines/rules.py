"""What engines take of a machine besides weights and KV cache, and their defaults.

Estimates are for planning: real figures depend on kernels and drivers. Each says where it comes
from; no GPU was at hand to measure them here.
"""

from __future__ import annotations

from inferfleet.capacity.engines.cells import Slots
from inferfleet.capacity.shape.shape import Shape

MIB = 1 << 20
GIB = 1 << 30

# vLLM ---------------------------------------------------------------------------------------
UTILIZATION = 0.92  # config/cache.py of 0.32.0; 0.9 before
# What a process has on a GPU outside PyTorch's allocator. Logs of vLLM say 0.20 GiB (24 GB GPUs,
# vllm pull 14447), 0.33 (RTX 5090, vllm issue 14452), 1.79 and with two ranks 3.58 GiB of an
# early version on an H100 (vllm pull 10511).
OUTSIDE = 512 * MIB
OUTSIDE_PARALLEL = 1 * GIB  # NCCL's buffers in addition
# "Estimated CUDA graph memory" in logs: 0.26 GiB (vllm pull 30515), 0.36 (gpustack/runner 251).
GRAPHS = 384 * MIB
# Resident memory of the CPU build seen with tiny models: API server 0.65 GiB, engine core 0.6,
# worker 0.7 without its cache.
CPU_FRONT = 1280 * MIB
CPU_WORKER = 704 * MIB
# API server, engine core and a worker per GPU beside a GPU; the same processes without a cache.
GPU_FRONT = 2 * GIB
GPU_WORKER = 2 * GIB


def batch_tokens(total: int, cpu: bool, ranks: int) -> tuple[int, int]:
    """vLLM's defaults of max-num-batched-tokens and max-num-seqs for its API server.

    EngineArgs.get_batch_defaults of 0.32.0: by the device's memory (70 GiB, 160 GiB); an A100 of
    80 GB counts as a small one there, which is not known here. On CPU both grow with the ranks.
    """
    if cpu:
        return 2048 * ranks, 128 * ranks
    if total >= 160 * GIB:
        return 16384, 1024
    if total >= 70 * GIB:
        return 8192, 1024
    return 2048, 256


def activations(shape: Shape, tokens: int, requests: int, shards: int = 1) -> int:
    """Peak of vLLM's profiling run, estimated.

    For each token of a batch both halves of the widest inner layer and four vectors of the
    hidden size; for each request its logits in 16 and 32 bits, sorted with their places (18 bytes
    a number). Llama-3-8B with 8192 tokens and 256 requests: 1.24 GiB; its log says 1.26 GiB
    (vllm pull 10511).
    """
    wide = 2 * shape.wide // shards + 4 * shape.hidden
    return tokens * wide * shape.dtype_bytes + requests * shape.vocab // shards * 18


# llama.cpp ----------------------------------------------------------------------------------
SLOTS = 4  # llama-server without --parallel: four slots in one store (its "auto")
FIT_MARGIN = 1 * GIB  # --fit-target: what is left free on each device
FIT_CONTEXT = 4096  # --fit-ctx: the shortest context that fitting goes down to
CONTEXT_OUTSIDE = 512 * MIB  # a CUDA context with its libraries
# Resident memory of a server without weights, cache and buffers, seen with tiny models.
SERVER = 96 * MIB


def compute_buffer(shape: Shape, slots: Slots) -> int:
    """llama.cpp's compute buffer, estimated.

    Per token of a step in f32: three vectors of all query heads (six of a state's inner width),
    both halves of the widest inner layer, four of the hidden size; and masks of 16 bits over the
    cells of one store, one for each kind of cache. Within 0.85 to 2 of what llama.cpp reserves
    for the models of tests/engines/test_llama_capacity.py.
    """
    sizes = [layer.latent + layer.rope or layer.key for layer in shape.layers]
    inner = max((layer.state.inner for layer in shape.layers if layer.state), default=0)
    queries = max(shape.heads * max(sizes, default=0), 2 * inner)
    vectors = 4 * (3 * queries + 2 * shape.wide + 4 * shape.hidden)
    masks = 2 * slots.request if shape.of("full", "mla") else 0
    if windows := shape.of("window"):
        masks += 2 * slots.window(windows[0].window)
    return slots.step * (vectors + masks) + 4 * shape.vocab * slots.slots


# Ollama -------------------------------------------------------------------------------------
OLLAMA_SERVER = 128 * MIB  # its own process beside the runner, which is llama.cpp's server


def ollama_context(device: int) -> int:
    """Ollama's context where nobody says one: by the memory of all GPUs (server/routes.go)."""
    if device >= 47 * GIB:
        return 262144
    if device >= 23 * GIB:
        return 32768
    return 4096


def ollama_batch(context: int) -> int:
    """Ollama's tokens per step for all slots' context together (server/sched.go)."""
    if context > 32768:
        return 2048
    return 1024 if context > 4096 else 512


# SGLang and TGI -----------------------------------------------------------------------------
def sglang_fraction(total: int, ranks: int, chunk: int, graphs: int) -> float:
    """SGLang's --mem-fraction-static where nobody says one: what is left after its reserve.

    ServerArgs in server_args.py: 512 MB + 1.5 MB for each token of a prefill chunk + 2 MB for
    each request of the largest CUDA graph + 128 MB for each rank; at least 10 GB of a GPU above
    60 GB.
    """
    memory = total / MIB
    reserved = 512 + max(chunk, 2048) * 1.5 + graphs * 2 + ranks / 8 * 1024
    if memory > 60 * 1024:
        reserved = max(reserved, 10 * 1024)
    return max(round((memory - reserved) / memory, 3), 0.0) if memory else 0.0


def sglang_sizes(total: int, ranks: int) -> tuple[int, int]:
    """SGLang's prefill chunk and largest CUDA graph by the GPU's memory (server_args.py)."""
    steps = ((20, 2048, 8, 8), (35, 2048, 24, 80), (60, 4096, 32, 160), (90, 8192, 256, 512))
    for gigabytes, chunk, small, large in steps:
        if total < gigabytes * GIB:
            return chunk, large if ranks >= 4 else small
    return (8192 if total < 160 * GIB else 16384), 512
