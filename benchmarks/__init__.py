"""Measurements against peers and bounds: `python -m benchmarks`."""
