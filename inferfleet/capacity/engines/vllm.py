"""What vLLM takes, after its own rules (v1/worker/gpu_worker.py, cpu_worker.py of 0.32.0)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import ceil

from inferfleet.capacity.engines import rules
from inferfleet.capacity.engines.blocks import CPU_BLOCK, CPU_KERNEL, Blocks, Cache, blocks
from inferfleet.capacity.engines.bound import CONTEXT, bounds, read_back
from inferfleet.capacity.engines.given import Given
from inferfleet.capacity.engines.kv import VLLM_TYPES, token_bytes, vllm_state, vllm_token
from inferfleet.capacity.shape.shape import Shape
from inferfleet.capacity.term import Claim, How, Memory, Term
from inferfleet.capacity.words import size
from inferfleet.errors import FleetError

SURE = 0.95  # of weights that are estimated: below this nothing is refused for them
# Quantizations that vLLM makes itself of a model in 16 bits, with bytes of a parameter.
ONLINE = {"fp8": 1.0, "fp8_per_tensor": 1.0, "fp8_per_block": 1.0, "int8": 1.0, "mxfp8": 1.03}


@dataclass(frozen=True)
class _Run:
    """How one service runs. total: of one GPU, or of the host on a CPU."""

    given: Given
    memory: Memory
    ranks: int
    stages: int

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
    def requested(self) -> int:
        return ceil(self.total * self.utilization)

    @property
    def fixed(self) -> int:
        """Bytes of cache that were asked for by size; 0 if the rest is taken."""
        space = self.given.count("VLLM_CPU_KVCACHE_SPACE", 0) if self.cpu else 0
        return int(space * rules.GIB) or self.given.above("kv-cache-memory-bytes", default=0)


def claim_vllm(service: str, given: Given, shape: Shape | None, memory: Memory) -> Claim:
    """The claim of one vLLM server, per GPU it uses, or of the host's memory without one."""
    ranks = given.above("tensor-parallel-size", default=1)
    run = _Run(given, memory, ranks, given.above("pipeline-parallel-size", default=1))
    if not run.total:
        return Claim(service, "host" if run.cpu else "device", None)
    host = 0 if run.cpu else rules.GPU_FRONT + rules.GPU_WORKER * min(ranks, memory.gpus or 1)
    offloaded = int(given.number("cpu-offload-gb") * rules.GIB)
    host += 0 if run.cpu else offloaded * min(ranks, memory.gpus or 1)
    host += int(given.number("kv-offloading-size") * rules.GIB)
    if shape is None:
        return _blind(service, run, host)
    shape, scale = _typed(shape, given)
    terms, base = _base(run, shape, scale, 0 if run.cpu else offloaded)
    if not shape.keeps:
        return _encoder(service, run, terms, base, host)
    share = run.fixed or run.requested - base
    if run.fixed:
        amount = base + run.fixed
        rule = "VLLM_CPU_KVCACHE_SPACE" if run.cpu else "kv-cache-memory-bytes"
        formula = f"{rule} = {size(run.fixed)}"
    else:
        amount = run.requested
        formula = f"{run.utilization:g} x {size(run.total)} - {size(base)}"
    exact: How = "exact" if run.fixed else "estimated"
    terms.append(Term("KV cache", max(share, 0), "bytes", formula, exact))
    if run.cpu:
        amount, extra = _cpu(run, amount)
        terms.append(extra)
    limits = []
    # Estimates of work space refuse nothing: only weights, and what they leave at the most.
    sure = int(terms[0].amount * (1 if terms[0].how == "exact" else SURE))
    if not run.fixed and sure >= run.requested:
        limits.append(
            f"weights take {size(terms[0].amount)} of the {size(run.requested)} that "
            f"gpu-memory-utilization {run.utilization:g} of {size(run.total)} allows"
        )
    try:
        most = run.fixed or max(run.requested - sure, 0)
        more, reasons = _yields(run, shape, max(share, 0), most, scale)
    except FleetError as error:
        more, reasons = (Term("KV tokens", 0, "tokens", error.what, "estimated"),), ()
    return Claim(
        service,
        "host" if run.cpu else "device",
        amount,
        host,
        (*terms, *more),
        tuple(limits) or reasons,
    )


def _blind(service: str, run: _Run, host: int) -> Claim:
    """Without a shape: the share that was asked for, which vLLM takes whatever the model."""
    if run.fixed:
        return Claim(service, "host" if run.cpu else "device", None, host)
    how = f"{run.utilization:g} x {size(run.total)}"
    term = Term("gpu-memory-utilization", run.requested, "bytes", how)
    if not run.cpu:
        return Claim(service, "device", run.requested, host, (term,))
    amount, extra = _cpu(run, run.requested)
    return Claim(service, "host", amount, 0, (term, extra))


def _encoder(service: str, run: _Run, terms: list[Term], base: int, host: int) -> Claim:
    """Without a cache the rest of the share is left alone."""
    if not run.cpu:
        return Claim(service, "device", base, host, tuple(terms))
    amount, extra = _cpu(run, base)
    return Claim(service, "host", amount, 0, (*terms, extra))


def _cpu(run: _Run, amount: int) -> tuple[int, Term]:
    """On CPU each rank has its own share of the one memory; two processes serve them."""
    extra = Term("API server and engine core", rules.CPU_FRONT, "bytes", "", "estimated")
    return amount * run.ranks * run.stages + rules.CPU_FRONT, extra


