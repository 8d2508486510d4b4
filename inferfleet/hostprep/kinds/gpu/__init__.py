"""NVIDIA GPUs and their software."""
