"""Qwen3-32B-FP8 as its repository describes it, without its weights: config and file headers.

The tensors follow from the published config.json: FP8 matrices with a BF16 scale for each block
of 128 x 128, everything else in BF16.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unit.models_servers import Asset, Hub

CONFIG = Path(__file__).parent / "cases" / "capacity" / "qwen3-32b-fp8.json"
NAME = "Qwen/Qwen3-32B-FP8"
LAYERS, HIDDEN, INNER, VOCAB, QUERY, KEY = 64, 5120, 25600, 151936, 8192, 1024
MATRICES = {
    "self_attn.q_proj": (QUERY, HIDDEN),
    "self_attn.k_proj": (KEY, HIDDEN),
    "self_attn.v_proj": (KEY, HIDDEN),
    "self_attn.o_proj": (HIDDEN, QUERY),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
NORMS = {
    "input_layernorm": HIDDEN,
    "post_attention_layernorm": HIDDEN,
    "self_attn.q_norm": 128,
    "self_attn.k_norm": 128,
}


def shard(tensors: dict[str, tuple[str, list[int]]]) -> tuple[bytes, int]:
    """The beginning of a safetensors file, and the bytes of its tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (kind, shape) in tensors.items():
        size = {"F8_E4M3": 1, "BF16": 2}[kind]
        for number in shape:
            size *= number
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, at


def shards() -> dict[str, tuple[bytes, int]]:
    """File name -> its beginning and the bytes of its tensors: two files, 32 layers each."""
    halves: list[dict[str, tuple[str, list[int]]]] = [{}, {}]
    for layer in range(LAYERS):
        half, stem = halves[layer * 2 // LAYERS], f"model.layers.{layer}."
        for name, (rows, columns) in MATRICES.items():
            half[f"{stem}{name}.weight"] = ("F8_E4M3", [rows, columns])
            blocks = [-(-rows // 128), -(-columns // 128)]
            half[f"{stem}{name}.weight_scale_inv"] = ("BF16", blocks)
        for name, length in NORMS.items():
            half[f"{stem}{name}.weight"] = ("BF16", [length])
    halves[0]["model.embed_tokens.weight"] = ("BF16", [VOCAB, HIDDEN])
    halves[1]["model.norm.weight"] = ("BF16", [HIDDEN])
    halves[1]["lm_head.weight"] = ("BF16", [VOCAB, HIDDEN])
    return {f"model-0000{i + 1}-of-00002.safetensors": shard(half) for i, half in enumerate(halves)}


def weights() -> int:
    """Bytes of all tensors."""
    return sum(size for _, size in shards().values())


def publish(hub: Hub) -> None:
    """Let a hub have the repository; its files claim their whole sizes and hold their headers."""
    made = shards()
    files = {"config.json": CONFIG.read_bytes(), **{name: data for name, (data, _) in made.items()}}
    commit = hub.publish(files, large=tuple(made))
    for path, asset in list(hub.server.assets.items()):
        if path.startswith("/api/models/"):
            info = json.loads(asset.data)
            for entry in info["siblings"]:
                if entry["rfilename"] in made:
                    data, size = made[entry["rfilename"]]
                    entry["size"] = entry["lfs"]["size"] = len(data) + size
            hub.server.assets[path] = Asset(json.dumps(info).encode(), headers=asset.headers)
    assert commit == hub.commit
