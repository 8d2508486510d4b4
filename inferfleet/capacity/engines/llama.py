"""What llama.cpp's server takes, alone or under Ollama, on a GPU, on the CPU or on both."""

from __future__ import annotations

from dataclasses import dataclass, replace

from inferfleet.capacity.engines import rules
from inferfleet.capacity.engines.bound import CONTEXT, bounds, read_back
from inferfleet.capacity.engines.cells import BATCH, UBATCH, Slots, cells, layer_bytes
from inferfleet.capacity.engines.given import Given
from inferfleet.capacity.engines.kv import llama_state, llama_token
from inferfleet.capacity.engines.sure import moved, sure_weights
from inferfleet.capacity.shape.gguf_types import CACHE_TYPES
from inferfleet.capacity.shape.shape import Shape
from inferfleet.capacity.term import Claim, How, Memory, Term
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


@dataclass(frozen=True)
class _Split:
    """Bytes on all GPUs together and on the host, and how many layers lie on GPUs."""

    device_weights: int
    host_weights: int
    device_cache: int
    host_cache: int
    layers: int


def claim_llama(service: str, given: Given, shape: Shape | None, memory: Memory) -> Claim:
    """The claim of one llama-server: everything is reserved when it starts."""
    if shape is None:
        return _blind(service, memory)
    slots = llama_slots(shape, given)
    fitted = given.value("ctx-size", "c") in (None, 0, "0") and given.text("fit") != "off"
    least = replace(slots, context=min(slots.context, rules.FIT_CONTEXT)) if fitted else slots
    host = given.whole("cache-ram", "cram") * rules.MIB
    terms = (Term("prompt cache", host, "bytes", "--cache-ram", "declared"),) if host > 0 else ()
    return _claim(service, given, shape, memory, slots, least, max(host, 0), terms)


def claim_ollama(service: str, given: Given, shape: Shape | None, memory: Memory) -> Claim:
    """The claim of an Ollama that has this one model loaded; others come beside it on request."""
    if shape is None:
        return _blind(service, memory)
    slots = ollama_slots(shape, given, memory)
    extra = Term("Ollama's own process", rules.OLLAMA_SERVER, "bytes", "", "estimated")
    # Without a context in the Modelfile Ollama goes down to 4096 rather than fail.
    told = given.above("num-ctx", default=0) or int(given.count("OLLAMA_CONTEXT_LENGTH", 0))
    least = slots if told else replace(slots, context=min(slots.context, 4096 * slots.slots))
    return _claim(service, given, shape, memory, slots, least, rules.OLLAMA_SERVER, (extra,))


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
    context = context or rules.ollama_context(memory.device * memory.gpus)
    if shape.context:
        context = min(context, shape.context)
    kind = given.variable("OLLAMA_KV_CACHE_TYPE")
    kind = kind if kind in CACHE_TYPES else "f16"
    batch = given.above("num-batch", default=rules.ollama_batch(context * parallel))
    return Slots(context * parallel, parallel, batch=batch, ubatch=batch, keys=kind, values=kind)


def _blind(service: str, memory: Memory) -> Claim:
    return Claim(service, "device" if memory.device else "host", None)


