"""What vLLM makes of its KV cache for each line of JSON on stdin; run by vLLM's own interpreter.

A line holds arguments of vllm.LLM; the answer is a line of JSON on the file descriptor that the
first argument names. Each model lives in a process of its own, forked after the imports.
"""

from __future__ import annotations

import json
import os
import sys


def main(answers: int) -> None:
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    lines = list(sys.stdin)
    from vllm import LLM

    for line in lines:
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            if status:
                os.write(answers, json.dumps({"error": f"ended with {status}"}).encode() + b"\n")
            continue
        try:
            llm = LLM(enforce_eager=True, load_format="dummy", **json.loads(line))
        except Exception as error:
            os.write(answers, json.dumps({"error": f"{error!r}"[-2000:]}).encode() + b"\n")
            os._exit(0)
        config = llm.llm_engine.vllm_config
        cache = config.cache_config
        found = {
            "blocks": cache.num_gpu_blocks,
            "block": cache.block_size,
            "tokens": cache.kv_cache_size_tokens,
            "concurrency": cache.kv_cache_max_concurrency,
            "in-flight": config.max_in_flight_tokens,
            "align": getattr(cache, "mamba_cache_mode", "none") == "align",
        }
        os.write(answers, json.dumps(found).encode() + b"\n")
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
