"""The shape of a model that a running Ollama has, by Ollama's own word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inferfleet.capacity.facts import Known
from inferfleet.capacity.shape.gguf import Gguf, Many, Value
from inferfleet.capacity.shape.gguf_shape import gguf_shape
from inferfleet.errors import FleetError
from inferfleet.hosts.host import Host
from inferfleet.models.ollama import full_name

ANSWER_SECONDS = 10.0


def from_ollama(host: Host, name: str, port: int) -> Known:
    """What /api/show says of a model, with its size from /api/tags; unknown where it does not."""
    import httpx

    try:
        with (
            host.forward(port) as local,
            # An HTTP proxy of this machine's user must not get what goes to loopback.
            httpx.Client(
                base_url=f"http://127.0.0.1:{local}", timeout=ANSWER_SECONDS, trust_env=False
            ) as client,
        ):
            listed = client.get("/api/tags").raise_for_status().json()["models"]
            shown = client.post("/api/show", json={"model": name}).raise_for_status().json()
        size = next(int(one["size"]) for one in listed if full_name(one["name"]) == full_name(name))
        shape = gguf_shape([Gguf(3, _metadata(shown["model_info"]), (), 0, 0)], name)
    except FleetError as error:
        return Known(None, why=error.what)
    except (httpx.HTTPError, ValueError, KeyError, TypeError, StopIteration):
        return Known(None, why=f"the Ollama on port {port} does not tell of {name}")
    weights = replace(shape.weights, total=size, how="measured")
    return Known(replace(shape, weights=weights), f"from Ollama on {host.name}")


def _metadata(found: Mapping[str, Any]) -> dict[str, Value]:
    """As a file would have it; long arrays come as null."""
    values: dict[str, Value] = {}
    for key, value in found.items():
        if isinstance(value, bool | int | float | str):
            values[key] = value
        elif isinstance(value, list):
            numbers = all(isinstance(one, int | float) for one in value)
            values[key] = tuple(value) if numbers else Many(len(value))
    return values
