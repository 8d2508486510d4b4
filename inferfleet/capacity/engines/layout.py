"""How llama.cpp and Ollama divide a model over several GPUs.

llama.cpp: load_tensors and llama_meta_device_get_split_state in src/llama-model.cpp,
llama_prepare_model_devices in src/llama.cpp, common_params_fit_impl in common/fit.cpp, the
default_tensor_split of ggml-cuda.cu. Ollama: selectLlamaServerPlacement in server/sched.go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from inferfleet.capacity.engines import rules
from inferfleet.capacity.engines.given import Given
from inferfleet.capacity.term import Memory

# As Go's strconv.ParseBool has it; Ollama takes anything else for true.
_FALSE = ("", "0", "f", "F", "false", "False", "FALSE")


@dataclass(frozen=True)
class Layout:
    """What share of a model each GPU gets, and what each has, in bytes.

    weights and cache: proportions by GPU, whatever their sum. where: as in Laid. moves: layers
    that have no room are put elsewhere. told: the proportions are the user's, of whole layers.
    idle: bytes on a GPU that gets nothing. limit: why the engine does not start with it.
    """

    totals: tuple[int, ...]
    frees: tuple[int, ...]
    weights: tuple[float, ...]
    cache: tuple[float, ...]
    where: Literal["each", "all", "one"] = "all"
    moves: bool = True
    told: bool = False
    idle: int = 0
    limit: str = ""

    @property
    def used(self) -> tuple[int, ...]:
        """The GPUs that get a share."""
        pairs = enumerate(zip(self.weights, self.cache, strict=True))
        return tuple(number for number, parts in pairs if any(parts))

    @property
    def rooms(self) -> tuple[int, ...]:
        """What fitting may fill of each."""
        return tuple(max(free - rules.FIT_MARGIN, 1) for free in self.frees)

    @property
    def room(self) -> int:
        """What fitting may fill of all that it uses; 0 without a GPU."""
        rooms = self.rooms
        return sum(rooms[number] for number in self.used)


def fits(given: Given) -> bool:
    """Whether llama.cpp changes what is not said until it fits; split mode tensor cannot do so."""
    return given.flag("fit", default=True) and _mode(given) != "tensor"


def llama_layout(given: Given, memory: Memory) -> Layout:
    """By --split-mode, --tensor-split and --main-gpu; by what is free where nobody says how.

    In rows it is the matrices that are divided, by the GPUs' whole memory; the cache of a layer
    lies where the layer does, whatever the help says of --main-gpu. Split mode tensor divides
    evenly. Layers are moved only where no number of them, no proportions and no other mode is said.
    """
    even = _even(memory)
    count = len(even.totals)
    mode, moves = _mode(given), fits(given)
    if count < 2:
        return _changed(even, even.weights, even.cache, "each", moves)
    if mode == "none":
        main = int(given.count("LLAMA_ARG_MAIN_GPU", 0))
        return _alone(even, given.whole("main-gpu", "mg", default=main), given, memory, moves)
    parts = _proportions(_word(given, "LLAMA_ARG_TENSOR_SPLIT", "tensor-split", "ts"), count)
    if parts:
        told = mode == "layer"
        where: Literal["each", "all"] = "each" if told and _in_order(given, memory) else "all"
        return _changed(even, parts, parts, where, moves=False, told=told)
    if mode == "tensor":
        return _changed(even, even.weights, even.cache, "all", moves=False)
    frees = even.frees if any(even.frees) else even.cache
    if mode == "row":
        return _changed(even, even.totals, frees, "all", moves=False)
    return _changed(even, frees, frees, "all", moves)


def ollama_layout(given: Given, memory: Memory, predicted: int) -> Layout:
    """One GPU if 80 % of what is free there hold a model, of several that with most; else all.

    predicted: bytes, as Ollama predicts them.
    """
    even = _even(memory)
    count = len(even.totals)
    if count > 1 and given.value("main-gpu") is not None:
        return _alone(even, given.whole("main-gpu"), given, memory, moves=True, idle=0)
    if count > 1 and given.variable("OLLAMA_SCHED_SPREAD").strip() in _FALSE:
        best = max(range(count), key=lambda number: even.frees[number])
        if predicted <= even.frees[best] * 80 // 100:
            one = _only(best, count)
            return _changed(even, one, one, "all", moves=True, idle=0)
    return llama_layout(given, memory)


def _even(memory: Memory) -> Layout:
    places = memory.places
    totals = tuple(place.total for place in places)
    kept = memory.reserve if memory.unified else 0
    frees = tuple(
        max((p.total if p.free is None else min(p.free, p.total)) - kept, 0) for p in places
    )
    alike = (1,) * len(places)
    return Layout(totals, frees, alike, alike)


def _changed(
    even: Layout,
    weights: tuple[float, ...],
    cache: tuple[float, ...],
    where: Literal["each", "all", "one"],
    moves: bool,
    told: bool = False,
    idle: int = rules.CONTEXT_OUTSIDE,
) -> Layout:
    """Proportions that are alike become 1, so that a half is exactly that."""
    return Layout(even.totals, even.frees, _plain(weights), _plain(cache), where, moves, told, idle)


def _alone(
    even: Layout,
    main: int,
    given: Given,
    memory: Memory,
    moves: bool,
    idle: int = rules.CONTEXT_OUTSIDE,
) -> Layout:
    """On the GPU of this number, or where it is negative on none."""
    count = len(even.totals)
    if main >= count:
        limit = f"main-gpu {main} names none of its {count} GPUs, which count from 0"
        return Layout(even.totals, even.frees, even.weights, even.cache, limit=limit)
    one = _only(main, count)
    where: Literal["each", "one"] = "each" if _in_order(given, memory) else "one"
    return _changed(even, one, one, where, moves, idle=idle)


def _only(main: int, count: int) -> tuple[float, ...]:
    return tuple(float(number == main) for number in range(count))


def _plain(parts: tuple[float, ...]) -> tuple[float, ...]:
    return (1,) * len(parts) if parts and len(set(parts)) == 1 and parts[0] else parts


def _in_order(given: Given, memory: Memory) -> bool:
    """Whether the engine's GPU 0 is the driver's first.

    CUDA counts the fastest first, the driver by their place on the bus, and so does CUDA where
    CUDA_DEVICE_ORDER is PCI_BUS_ID. GPUs that are alike are in one order for both.
    """
    alike = len({place.total for place in memory.places}) < 2
    return memory.ordered and (alike or given.variable("CUDA_DEVICE_ORDER") == "PCI_BUS_ID")


def _mode(given: Given) -> str:
    return _word(given, "LLAMA_ARG_SPLIT_MODE", "split-mode", "sm") or "layer"


def _word(given: Given, variable: str, *names: str) -> str:
    return given.text(*names) or given.variable(variable)


def _proportions(text: str, count: int) -> tuple[float, ...]:
    """As --tensor-split has them, what is not said being 0; () where nothing is."""
    try:
        found = [float(word) for word in re.split(r"[,/]+", text.strip()) if word.strip()]
    except ValueError:
        return ()
    parts = tuple([*found, *[0.0] * count][:count])
    return parts if any(parts) and min(parts) >= 0 else ()
