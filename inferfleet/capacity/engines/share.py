"""Engines that take a share of the GPU by a rule of their own: SGLang, TGI; and Triton."""

from __future__ import annotations

from dataclasses import dataclass

from inferfleet.capacity.engines import rules
from inferfleet.capacity.engines.bound import CONTEXT, bounds, read_back
from inferfleet.capacity.engines.given import Given
from inferfleet.capacity.engines.kv import token_bytes, vllm_state, vllm_token
from inferfleet.capacity.engines.online import Engine, loaded
from inferfleet.capacity.engines.sure import moved, share_limit, sure_weights, too_large
from inferfleet.capacity.shape.shape import Shape
from inferfleet.capacity.term import Claim, Memory, Term
from inferfleet.capacity.words import size
from inferfleet.errors import FleetError

HOST = 4 * rules.GIB  # of the processes beside the GPU; estimated from vLLM's
# SGLang's options that move weights to main memory or to disk, of layers that it chooses.
MOVED = (
    "cpu-offload-gb", "offload-group-size", "offload-mode", "offload-num-in-group",
    "offload-prefetch-step", "ple-offload-backend", "ple-offload-dir", "ple-offload-embedding",
    "paged-experts-num-resident", "kt-method", "kt-num-gpu-experts", "kt-weight-path",
)  # fmt: skip


def claim_sglang(service: str, given: Given, shape: Shape | None, memory: Memory) -> Claim:
    """mem-fraction-static of what is free at its start for weights and KV cache; work beside it.

    _profile_available_bytes: pool = free with the weights loaded - free before * (1 - static).
    Activations and CUDA graphs come on top (hyperparameter_tuning in its documentation).
    """
    if not memory.device:
        return Claim(service, "host", None)
    ranks = given.above("tp-size", "tensor-parallel-size", "tp", default=1)
    split = ranks * given.above("pp-size", "pipeline-parallel-size", default=1)
    chunk, graphs = rules.sglang_sizes(memory.device, ranks)
    chunk = given.above("chunked-prefill-size", default=chunk)
    graphs = given.above("cuda-graph-max-bs", default=graphs)
    standard = rules.sglang_fraction(memory.device, ranks, chunk, graphs)
    fraction = given.number("mem-fraction-static", default=standard)
    if wrong := share_limit("mem-fraction-static", fraction):
        return Claim(service, "device", None, limits=wrong)
    free = _free(memory)
    static = int(fraction * free)
    work = min(int((1 - standard) * memory.device), free - static)
    beside = Term("activations and CUDA graphs", work, "bytes", "SGLang's own reserve", "estimated")
    share = _Share(static, int(fraction * memory.device), 1 / fraction, 0,
                   f"mem-fraction-static {fraction:g}", size(free))  # fmt: skip
    return _shared(service, shape, memory, given, split, share, (beside,), "sglang")


def claim_tgi(service: str, given: Given, shape: Shape | None, memory: Memory) -> Claim:
    """TGI takes what is free but for what cuda-memory-fraction leaves to others; 1 where not said.

    get_free_memory: free - (1 - fraction) * total; what weights and a warm-up batch leave of it
    becomes KV cache.
    """
    if not memory.device:
        return Claim(service, "host", None)
    ranks = max(given.whole("num-shard", default=int(given.count("NUM_SHARD", 1))), 1)
    standard = given.count("CUDA_MEMORY_FRACTION", 1.0)
    fraction = given.number("cuda-memory-fraction", default=standard)
    if wrong := share_limit("cuda-memory-fraction", fraction):
        return Claim(service, "device", None, limits=wrong)
    kept = int((1 - fraction) * memory.device)
    free = _free(memory)
    share = _Share(max(free - kept, 0), memory.device - kept, 1, kept,
                   f"cuda-memory-fraction {fraction:g}", size(free))  # fmt: skip
    return _shared(service, shape, memory, given, ranks, share, (), "tgi")


