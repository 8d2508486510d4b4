"""The most tokens per second that a memory's bandwidth allows.

Each step of decoding reads all weights that it uses once, and what every running request keeps.
A real engine stays below: S4's Qwen3-32B in FP8 reads 32.8 GB a token, at 273 GB/s at most 8.3
tokens/s, of which 6 to 7 are seen.
"""

from __future__ import annotations

from inferfleet.capacity.shape.shape import Layer, Shape
from inferfleet.capacity.term import How, Term

# The batched bound needs a context per request; it is said with the figure.
CONTEXT = 1024


def bound(bandwidth: float, weights: float, kept: float = 0, requests: int = 1) -> float:
    """Tokens per second of `requests` at once: requests * bandwidth / (weights + all kept).

    weights: bytes read in a step; kept: bytes that one request keeps and reads in each step.
    """
    read = weights + requests * kept
    return requests * bandwidth / read if read else 0.0


def read_back(layer: Layer, token: float, length: int) -> float:
    """Bytes of one layer's cache that a request of `length` tokens reads for its next token."""
    return token * (min(length, layer.window) if layer.attention == "window" else length)


def bounds(
    shape: Shape,
    bandwidth: float | None,
    kept: float,
    requests: int,
    context: int = CONTEXT,
    *,
    scale: float = 1.0,
) -> tuple[Term, ...]:
    """The bounds of one request and of `requests`, as terms; nothing without a bandwidth.

    bandwidth: of all devices that share the weights together. kept: bytes that a request of
    `context` tokens reads of its cache. scale: bytes in memory per byte in the files.
    """
    if not bandwidth or not shape.weights.total:
        return ()
    how: How = "estimated" if shape.weights.how == "estimated" or scale != 1.0 else "exact"
    one = shape.weights.read_per_token(shape.used, shape.experts) * scale
    name = f"{bandwidth / 1e9:.0f} GB/s"
    terms = [
        Term(
            "bandwidth bound, one request",
            bound(bandwidth, one),
            "tokens/s",
            f"{name} / {one / 1e9:.2f} GB of weights read per token",
            how,
        )
    ]
    if requests > 1:
        many = shape.weights.read_per_batch(shape.used, shape.experts, requests) * scale
        terms.append(
            Term(
                f"bandwidth bound, {requests} requests",
                bound(bandwidth, many, kept, requests),
                "tokens/s",
                f"{requests} x {name} / ({many / 1e9:.2f} GB + {requests} x {kept / 1e9:.3f} GB "
                f"of {context:,} tokens each)",
                "estimated",
            )
        )
    return tuple(terms)
