"""What llama.cpp's server takes, alone or under Ollama, on a GPU, on the CPU or on both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from inferfleet.capacity.engines import rules
from inferfleet.capacity.engines.bound import CONTEXT, bounds, read_back
from inferfleet.capacity.engines.cells import BATCH, UBATCH, Slots, cells
from inferfleet.capacity.engines.given import Given
from inferfleet.capacity.engines.kv import llama_state, llama_token
from inferfleet.capacity.engines.layout import Layout, fits, llama_layout, ollama_layout
from inferfleet.capacity.engines.offload import Share, Split, divided, fitted, laid_out
from inferfleet.capacity.engines.sure import moved, sure_weights
from inferfleet.capacity.shape.gguf_types import CACHE_TYPES
from inferfleet.capacity.shape.shape import Shape
from inferfleet.capacity.term import Claim, How, Laid, Memory, Term
from inferfleet.capacity.words import size
from inferfleet.errors import FleetError

# Ollama serves these one request at a time, whatever OLLAMA_NUM_PARALLEL says (server/sched.go).
ALONE = (
    "mllama", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "qwen3next", "lfm2", "lfm2moe",
    "nemotron_h", "nemotron_h_moe", "nemotron_h_omni",
)  # fmt: skip
# Options that put tensors elsewhere than the layers' count says.
MOVED = (
    "override-tensor", "ot", "device", "dev", "rpc", "n-cpu-ffn", "ncffn", "moe-cache-mib",
)  # fmt: skip


def claim_llama(service: str, given: Given, shape: Shape | None, memory: Memory) -> Claim:
    """The claim of one llama-server: everything is reserved when it starts."""
    if shape is None:
        return _blind(service, memory)
    slots = llama_slots(shape, given)
    shrinks = given.value("ctx-size", "c") in (None, 0, "0") and fits(given)
    least = replace(slots, context=min(slots.context, rules.FIT_CONTEXT)) if shrinks else slots
    host = given.whole("cache-ram", "cram") * rules.MIB
    terms = (Term("prompt cache", host, "bytes", "--cache-ram", "declared"),) if host > 0 else ()
    layout = llama_layout(given, memory)
    return _claim(service, given, shape, memory, layout, slots, least, max(host, 0), terms)


def claim_ollama(service: str, given: Given, shape: Shape | None, memory: Memory) -> Claim:
    """The claim of an Ollama that has this one model loaded; others come beside it on request."""
    if shape is None:
        return _blind(service, memory)
    slots = ollama_slots(shape, given, memory)
    extra = Term("Ollama's own process", rules.OLLAMA_SERVER, "bytes", "", "estimated")
    # Without a context in the Modelfile Ollama goes down to 4096 rather than fail.
    told = given.above("num-ctx", default=0) or int(given.count("OLLAMA_CONTEXT_LENGTH", 0))
    least = slots if told else replace(slots, context=min(slots.context, 4096 * slots.slots))
    layout = ollama_layout(given, memory, _predicted(shape, slots))
    return _claim(
        service, given, shape, memory, layout, slots, least, rules.OLLAMA_SERVER, (extra,)
    )


def llama_slots(shape: Shape, given: Given) -> Slots:
    """llama-server's context, slots and cache types; without --parallel four share one store."""
    told = given.whole("parallel", "np")
    return Slots(
        context=given.above("ctx-size", "c", default=shape.context or rules.FIT_CONTEXT),
        slots=told if told > 0 else rules.SLOTS,
        unified=given.flag("kv-unified", "kvu", default=told <= 0),
        full=given.flag("swa-full"),
        batch=given.above("batch-size", "b", default=BATCH),
        ubatch=given.above("ubatch-size", "ub", default=UBATCH),
        keys=given.text("cache-type-k", "ctk") or "f16",
        values=given.text("cache-type-v", "ctv") or "f16",
    )


