"""Starts llama.cpp's server as the first argument says, and stays; its log goes to stderr.

The argument is JSON: {"model": path, and attributes of xllamacpp.CommonParams}. Run as a script.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path


def main() -> None:
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from inferfleet.engines import openmp

    openmp.provide()
    import xllamacpp

    case = json.loads(sys.argv[1])
    params = xllamacpp.CommonParams()
    params.model.path = case.pop("model")
    params.port = 0
    params.fit_params = params.warmup = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.verbosity = 4
    for name, value in case.items():
        if name.startswith("cache_type"):
            value = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{value.upper()}")
        setattr(params, name, value)
    kept = xllamacpp.Server(params)
    while kept:
        signal.pause()


if __name__ == "__main__":
    main()
