"""Measurements against peers and bounds: `python -m benchmarks [fanout|startup|render|local|all]`."""