def ollama_slots(shape: Shape, given: Given, memory: Memory) -> Slots:
    """Ollama starts llama-server with num_ctx * OLLAMA_NUM_PARALLEL (llm/llama_server.go)."""
    parallel = max(int(given.count("OLLAMA_NUM_PARALLEL", 1)), 1)
    if shape.architecture in ALONE:
        parallel = 1
    context = int(given.count("OLLAMA_CONTEXT_LENGTH", 0))
    context = given.above("num-ctx", default=context)
    context = context or rules.ollama_context(sum(place.total for place in memory.places))
    if shape.context:
        context = min(context, shape.context)
    kind = given.variable("OLLAMA_KV_CACHE_TYPE")
    kind = kind if kind in CACHE_TYPES else "f16"
    batch = given.above("num-batch", default=rules.ollama_batch(context * parallel))
    return Slots(context * parallel, parallel, batch=batch, ubatch=batch, keys=kind, values=kind)


def _blind(service: str, memory: Memory) -> Claim:
    return Claim(service, "device" if memory.device else "host", None)


def _predicted(shape: Shape, slots: Slots) -> int:
    """What Ollama expects a model to take: PredictServerVRAM in llm/llama_server.go."""
    heads = min((layer.heads for layer in shape.layers), default=0) or 1
    size = shape.hidden // shape.heads if shape.heads else 0
    return shape.weights.total + 4 * len(shape.layers) * heads * size * slots.context


def _claim(
    service: str,
    given: Given,
    shape: Shape,
    memory: Memory,
    layout: Layout,
    slots: Slots,
    least: Slots,
    extra: int,
    extras: tuple[Term, ...],
) -> Claim:
    """least: what the engine goes down to by itself; extra: bytes of the host beside the rest."""
    try:
        kept = cells(shape, slots)
    except FleetError as error:
        limit = f"{error.what}; {error.hint}" if error.hint else error.what
        return replace(_blind(service, memory), limits=(limit,))
    slots = fitted(given, shape, slots, least, layout)
    kept = cells(shape, slots)
    split = divided(given, shape, slots, layout)
    work = rules.compute_buffer(shape, slots)
    elsewhere = moved(given, MOVED)
    how: How = "estimated" if elsewhere else shape.weights.how
    token = kept.token + kept.window_token
    formula = f"{slots.keys} keys, {slots.values} values"
    per_token = Term("KV per token", token, "bytes/token", formula, "exact")
    yields = (per_token, *_yields(shape, slots, memory, split))
    if not split.layers or not memory.device:
        weights = shape.weights.total - shape.weights.idle
        terms = (
            Term("weights", weights, "bytes", "", how),
            Term("KV cache", kept.total, "bytes", _cells(slots, shape), "exact"),
            Term("compute buffer", work, "bytes", "", "estimated"),
            Term("server", rules.SERVER, "bytes", "", "estimated"),
            *extras,
        )
        amount = int(sum(term.amount for term in terms))
        certain = 0 if elsewhere else _certain(shape, weights, kept.total) + extra
        return Claim(
            service, "host", amount, 0, (*terms, *yields), _limits(memory, certain, False),
            least=certain,
        )  # fmt: skip
    shares = laid_out(given, shape, split, layout, work)
    most = max(shares, key=lambda share: share.total)
    terms = (
        Term("weights", most.weights, "bytes", _layers(split, shape, shares), how),
        Term("KV cache", most.cache, "bytes", _cells(slots, shape), "exact"),
        Term("compute buffer", most.work - rules.CONTEXT_OUTSIDE, "bytes", "", "estimated"),
        Term("CUDA context", rules.CONTEXT_OUTSIDE, "bytes", "", "estimated"),
    )
    host = split.host_weights + split.host_cache + rules.SERVER + extra
    beside = (Term("of the host", host, "bytes", "input table, layers not on a GPU", "estimated"),)
    sure = tuple(0 if elsewhere else _certain_share(shape, share) for share in shares)
    laid = None
    if len(shares) > 1:
        dealt = any(share.layer for share in shares)
        guessed = layout.told and not dealt
        amounts = tuple(int(share.total) for share in shares)
        laid = Laid(amounts, sure, "all" if guessed else layout.where)
    return Claim(
        service, "device", int(most.total), host, (*terms, *beside, *yields),
        _limits(memory, max(sure), True) if laid is None else _apart(layout, laid),
        least=max(sure), laid=laid,
    )  # fmt: skip


