"""What a quantization_config says: bytes of a parameter, and the type of the KV cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def quantization(quant: Mapping[str, Any]) -> str:
    """The method's name, or ""."""
    name = quant.get("quant_method") or _inner(quant).get("quant_algo") or ""
    if _producer(quant) == "modelopt" and not quant.get("quant_method"):
        name = "modelopt"
    return str(name)[:40].lower().replace("_", "-")


def cache_type(quant: Mapping[str, Any]) -> str:
    """vLLM's cache type that `auto` becomes for this quantization, "" where it stays.

    get_kv_cache_quant_algo_string in vllm/utils/torch_utils.py for ModelOpt; any scheme of
    compressed-tensors, which must be one of 8 bits (Attention.__init__ in attention.py).
    """
    method = quantization(quant)
    if method == "compressed-tensors":
        return "fp8" if isinstance(quant.get("kv_cache_scheme"), Mapping) else ""
    if not method.startswith("modelopt"):
        return ""
    inner = _inner(quant)
    told = next(
        (
            found
            for key in ("kv_cache_scheme", "kv_cache_quant_algo")
            for found in (inner.get(key), quant.get(key))
            if found
        ),
        None,
    )
    if isinstance(told, Mapping):
        if told.get("type") != "float":
            return ""
        if told.get("num_bits") == 8 and told.get("dynamic") is False:
            return "fp8_e4m3"
        return "nvfp4" if told.get("num_bits") == 4 else ""
    return {"fp8": "fp8_e4m3", "nvfp4": "nvfp4"}.get(str(told).lower(), "")


def known_bytes(quant: Mapping[str, Any]) -> bool:
    """Whether what this says of the weights is known here; nothing is."""
    return not quant or _sizes(quant, 2) is not None


def parameter_bytes(quant: Mapping[str, Any], stored: int) -> tuple[float, float]:
    """Bytes of one parameter of a linear layer, and of one in an expert.

    As if not quantized where the method is not known, which is the most that it can be.
    """
    return _sizes(quant, stored) or (float(stored), float(stored))


def _sizes(quant: Mapping[str, Any], stored: int) -> tuple[float, float] | None:
    method = quantization(quant)
    group = _int(quant.get("group_size"), 128)
    algo = str(_inner(quant).get("quant_algo", "")).upper()
    if method.startswith("modelopt") and algo and "FP8" not in algo and "FP4" not in algo:
        return None  # INT4_AWQ, MIXED_PRECISION and others
    if method in ("fp8", "fbgemm-fp8", "modelopt", "modelopt-fp8") and "FP4" not in algo:
        blocks = _area(quant.get("weight_block_size"))
        return (1 + (4 / blocks if blocks else 0),) * 2
    if method in ("awq", "gptq", "auto-round", "gptq-marlin", "awq-marlin"):
        # A 16 bit scale and a zero point for each group.
        bits = _bits(quant.get("bits") or quant.get("w_bit"), 4)
        return ((bits + ((16 + bits) / group if group > 0 else 0)) / 8,) * 2
    if method == "compressed-tensors":
        return (_compressed(quant, stored),) * 2
    if method in ("modelopt", "modelopt-fp4", "nvfp4"):
        return ((4 + 8 / 16) / 8,) * 2
    if method == "mxfp4":
        # Experts only; 32 numbers of 4 bits share a scale of 8.
        return stored, (4 + 8 / 32) / 8
    if method == "bitsandbytes":
        return (1.0 if quant.get("load_in_8bit") else 0.5 + 4 / 64,) * 2
    return None


def _producer(quant: Mapping[str, Any]) -> str:
    """Who wrote an hf_quant_config.json, which names no method."""
    producer = quant.get("producer")
    name = producer.get("name") if isinstance(producer, Mapping) else None
    return name if isinstance(name, str) else ""


def _inner(quant: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where ModelOpt says its algorithms: one level down in hf_quant_config.json."""
    inner = quant.get("quantization")
    return inner if isinstance(inner, Mapping) else quant


def _compressed(quant: Mapping[str, Any], stored: int) -> float:
    groups = quant.get("config_groups")
    for one in groups.values() if isinstance(groups, Mapping) else ():
        weights = one.get("weights") if isinstance(one, Mapping) else None
        if isinstance(weights, Mapping):
            bits = _bits(weights.get("num_bits"), 8)
            group = _int(weights.get("group_size"), 0)
            scale = 8 if weights.get("type") == "float" and bits == 4 else 16
            return (bits + (scale / group if group > 0 else 0)) / 8
    return float(stored)


def _int(value: object, default: int) -> int:
    return value if type(value) is int else default


def _bits(value: object, default: int) -> int:
    """Bits of a number: a quantized one has at most 16."""
    return value if type(value) is int and 0 < value <= 16 else default


def _area(block: object) -> int:
    """Numbers of a block given as [rows, columns]; 0 if it is none."""
    if isinstance(block, list) and len(block) == 2 and all(_int(one, 0) > 0 for one in block):
        return int(block[0] * block[1])
    return 0
