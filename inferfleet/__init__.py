"""inferbase: an inventory of machines becomes running, tuned, observed inference hosts."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["FleetError", "__version__", "endpoint"]


def __getattr__(name: str) -> Any:
    # Importing the package must stay free of heavy imports: `invoke --list` pays for each.
    if name == "endpoint":
        from inferfleet.operations.endpoints import endpoint

        return endpoint
    if name == "FleetError":
        from inferfleet.errors import FleetError

        return FleetError
    raise AttributeError(f"module 'inferfleet' has no attribute {name!r}")
