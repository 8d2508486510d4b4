"""Engines that take a share of the GPU by a rule of their own: SGLang, TGI; and Triton."""

from __future__ import annotations

from inferfleet.capacity.engines import rules
from inferfleet.capacity.engines.bound import CONTEXT, bounds, read_back
from inferfleet.capacity.engines.given import Given
from inferfleet.capacity.engines.kv import token_bytes, vllm_state, vllm_token
from inferfleet.capacity.shape.shape import Shape
from inferfleet.capacity.term import Claim, Memory, Term
from inferfleet.capacity.words import size
from inferfleet.errors import FleetError

HOST = 4 * rules.GIB  # of the processes beside the GPU; estimated from vLLM's


def claim_sglang(service: str, given: Given, shape: Shape | None, memory: Memory) -> Claim:
    """mem-fraction-static of the GPU for weights and KV cache; the rest works beside it.

    SGLang's documentation (hyperparameter_tuning): static = (weights + KV pool) / capacity,
    activations and CUDA graphs come on top.
    """
    if not memory.device:
        return Claim(service, "host", None)
    ranks = given.above("tp-size", "tensor-parallel-size", "tp", default=1)
    chunk, graphs = rules.sglang_sizes(memory.device, ranks)
    chunk = given.above("chunked-prefill-size", default=chunk)
    graphs = given.above("cuda-graph-max-bs", default=graphs)
    standard = rules.sglang_fraction(memory.device, ranks, chunk, graphs)
    fraction = given.number("mem-fraction-static", default=standard)
    static = int(fraction * memory.device)
    work = min(int((1 - standard) * memory.device), memory.device - static)
    beside = Term("activations and CUDA graphs", work, "bytes", "SGLang's own reserve", "estimated")
    rule = f"mem-fraction-static {fraction:g} x {size(memory.device)}"
    return _shared(service, shape, memory, given, ranks, static, rule, (beside,))


def claim_tgi(service: str, given: Given, shape: Shape | None, memory: Memory) -> Claim:
    """TGI takes cuda-memory-fraction of the GPU, all of it if nobody says a fraction.

    Its launcher's help: the fraction limits the memory that CUDA may allocate; what weights and a
    warm-up batch leave becomes KV cache.
    """
    if not memory.device:
        return Claim(service, "host", None)
    ranks = max(given.whole("num-shard", default=int(given.count("NUM_SHARD", 1))), 1)
    standard = given.count("CUDA_MEMORY_FRACTION", 1.0)
    fraction = given.number("cuda-memory-fraction", default=standard)
    static = int(fraction * memory.device)
    rule = f"cuda-memory-fraction {fraction:g} x {size(memory.device)}"
    return _shared(service, shape, memory, given, ranks, static, rule, ())


def claim_triton(service: str, given: Given, shape: Shape | None, memory: Memory) -> Claim:
    """Nobody can know what Triton's backends take: `memory:` in the machine file declares it."""
    return Claim(service, "device" if memory.device else "host", None)


def _shared(
    service: str,
    shape: Shape | None,
    memory: Memory,
    given: Given,
    ranks: int,
    static: int,
    rule: str,
    beside: tuple[Term, ...],
) -> Claim:
    amount = static + int(sum(term.amount for term in beside))
    if shape is None:
        term = Term("weights and KV cache", static, "bytes", rule)
        return Claim(service, "device", amount, HOST, (term, *beside))
    weights = shape.weights.total // ranks
    left = max(static - weights, 0)
    terms = (
        Term("weights", weights, "bytes", "", shape.weights.how if ranks == 1 else "estimated"),
        Term("KV cache", left, "bytes", f"{rule} - weights", "estimated"),
        *beside,
    )
    limits: tuple[str, ...] = ()
    if shape.weights.how == "exact" and weights >= static:
        limits = (f"weights take {size(weights)} of the {size(static)} that {rule} allows",)
    return Claim(
        service,
        "device",
        amount,
        HOST,
        (*terms, *_yields(shape, memory, given, ranks, left)),
        limits,
    )


def _yields(shape: Shape, memory: Memory, given: Given, ranks: int, left: int) -> tuple[Term, ...]:
    """As vLLM's types, one token a page; states and windows share the pool by rules not known."""
    cache = given.text("kv-cache-dtype") or "auto"
    try:
        token = token_bytes(shape, cache, ranks)
    except FleetError:
        return ()
    terms = [Term("KV per token", token, "bytes/token", "", "exact")]
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
    return (*terms, *bounds(shape, bandwidth, kept, many))
