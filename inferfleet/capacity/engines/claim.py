"""What a service takes of a machine: the meeting point of the engines' arithmetic and admission."""

from __future__ import annotations

from collections.abc import Mapping

from inferfleet.capacity.engines.given import Given
from inferfleet.capacity.engines.llama import claim_llama, claim_ollama
from inferfleet.capacity.engines.share import claim_sglang, claim_tgi, claim_triton
from inferfleet.capacity.engines.vllm import claim_vllm
from inferfleet.capacity.shape.shape import Shape
from inferfleet.capacity.term import Claim, Memory

_ENGINES = {
    "vllm": claim_vllm,
    "llama-cpp": claim_llama,
    "ollama": claim_ollama,
    "sglang": claim_sglang,
    "tgi": claim_tgi,
    "triton": claim_triton,
}


def claim(
    service: str,
    kind: str,
    options: Mapping[str, object],
    shape: Shape | None,
    memory: Memory,
    env: Mapping[str, str] | None = None,
) -> Claim:
    """The claim of one service.

    kind: the name of an engine's kind; any other claims nothing that can be known. options: as
    in the machine file, for Ollama the Modelfile's parameters (num_ctx, num_gpu, num_batch).
    shape None: nothing is known of the model. env: the service's environment, which some engines
    read their sizes from (VLLM_CPU_KVCACHE_SPACE, OLLAMA_NUM_PARALLEL).

    Terms in bytes add up to amount, on a device with the host's own among them named "of the
    host". Raises nothing: what cannot be computed leaves amount None.
    """
    engine = _ENGINES.get(kind)
    if engine is None:
        return Claim(service, "device" if memory.device else "host", None)
    return engine(service, Given(options, env or {}), shape, memory)
