"""How one vLLM server was told to run, and what its cache holds (0.32.0)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import ceil

from inferfleet.capacity.engines import rules
from inferfleet.capacity.engines.blocks import CPU_BLOCK, CPU_KERNEL, Blocks, Cache, blocks
from inferfleet.capacity.engines.bound import CONTEXT, bounds, read_back
from inferfleet.capacity.engines.given import Given
from inferfleet.capacity.engines.kv import VLLM_TYPES, token_bytes, vllm_state, vllm_token
from inferfleet.capacity.engines.online import loaded
from inferfleet.capacity.shape.shape import Shape
from inferfleet.capacity.term import How, Memory, Term
from inferfleet.capacity.words import size

# With these max-model-len is what fits (human_readable_int_or_auto in engine/arg_utils.py).
FITTED = ("auto", "-1")


@dataclass(frozen=True)
class VllmRun:
    """How one service runs. total: of one GPU, or of the host on a CPU. replicas: whole models
    beside each other (data parallel), each of ranks * stages workers."""

    given: Given
    memory: Memory
    ranks: int
    stages: int
    replicas: int = 1

    @property
    def cpu(self) -> bool:
        return not self.memory.device

    @property
    def total(self) -> int:
        return self.memory.host if self.cpu else self.memory.device

    @property
    def utilization(self) -> float:
        return self.given.number(
            "gpu-memory-utilization", "device-memory-utilization", default=rules.UTILIZATION
        )

    @property
    def workers(self) -> int:
        """Processes on this machine that hold weights; no more than it has GPUs to give them."""
        count = self.ranks * self.stages * self.replicas
        return count if self.cpu else min(count, self.memory.gpus or 1)

    @property
    def spread(self) -> int:
        """Replicas, on all machines, that share one set of routed experts between them.

        Experts are split over data and tensor parallel ranks alike, whether or not
        enable-expert-parallel keeps each whole (FusedMoEParallelConfig.make).
        """
        return max(self.given.above("data-parallel-size", default=1), self.replicas)

    @property
    def ask(self) -> int:
        """What must be free on a GPU at the start, also where the cache has a size of its own.

        request_memory in v1/worker/utils.py; the CPU's worker does not look.
        """
        return 0 if self.cpu else self.requested

    @property
    def requested(self) -> int:
        return ceil(self.total * self.utilization)

    @property
    def fixed(self) -> int:
        """Bytes of cache that were asked for by size; 0 if the rest is taken."""
        space = self.given.count("VLLM_CPU_KVCACHE_SPACE", 0) if self.cpu else 0
        return int(space * rules.GIB) or self.given.above("kv-cache-memory-bytes", default=0)


def vllm_run(given: Given, memory: Memory) -> VllmRun:
    """The run that these options ask for. Raises FleetError for what is no number."""
    return VllmRun(
        given,
        memory,
        given.above("tensor-parallel-size", default=1),
        given.above("pipeline-parallel-size", default=1),
        given.above("data-parallel-size-local", "data-parallel-size", default=1),
    )


def batch(run: VllmRun) -> tuple[int, int]:
    """max-num-batched-tokens and max-num-seqs, as given or by vLLM's defaults."""
    tokens, requests = rules.batch_tokens(run.total, run.cpu, run.ranks * run.stages)
    requests = run.given.above("max-num-seqs", default=requests)
    asked = run.given.above("max-num-batched-tokens", default=0)
    length = run.given.above("max-model-len", default=0)
    if not asked and length:
        tokens = min(tokens, requests * length)
    return asked or tokens, min(requests, asked or tokens)