def _typed(shape: Shape, given: Given) -> tuple[Shape, float]:
    """The shape in the type that --dtype asks for, and bytes in memory per byte of the files."""
    own = VLLM_TYPES.get(given.text("dtype"), 0) or shape.dtype_bytes
    if shape.quantization or shape.source == "gguf":
        return replace(shape, dtype_bytes=own), 1.0
    scale = own / shape.stored_bytes
    if online := ONLINE.get(given.text("quantization", "q")):
        weights = shape.weights
        whole = (weights.embedding + weights.output) * scale
        linear = (weights.total - weights.embedding - weights.output) / shape.stored_bytes
        scale = (whole + linear * online) / weights.total if weights.total else scale
    return replace(shape, dtype_bytes=own), scale


def _base(run: _Run, shape: Shape, scale: float, offloaded: int) -> tuple[list[Term], int]:
    """What one GPU, or the CPU's worker, has besides its cache."""
    split = run.ranks * run.stages
    weights = max(int(shape.weights.total * scale / split) - offloaded, 0)
    formula = f"{size(shape.weights.total)} in its files"
    formula += f" x {scale:.2f}" if scale != 1 else ""
    formula += f" / {split}" if split > 1 else ""
    tokens, requests = _batch(run)
    work = rules.activations(shape, tokens, requests, run.ranks)
    how: How = shape.weights.how if split == 1 and scale == 1 else "estimated"
    terms = [
        Term("weights", weights, "bytes", formula, how),
        Term("activations", work, "bytes", f"{tokens:,} tokens, {requests} requests", "estimated"),
    ]
    if run.cpu:
        terms.append(Term("worker", rules.CPU_WORKER, "bytes", "", "estimated"))
    else:
        outside = rules.OUTSIDE + (rules.OUTSIDE_PARALLEL if run.ranks > 1 else 0)
        terms.append(Term("outside PyTorch", outside, "bytes", "", "estimated"))
        if _graphs(run.given):
            terms.append(Term("CUDA graphs", rules.GRAPHS, "bytes", "", "estimated"))
    return terms, int(sum(term.amount for term in terms))


def _graphs(given: Given) -> bool:
    estimated = given.variable("VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS") != "0"
    return estimated and not given.flag("enforce-eager")


def _batch(run: _Run) -> tuple[int, int]:
    tokens, requests = rules.batch_tokens(run.total, run.cpu, run.ranks * run.stages)
    requests = run.given.above("max-num-seqs", default=requests)
    asked = run.given.above("max-num-batched-tokens", default=0)
    length = run.given.above("max-model-len", default=0)
    if not asked and length:
        tokens = min(tokens, requests * length)
    return asked or tokens, min(requests, asked or tokens)


def _yields(
    run: _Run, shape: Shape, share: int, most_share: int, scale: float
) -> tuple[tuple[Term, ...], tuple[str, ...]]:
    """What fits into the cache, the bounds, and why a request of the longest context does not."""
    cache = vllm_cache(run)
    plan = blocks(shape, cache)
    layers = shape.layers
    if run.stages > 1:
        # A stage has its part of the layers; the smallest cache of all decides.
        plan = blocks(replace(shape, layers=layers[: -(-len(layers) // run.stages)]), cache)
    token = token_bytes(shape, cache.type, run.ranks) // run.stages
    length = run.given.above("max-model-len", default=shape.context)
    count = run.given.above("num-gpu-blocks-override", default=0) or plan.count(share)
    terms = [Term("KV per token", token, "bytes/token", _layers(shape), "exact")]
    how: How = "exact" if run.fixed else "estimated"
    if not plan.bytes or not length:
        return (*terms, *_bounds(run, shape, cache, 1, scale)), ()
    formula = f"{count:,} blocks of {size(plan.bytes)}, {plan.block} tokens each"
    terms.append(Term("KV tokens", plan.tokens(count, length), "tokens", formula, how))
    longest = plan.longest(count, max(length, shape.context))
    terms.append(Term("largest context", longest, "tokens", "", how))
    running = plan.concurrency(count, length)
    most = _batch(run)[1]
    formula = f"{running:.2f} with {length:,} tokens each fit; max-num-seqs {most}"
    terms.append(Term("concurrency", int(min(running, most)), "requests", formula, how))
    limits = []
    most_count = run.given.above("num-gpu-blocks-override", default=0) or plan.count(most_share)
    if plan.request(length) > most_count and run.given.text("max-model-len") != "auto":
        limits.append(
            f"a request of max-model-len {length:,} needs {size(plan.request(length) * plan.bytes)}"
            f" of KV cache and at most {size(most_share)} are left for it; "
            f"{plan.longest(most_count, length):,} tokens would fit"
        )
    short = min(CONTEXT, length)
    many = max(min(int(plan.concurrency(count, short)), most), 1)
    return (*terms, *_bounds(run, shape, cache, many, scale)), tuple(limits)


def vllm_cache(run: _Run) -> Cache:
    """The cache as the options ask for it.

    On a GPU the next step is scheduled while one runs, unless there are several stages; on a CPU
    it never is (VllmConfig.max_concurrent_batches, platforms/cpu.py).
    """
    given, cpu = run.given, run.cpu
    ahead = not cpu and run.stages == 1 and given.flag("async-scheduling", default=True)
    return Cache(
        type=given.text("kv-cache-dtype") or "auto",
        block=given.above("block-size", default=CPU_BLOCK if cpu else Cache.block),
        kernel=CPU_KERNEL if cpu else Cache.kernel,
        shards=run.ranks,
        running=(2 if ahead else run.stages) * _batch(run)[0],
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


def _bounds(run: _Run, shape: Shape, cache: Cache, many: int, scale: float) -> tuple[Term, ...]:
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
    ranks = given.above("tensor-parallel-size", default=1)
    run = _Run(given, memory, ranks, given.above("pipeline-parallel-size", default=1))
    typed, _ = _typed(shape, given)
    return blocks(typed, vllm_cache(run))
