"""What a service takes of a machine: the meeting point of the engines' arithmetic and admission."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from inferfleet.capacity.engines.given import Given
from inferfleet.capacity.engines.llama import claim_llama, claim_ollama
from inferfleet.capacity.engines.share import claim_sglang, claim_tgi, claim_triton
from inferfleet.capacity.engines.vllm import claim_vllm
from inferfleet.capacity.machine import MAIN, wanted_gpus
from inferfleet.capacity.shape.shape import Shape
from inferfleet.capacity.term import Claim, How, Memory, Term
from inferfleet.errors import FleetError
from inferfleet.services.values import split_words

ENGINES = {
    "vllm": claim_vllm,
    "llama-cpp": claim_llama,
    "ollama": claim_ollama,
    "sglang": claim_sglang,
    "tgi": claim_tgi,
    "triton": claim_triton,
}


def demand_claim(
    service: str, demand: Mapping[str, Any], shape: Shape | None, memory: Memory
) -> Claim:
    """The claim of a service as make_budget has it.

    A service that no arithmetic is for claims what its machine file or else its kind says.
    """
    made = claim(service, demand["engine"], demand["options"], shape, memory, demand["env"])
    estimate, limit = demand.get("estimate"), demand.get("memory")
    if made.amount is None and not made.limits and demand["engine"] not in ENGINES and estimate:
        how: How = "declared" if limit else "estimated"
        amount = limit or estimate
        formula = "memory: of the machine file" if limit else "what is usual for its kind"
        term = Term(MAIN, amount, "bytes", formula, how)
        return Claim(service, "host", amount, terms=(term,), least=limit or 0, fills=not limit)
    if shape is not None and shape.source == "declared":
        terms = [replace(one, how="declared") if one.how == "exact" else one for one in made.terms]
        made = replace(made, terms=tuple(terms))
    wanted = wanted_gpus(demand)
    if wanted is not None and memory.device and wanted > memory.gpus:
        words = split_words(demand["split"], demand["options"])
        limit_words = f"{words} needs {wanted} GPUs, and it has {memory.gpus}"
        made = replace(made, limits=(limit_words, *made.limits))
    return made


def claim(
    service: str,
    engine: str | None,
    options: Mapping[str, object],
    shape: Shape | None,
    memory: Memory,
    env: Mapping[str, str] | None = None,
) -> Claim:
    """The claim of one service.

    engine: as its kind says; without one it claims nothing that can be known. options: as in the
    machine file, for Ollama the Modelfile's parameters (num_ctx, num_gpu, num_batch).
    shape None: nothing is known of the model. env: the service's environment, which some engines
    read their sizes from (VLLM_CPU_KVCACHE_SPACE, OLLAMA_NUM_PARALLEL).

    Terms in bytes add up to amount, on a device with the host's own among them named "of the
    host". Raises nothing: what cannot be computed leaves amount None.
    """
    rules = ENGINES.get(engine or "")
    pool: Literal["device", "host"] = "device" if memory.device else "host"
    if rules is None:
        return Claim(service, pool, None)
    try:
        return rules(service, Given(options, env or {}), shape, memory)
    except FleetError as error:
        return Claim(service, pool, None, limits=(error.what,))