def _certain(shape: Shape, weights: int, cache: int) -> int:
    """Buffers for the work are estimated, and so is the cache of a family that is not known."""
    return sure_weights(shape, weights) + (cache if shape.kv != "estimated" else 0)


def _certain_share(shape: Shape, share: Share) -> int:
    """Of layers that were dealt out one may have come to lie on the next GPU."""
    return max(_certain(shape, int(share.weights), int(share.cache)) - share.layer, 0)


def _limits(memory: Memory, amount: int, device: bool) -> tuple[str, ...]:
    total = memory.device if device else memory.host
    usable = total - (memory.reserve if memory.unified or not device else 0)
    if not total or amount <= usable:
        return ()
    kept = f" (less {size(memory.reserve)} of the host's own)" if usable < total else ""
    place = "a GPU" if device and not memory.unified else "the machine"
    return (f"weights and cache take {size(amount)} and {place} has {size(total)}{kept}",)


def _apart(layout: Layout, laid: Laid) -> tuple[str, ...]:
    """The same for several GPUs, by how free the engine is to use them."""
    if layout.limit:
        return (layout.limit,)
    count, least = len(layout.totals), sum(laid.least)
    taken = f"weights and cache take {size(least)}"
    if laid.where == "all":
        total = sum(layout.totals)
        return (f"{taken} and its {count} GPUs have {size(total)}",) if least > total else ()
    if laid.where == "one":
        most = max(layout.totals)
        return (f"{taken} and of its {count} GPUs the largest has {size(most)}",) * (least > most)
    return tuple(
        f"weights and cache take {size(part)} of one GPU, which has {size(total)}"
        for part, total in zip(laid.least, layout.totals, strict=True)
        if part > total
    )


def _layers(split: Split, shape: Shape, shares: Sequence[Share]) -> str:
    text = f"{min(split.layers, len(shape.layers))} of {len(shape.layers)} layers"
    used = [share for share in shares if share.weights or share.cache]
    if len(used) < 2:
        return text if len(shares) < 2 else f"{text}, on one of {len(shares)} GPUs"
    alike = len({share.total for share in used}) == 1
    return f"{text} / {len(used)} GPUs" if alike else f"{text}, the most on one of {len(used)} GPUs"


def _cells(slots: Slots, shape: Shape) -> str:
    stores = f"{slots.stores} x " if slots.stores > 1 else ""
    text = f"{stores}{slots.request:,} cells"
    if windows := shape.of("window"):
        text += f", {stores}{slots.window(windows[0].window):,} of windows"
    return text


def _yields(shape: Shape, slots: Slots, memory: Memory, split: Split) -> tuple[Term, ...]:
    terms = (
        Term("KV tokens", slots.request * slots.stores, "tokens", "", "exact"),
        Term("largest context", slots.request, "tokens", "of one request", "exact"),
        Term("concurrency", slots.slots, "requests", "slots", "exact"),
    )
    if memory.device and split.layers <= len(shape.layers) and not memory.unified:
        return terms  # part of each token is computed at the host's bandwidth, which is not known
    kept = 0.0
    for layer in shape.layers:
        kept += read_back(layer, llama_token(layer, slots.keys, slots.values), CONTEXT)
        kept += llama_state(layer.state) if layer.state else 0
    # Layers lie one after the other: several GPUs are no faster than one.
    return (*terms, *bounds(shape, memory.bandwidth, kept, slots.slots))