def _claim(
    service: str,
    given: Given,
    shape: Shape,
    memory: Memory,
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
        pool = "device" if memory.device else "host"
        return Claim(service, "device" if pool == "device" else "host", None, limits=(limit,))
    room = _room(memory)
    if room and _total(given, shape, memory, slots, room) > room and least != slots:
        slots = _shrunk(given, shape, memory, slots, least, room)
        kept = cells(shape, slots)
    split = _split(given, shape, memory, slots, room)
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
    each = max(memory.gpus, 1)
    terms = (
        Term("weights", split.device_weights / each, "bytes", _layers(split, shape, each), how),
        Term("KV cache", split.device_cache / each, "bytes", _cells(slots, shape), "exact"),
        Term("compute buffer", work, "bytes", "", "estimated"),
        Term("CUDA context", rules.CONTEXT_OUTSIDE, "bytes", "", "estimated"),
    )
    amount = int(sum(term.amount for term in terms))
    host = split.host_weights + split.host_cache + rules.SERVER + extra
    beside = (Term("of the host", host, "bytes", "input table, layers not on a GPU", "estimated"),)
    certain = _certain(shape, split.device_weights // each, split.device_cache // each)
    certain = 0 if elsewhere else certain
    return Claim(
        service, "device", amount, host, (*terms, *beside, *yields),
        _limits(memory, certain, True), least=certain,
    )  # fmt: skip


def _certain(shape: Shape, weights: int, cache: int) -> int:
    """Buffers for the work are estimated, and so is the cache of a family that is not known."""
    return sure_weights(shape, weights) + (cache if shape.kv != "estimated" else 0)


def _limits(memory: Memory, amount: int, device: bool) -> tuple[str, ...]:
    total = memory.device if device else memory.host
    usable = total - (memory.reserve if memory.unified or not device else 0)
    if not total or amount <= usable:
        return ()
    kept = f" (less {size(memory.reserve)} of the host's own)" if usable < total else ""
    place = "a GPU" if device and not memory.unified else "the machine"
    return (f"weights and cache take {size(amount)} and {place} has {size(total)}{kept}",)


def _room(memory: Memory) -> int:
    """Bytes on all GPUs that fitting may fill; 0 without a GPU."""
    if not memory.device:
        return 0
    free = memory.device if memory.free is None else min(memory.free, memory.device)
    usable = free - (memory.reserve if memory.unified else 0)
    return max(usable - rules.FIT_MARGIN, 1) * max(memory.gpus, 1)


def _asked(given: Given, shape: Shape) -> int | None:
    """Layers that are to lie on GPUs, the output counted as one; None: as many as fit."""
    if given.text("device", "dev") == "none":
        return 0
    told = given.value("n-gpu-layers", "gpu-layers", "ngl", "num-gpu")
    if told is None or str(told) in ("auto", "-1"):
        return None
    if str(told) == "all":
        return len(shape.layers) + 1
    count = given.whole("n-gpu-layers", "gpu-layers", "ngl", "num-gpu", default=-2)
    return len(shape.layers) + 1 if count < 0 else min(count, len(shape.layers) + 1)


def _total(given: Given, shape: Shape, memory: Memory, slots: Slots, room: int) -> int:
    """Bytes on all GPUs if every layer that may is put there."""
    asked = _asked(given, shape)
    put = _put(given, shape, slots, len(shape.layers) + 1 if asked is None else asked)
    fixed = rules.compute_buffer(shape, slots) + rules.CONTEXT_OUTSIDE
    return put.device_weights + put.device_cache + fixed * max(memory.gpus, 1)


def _shrunk(
    given: Given, shape: Shape, memory: Memory, slots: Slots, least: Slots, room: int
) -> Slots:
    """The longest context between `least` and `slots` with which all layers fit."""
    low, high = least.context, slots.context
    while high - low > 256:
        middle = (low + high) // 2
        if _total(given, shape, memory, replace(slots, context=middle), room) <= room:
            low = middle
        else:
            high = middle
    return replace(slots, context=low)


def _split(given: Given, shape: Shape, memory: Memory, slots: Slots, room: int) -> _Split:
    asked = _asked(given, shape)
    if asked is not None:
        return _put(given, shape, slots, asked)
    fixed = (rules.compute_buffer(shape, slots) + rules.CONTEXT_OUTSIDE) * max(memory.gpus, 1)
    for count in range(len(shape.layers) + 1, 0, -1):
        put = _put(given, shape, slots, count)
        if put.device_weights + put.device_cache + fixed <= room:
            return put
    return _put(given, shape, slots, 0)


def _put(given: Given, shape: Shape, slots: Slots, count: int) -> _Split:
    """The last `count` layers on GPUs, the output being the very last (llama_model's buffers)."""
    weights, layers = shape.weights, shape.layers
    each = weights.layers if len(weights.layers) == len(layers) else ()
    rest = weights.total - weights.embedding - weights.output - weights.idle
    if not each:
        each = (rest // max(len(layers), 1),) * len(layers)
    first = max(len(layers) + 1 - count, 0)
    # The input table stays on the host; a shared one is copied to the GPU as the output.
    output = weights.embedding if weights.tied else weights.output
    device = sum(each[first:]) + (output if count else 0)
    device -= min(_experts(given, shape, first), device)
    caches = [layer_bytes(layer, slots) for layer in layers]
    cache = 0 if given.flag("no-kv-offload", "nkvo") else sum(caches[first:])
    total = weights.total - weights.idle
    host = total - device + (output if weights.tied and count else 0)
    return _Split(device, host, cache, sum(caches) - cache, count)


def _experts(given: Given, shape: Shape, first: int) -> int:
    """Bytes of experts that --cpu-moe or --n-cpu-moe keep off the GPU."""
    if not shape.experts:
        return 0
    count = len(shape.layers)
    kept = count if given.flag("cpu-moe", "cmoe") else given.above("n-cpu-moe", "ncmoe", default=0)
    return shape.weights.experts * max(min(kept, count) - first, 0) // max(count, 1)


def _layers(split: _Split, shape: Shape, gpus: int) -> str:
    text = f"{min(split.layers, len(shape.layers))} of {len(shape.layers)} layers"
    return f"{text} / {gpus} GPUs" if gpus > 1 else text


def _cells(slots: Slots, shape: Shape) -> str:
    stores = f"{slots.stores} x " if slots.stores > 1 else ""
    text = f"{stores}{slots.request:,} cells"
    if windows := shape.of("window"):
        text += f", {stores}{slots.window(windows[0].window):,} of windows"
    return text


def _yields(shape: Shape, slots: Slots, memory: Memory, split: _Split) -> tuple[Term, ...]:
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