@dataclass(frozen=True)
class _Share:
    """What such an engine takes of what is free now, and what it would of an empty GPU.

    It needs weights * factor + kept to be free.
    """

    static: int
    most: int
    factor: float
    kept: int
    name: str
    free: str

    @property
    def rule(self) -> str:
        return f"{self.name} of {self.free} that are free"


def _free(memory: Memory) -> int:
    return memory.device if memory.free is None else min(memory.free, memory.device)


def claim_triton(service: str, given: Given, shape: Shape | None, memory: Memory) -> Claim:
    """Nobody can know what Triton's backends take: `memory:` in the machine file declares it."""
    return Claim(service, "device" if memory.device else "host", None)


def _shared(
    service: str,
    shape: Shape | None,
    memory: Memory,
    given: Given,
    split: int,
    share: _Share,
    beside: tuple[Term, ...],
    engine: Engine,
) -> Claim:
    """On unified memory what it takes is the host's, too, so that all of it has to be there."""
    static = share.static
    amount = static + int(sum(term.amount for term in beside))
    if shape is None:
        term = Term("weights and KV cache", static, "bytes", share.rule, "declared")
        least = static if memory.unified else 0
        return Claim(
            service, "device", amount, HOST, (term, *beside), least=least, fills=True,
            unknown="its weights are not known",
        )  # fmt: skip
    model = loaded(shape, given, engine)
    shape, away = model.shape, engine == "sglang" and moved(given, MOVED)
    weights = int(shape.weights.total * model.scale / split)
    left = max(static - weights, 0)
    whole = split == model.scale == 1 and not away and not model.unknown
    formula = f"{size(shape.weights.total)} in its files x {model.scale:.2f}"
    terms = (
        Term("weights", weights, "bytes", formula if model.scale != 1 else "",
             shape.weights.how if whole else "estimated"),
        Term("KV cache", left, "bytes", f"{share.rule} - weights", "estimated"),
        *beside,
    )  # fmt: skip
    sure = 0 if model.unknown or away else sure_weights(shape, weights)
    limits: tuple[str, ...] = ()
    if sure >= share.most:
        limits = (too_large("weights", weights, share.most, share.name),)
    least = static if memory.unified else int(sure * share.factor) + share.kept
    return Claim(
        service,
        "device",
        max(amount, weights),
        HOST,
        (*terms, *_yields(shape, memory, given, split, left, model.scale)),
        limits,
        least=least,
        fills=True,
        unknown=model.unknown,
    )


def _yields(
    shape: Shape, memory: Memory, given: Given, ranks: int, left: int, scale: float
) -> tuple[Term, ...]:
    """As vLLM's types, one token a page; states and windows share the pool by rules not known."""
    cache = given.text("kv-cache-dtype") or "auto"
    try:
        token = token_bytes(shape, cache, ranks)
    except FleetError:
        return ()
    terms = [Term("KV per token", token, "bytes/token", "", shape.kv)]
    kept = 0.0
    for layer in shape.layers:
        kept += read_back(layer, vllm_token(layer, cache, shape.dtype_bytes), CONTEXT)
        kept += vllm_state(layer.state, shape.dtype_bytes) if layer.state else 0
    many = 1
    if token and shape.of("full", "mla") and not shape.of("window", "linear"):
        length = given.above("context-length", "max-total-tokens", default=shape.context)
        tokens = left // token
        terms.append(Term("KV tokens", tokens, "tokens", f"{size(left)} / {token:,}", "estimated"))
        if length:
            terms.append(Term("largest context", min(tokens, length), "tokens", "", "estimated"))
            terms.append(
                Term(
                    "concurrency", tokens / length, "requests", f"of {length:,} tokens", "estimated"
                )
            )
        many = max(min(tokens // CONTEXT, given.above("max-running-requests", default=256)), 1)
    bandwidth = (memory.bandwidth or 0) * (1 if memory.unified else min(ranks, memory.gpus or 1))
    return (*terms, *bounds(shape, bandwidth, kept, many, scale=scale))