def yields(
    run: VllmRun, shape: Shape, share: int, most_share: int, scale: float
) -> tuple[tuple[Term, ...], tuple[str, ...]]:
    """What fits into the cache, the bounds, and why a request of the longest context does not."""
    cache = vllm_cache(run, shape)
    plan = blocks(shape, cache)
    layers = shape.layers
    if run.stages > 1:
        # A stage has its part of the layers; the smallest cache of all decides.
        plan = blocks(replace(shape, layers=layers[: -(-len(layers) // run.stages)]), cache)
    token = token_bytes(shape, cache.type, run.ranks) // run.stages
    length = run.given.above("max-model-len", default=shape.context)
    count = run.given.above("num-gpu-blocks-override", default=0) or plan.count(share)
    terms = [Term("KV per token", token, "bytes/token", _layers(shape), shape.kv)]
    how: How = "exact" if run.fixed and shape.kv == "exact" else "estimated"
    if not plan.bytes or not length:
        return (*terms, *_bounds(run, shape, cache, 1, scale)), ()
    formula = f"{count:,} blocks of {size(plan.bytes)}, {plan.block} tokens each"
    terms.append(Term("KV tokens", plan.tokens(count, length), "tokens", formula, how))
    longest = plan.longest(count, max(length, shape.context))
    terms.append(Term("largest context", longest, "tokens", "", how))
    running = plan.concurrency(count, length)
    most = batch(run)[1]
    formula = f"{running:.2f} with {length:,} tokens each fit; max-num-seqs {most}"
    terms.append(Term("concurrency", int(min(running, most)), "requests", formula, how))
    limits = []
    most_count = run.given.above("num-gpu-blocks-override", default=0) or plan.count(most_share)
    fitted = run.given.text("max-model-len").lower() in FITTED
    wanted = not fitted and shape.kv == "exact"
    if wanted and plan.request(length) > most_count:
        limits.append(
            f"a request of max-model-len {length:,} needs {size(plan.request(length) * plan.bytes)}"
            f" of KV cache and at most {size(most_share)} are left for it; "
            f"{plan.longest(most_count, length):,} tokens would fit"
        )
    short = min(CONTEXT, length)
    many = max(min(int(plan.concurrency(count, short)), most), 1)
    return (*terms, *_bounds(run, shape, cache, many, scale)), tuple(limits)


def vllm_cache(run: VllmRun, shape: Shape) -> Cache:
    """The cache as the options ask for it, and the model's quantization where they say nothing.

    On a GPU the next step is scheduled while one runs, unless there are several stages; on a CPU
    it never is (VllmConfig.max_concurrent_batches, platforms/cpu.py).
    """
    given, cpu = run.given, run.cpu
    kind = given.text("kv-cache-dtype") or "auto"
    ahead = not cpu and run.stages == 1 and given.flag("async-scheduling", default=True)
    return Cache(
        type=shape.cache_type or kind if kind == "auto" else kind,
        block=given.above("block-size", default=CPU_BLOCK if cpu else Cache.block),
        kernel=CPU_KERNEL if cpu else Cache.kernel,
        shards=run.ranks,
        running=(2 if ahead else run.stages) * batch(run)[0],
        align=given.flag("enable-prefix-caching", default=True),
        convolution=VLLM_TYPES.get(given.text("mamba-cache-dtype"), 0),
        matrix=VLLM_TYPES.get(given.text("mamba-ssm-cache-dtype"), 0),
    )


def _layers(shape: Shape) -> str:
    kinds: Iterable[tuple[str, str]] = (
        ("full", "full attention"),
        ("window", "sliding window"),
        ("mla", "latent"),
        ("linear", "state"),
    )
    named = [f"{len(of)} {label}" for kind, label in kinds if (of := shape.of(kind))]  # type: ignore[arg-type]
    return f"layers: {', '.join(named)}"


def _bounds(run: VllmRun, shape: Shape, cache: Cache, many: int, scale: float) -> tuple[Term, ...]:
    own, kept = shape.dtype_bytes, 0.0
    for layer in shape.layers:
        kept += read_back(layer, vllm_token(layer, cache.type, own), CONTEXT)
        kept += vllm_state(layer.state, own) if layer.state else 0
    # Stages work one after the other, ranks at once.
    used = 1 if run.cpu or run.memory.unified else min(run.ranks, run.memory.gpus or 1)
    bandwidth = (run.memory.bandwidth or 0) * used
    return bounds(shape, bandwidth, kept, many, scale=scale)


def vllm_blocks(shape: Shape, given: Given, cpu: bool = False) -> Blocks:
    """How vLLM divides this model's cache with these options; what the real engine is held to."""
    memory = Memory(host=rules.GIB, device=0 if cpu else rules.GIB, gpus=0 if cpu else 1)
    run = vllm_run(given, memory)
    made = loaded(shape, given, "vllm").shape
    return blocks(made, vllm_cache(run, made))
