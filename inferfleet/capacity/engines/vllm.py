"""What vLLM takes, after its own rules (v1/worker/gpu_worker.py, cpu_worker.py of 0.32.0)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from inferfleet.capacity.engines import rules
from inferfleet.capacity.engines.given import Given
from inferfleet.capacity.engines.online import Loaded, loaded
from inferfleet.capacity.engines.sure import moved, share_limit, sure_weights, too_large
from inferfleet.capacity.engines.vllm_run import VllmRun, batch, vllm_run, yields
from inferfleet.capacity.shape.shape import Shape
from inferfleet.capacity.term import Claim, How, Memory, Term
from inferfleet.capacity.words import size
from inferfleet.errors import FleetError

UNREAD = "its weights and cache are not known"
# They move weights to main memory, of layers that are chosen at the start; cpu-offload-gb is
# counted.
MOVED = (
    "offload-backend", "offload-group-size", "offload-num-in-group", "offload-params",
    "offload-prefetch-step",
)  # fmt: skip


def claim_vllm(service: str, given: Given, shape: Shape | None, memory: Memory) -> Claim:
    """The claim of one vLLM server, per GPU it uses, or of the host's memory without one."""
    run = vllm_run(given, memory)
    pool: Literal["device", "host"] = "host" if run.cpu else "device"
    if not run.total:
        return Claim(service, pool, None)
    if wrong := share_limit("gpu-memory-utilization", run.utilization):
        return Claim(service, pool, None, limits=wrong)
    offloaded = int(given.number("cpu-offload-gb") * rules.GIB)
    host = 0 if run.cpu else rules.GPU_FRONT + (rules.GPU_WORKER + offloaded) * run.workers
    host += int(given.number("kv-offloading-size") * rules.GIB)
    if shape is None:
        return _blind(service, run, host)
    model = loaded(shape, given, "vllm")
    shape, scale, unknown = model.shape, model.scale, model.unknown
    away = not run.cpu and moved(given, MOVED)
    terms, base = _base(run, model, 0 if run.cpu else offloaded, away)
    # Estimates of work space refuse nothing: only weights, and what they leave at the most.
    sure = 0 if unknown or away else sure_weights(shape, terms[0].amount)
    if not shape.keeps:
        return replace(_encoder(service, run, terms, base, host, sure), unknown=unknown)
    share = run.fixed or run.requested - base
    if run.fixed:
        amount, least = base + run.fixed, sure + run.fixed
        rule = "VLLM_CPU_KVCACHE_SPACE" if run.cpu else "kv-cache-memory-bytes"
        formula = f"{rule} = {size(run.fixed)}"
    else:
        amount = least = run.requested
        formula = f"{run.utilization:g} x {size(run.total)} - {size(base)}"
    exact: How = "exact" if run.fixed else "estimated"
    terms.append(Term("KV cache", max(share, 0), "bytes", formula, exact))
    if run.cpu:
        least *= run.workers
        amount, extra = _cpu(run, amount)
        terms.append(extra)
    limits: tuple[str, ...] = ()
    if not run.fixed and sure >= run.requested:
        rule = f"gpu-memory-utilization {run.utilization:g} of {size(run.total)}"
        limits = (too_large("weights", terms[0].amount, run.requested, rule),)
    try:
        most = run.fixed or max(run.requested - sure, 0)
        more, reasons = yields(run, shape, max(share, 0), most, scale)
        limits = limits or reasons
    except FleetError as error:
        more, unknown = (), unknown or error.what
    return Claim(
        service, pool, amount, host, (*terms, *_labelled(run, more)), limits,
        least=least, ask=run.ask, unknown=unknown,
    )  # fmt: skip


def _labelled(run: VllmRun, terms: Iterable[Term]) -> tuple[Term, ...]:
    """Replicas have a cache each, and answer requests of their own."""
    if run.replicas == 1:
        return tuple(terms)
    return tuple(
        term if term.unit == "bytes/token" else replace(term, name=f"{term.name}, each replica")
        for term in terms
    )


def _blind(service: str, run: VllmRun, host: int) -> Claim:
    """Without a shape: the share that was asked for, which vLLM takes whatever the model.

    A cache of a size of its own is there in any case, and weights beside it.
    """
    pool: Literal["device", "host"] = "host" if run.cpu else "device"
    if run.fixed:
        term = Term("KV cache", run.fixed, "bytes", "as it was asked for")
    else:
        how = f"{run.utilization:g} x {size(run.total)}"
        term = Term("gpu-memory-utilization", run.requested, "bytes", how, "declared")
    amount = int(term.amount)
    if not run.cpu:
        return Claim(service, pool, amount, host, (term,), ask=run.ask, unknown=UNREAD)
    least = amount * run.workers
    amount, extra = _cpu(run, amount)
    return Claim(service, pool, amount, 0, (term, extra), least=least, unknown=UNREAD)


def _encoder(
    service: str, run: VllmRun, terms: list[Term], base: int, host: int, least: int
) -> Claim:
    """Without a cache the rest of the share is left alone."""
    if not run.cpu:
        return Claim(service, "device", base, host, tuple(terms), least=least, ask=run.ask)
    amount, extra = _cpu(run, base)
    return Claim(service, "host", amount, 0, (*terms, extra), least=least * run.workers)


def _cpu(run: VllmRun, amount: int) -> tuple[int, Term]:
    """On CPU each rank has its own share of the one memory; two processes serve them."""
    extra = Term("API server and engine core", rules.CPU_FRONT, "bytes", "", "estimated")
    return amount * run.workers + rules.CPU_FRONT, extra


def _base(run: VllmRun, model: Loaded, offloaded: int, away: bool) -> tuple[list[Term], int]:
    """What one GPU, or the CPU's worker, has besides its cache.

    away: some of the weights are moved off the GPU, nobody knows which.
    """
    shape, scale, split = model.shape, model.scale, run.ranks * run.stages
    files, spread = shape.weights, run.spread if shape.weights.experts else 1
    total = files.total - files.experts + files.experts / spread
    weights = max(int(total * scale / split) - offloaded, 0)
    formula = f"{size(files.total)} in its files"
    formula += f", experts / {spread}" if spread > 1 else ""
    formula += f" x {scale:.2f}" if scale != 1 else ""
    formula += f" / {split}" if split > 1 else ""
    tokens, requests = batch(run)
    work = rules.activations(shape, tokens, requests, run.ranks)
    whole = split == spread == scale == 1 and not away
    how: How = files.how if whole else "estimated"
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
