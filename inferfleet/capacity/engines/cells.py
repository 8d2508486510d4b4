"""llama.cpp's memory for contexts: cells, slots, windows and states."""

from __future__ import annotations

from dataclasses import dataclass

from inferfleet.capacity.engines.kv import llama_state, llama_token
from inferfleet.capacity.shape.shape import Layer, Shape
from inferfleet.errors import FleetError

PAD = 256  # llama_context pads the context, llama_kv_cache_iswa the window's cells, to this
BATCH = 2048  # --batch-size
UBATCH = 512  # --ubatch-size


@dataclass(frozen=True)
class Slots:
    """How the server was told to divide its context.

    context: --ctx-size, the total of all slots. unified: --kv-unified, one store for all slots.
    full: --swa-full. keys and values: --cache-type-k and -v.
    """

    context: int
    slots: int = 1
    unified: bool = False
    full: bool = False
    batch: int = BATCH
    ubatch: int = UBATCH
    keys: str = "f16"
    values: str = "f16"

    @property
    def request(self) -> int:
        """The longest context of one request: n_ctx_seq (llama_context's constructor)."""
        total = _padded(self.context)
        return total if self.unified else _padded(total // self.slots)

    @property
    def stores(self) -> int:
        """Separate stores of `request` cells each."""
        return 1 if self.unified else self.slots

    @property
    def step(self) -> int:
        """Tokens of one computation: n_ubatch."""
        return min(self.context, self.batch, self.ubatch or self.batch)

    def window(self, window: int) -> int:
        """Cells of one store for layers that look back `window` tokens.

        llama_kv_cache_iswa: min(cells, window * (slots if unified else 1) + n_ubatch), padded.
        """
        if self.full:
            return self.request
        share = window * (self.slots if self.unified else 1) + self.step
        return _padded(min(self.request, share))


@dataclass(frozen=True)
class Cells:
    """The bytes of a context, by what grows with it: all of one server."""

    cells: int  # of full layers, over all stores
    token: int  # bytes of one such cell, all its layers
    window_cells: int
    window_token: int
    states: int  # bytes of all slots' states

    @property
    def total(self) -> int:
        return self.cells * self.token + self.window_cells * self.window_token + self.states


def cells(shape: Shape, slots: Slots) -> Cells:
    """What llama.cpp reserves for `slots` when it starts; all of it at once.

    Raises FleetError for a cache type that the model's heads do not allow, and for two types
    with latent attention, which llama.cpp refuses.
    """
    if shape.of("mla") and slots.keys != slots.values:
        raise FleetError(
            f"llama.cpp keeps this model's keys and values in one type, not in {slots.keys} "
            f"and {slots.values}",
            "give cache-type-k and cache-type-v the same",
        )

    def token(layers: tuple[Layer, ...]) -> int:
        return sum(llama_token(layer, slots.keys, slots.values) for layer in layers)

    windows = shape.of("window")
    states = sum(llama_state(layer.state) for layer in shape.layers if layer.state)
    return Cells(
        cells=slots.request * slots.stores,
        token=token(shape.of("full", "mla")),
        window_cells=slots.window(windows[0].window) * slots.stores if windows else 0,
        window_token=token(windows),
        states=states * slots.slots,
    )


def layer_bytes(layer: Layer, slots: Slots) -> int:
    """What one layer keeps, for models whose layers lie partly on a device (--gpu-layers)."""
    count = slots.window(layer.window) if layer.attention == "window" else slots.request
    kept = llama_token(layer, slots.keys, slots.values) * count * slots.stores
    return kept + (llama_state(layer.state) * slots.slots if layer.state else 0)


def _padded(cells: int) -> int:
    return -(-cells // PAD) * PAD
