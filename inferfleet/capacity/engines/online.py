"""Weights in memory against weights in files: the type they are computed in, and quantizations
that engines make of a model in 16 bits while they load it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from inferfleet.capacity.engines.given import CHOICES, OFF, Given
from inferfleet.capacity.engines.kv import VLLM_TYPES
from inferfleet.capacity.shape.shape import Shape

# 4 bits, and a scale of 32 for 64 numbers.
_NF4 = 0.5 + 4 / 64
# Bytes of a parameter of a linear layer; input table and output matrix stay as they are.
_ONLINE = {
    "vllm": {
        "fp8": 1.0, "fp8_per_tensor": 1.0, "fp8_per_block": 1.0, "int8": 1.0, "mxfp8": 1.03,
        "bitsandbytes": _NF4,
    },
    "sglang": {"fp8": 1.0, "bitsandbytes": _NF4},
    # Its plain bitsandbytes has 8 bits.
    "tgi": {
        "fp8": 1.0, "eetq": 1.0, "bitsandbytes": 1.0, "bitsandbytes-nf4": _NF4,
        "bitsandbytes-fp4": _NF4,
    },
}  # fmt: skip
# Options that may be there without a name of a method, and change the weights all the same.
_FURTHER = {"vllm": "quantization-config", "sglang": "torchao-config", "tgi": ""}

Engine = Literal["vllm", "sglang", "tgi"]


@dataclass(frozen=True)
class Loaded:
    """A model as an engine has it in memory.

    shape: in the type that the options ask for. scale: bytes in memory per byte of the files.
    unknown: why that scale is a guess, "" if it is none.
    """

    shape: Shape
    scale: float = 1.0
    unknown: str = ""


def loaded(shape: Shape, given: Given, engine: Engine) -> Loaded:
    """The model after --dtype and a quantization of one that has none of its own."""
    own = VLLM_TYPES.get(given.text("dtype"), 0) or shape.dtype_bytes
    made = replace(shape, dtype_bytes=own)
    if shape.quantization or shape.source == "gguf":
        return Loaded(made)
    weights, scale = shape.weights, own / shape.stored_bytes
    method = _method(given, engine)
    if not method:
        return Loaded(made, scale)
    online = _ONLINE[engine].get(method)
    if online is None or _further(given, engine):
        return Loaded(made, scale, f"its weights after {method} are not known")
    whole = (weights.embedding + weights.output) * scale
    linear = (weights.total - weights.embedding - weights.output) / shape.stored_bytes
    scale = (whole + linear * online) / weights.total if weights.total else scale
    return Loaded(made, scale)


def _method(given: Given, engine: Engine) -> str:
    """The name of the quantization that is asked for, in small letters as engines compare it."""
    if engine == "tgi":
        told = given.text("quantize") or given.variable("QUANTIZE")
    else:
        told = given.text("quantization", *(["q"] if engine == "vllm" else []))
    told = told.strip().lower()
    if told in CHOICES:
        return _further(given, engine)
    return told


def _further(given: Given, engine: Engine) -> str:
    name = _FURTHER[engine]
    value = given.value(name) if name else None
    return "" if value is None or str(value).lower() in OFF else name
