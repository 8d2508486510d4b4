"""What admission must know of a machine's services, as plain data that can be kept on disk; pure.

A run without anything to start reads none of it, so its classes must not need loading either.
"""

from __future__ import annotations

from typing import Any

from inferfleet.schema.fleet import Fleet
from inferfleet.schema.machine import Machine, Service
from inferfleet.services.argv import merge_options
from inferfleet.services.resolve import project_name, service_gpus, service_runtime


def make_budget(fleet: Fleet, name: str) -> dict[str, Any]:
    """{"hardware": the memory that the hardware file gives, "services": by name, what each asks}.

    Sizes in bytes, bandwidth in bytes a second; None for what nobody says.
    """
    machine = fleet.machines[name]
    hardware = fleet.hardware.get(machine.hardware or "")
    gpu = hardware.gpu if hardware else None
    return {
        "hardware": {
            "name": machine.hardware,
            "memory": hardware.memory if hardware else None,
            "reserve": (hardware.reserve or 0) if hardware else 0,
            "unified": bool(hardware and hardware.unified),
            "gpus": gpu.count if gpu else 0,
            "gpu_memory": gpu.memory if gpu else None,
            "bandwidth": gpu.bandwidth_gbs * 1e9 if gpu and gpu.bandwidth_gbs else None,
        },
        "services": {
            service: _service(fleet, machine, service, entry)
            for service, entry in machine.services.items()
            if entry.kind in fleet.kinds
        },
    }


def _service(fleet: Fleet, machine: Machine, name: str, service: Service) -> dict[str, Any]:
    kind = fleet.kinds[service.kind]
    options: dict[str, Any] = dict(merge_options(kind.options.defaults, service.options))
    if service.modelfile:
        options |= service.modelfile.parameters
    compose = kind.compose if service_runtime(machine, service, kind) == "compose" else None
    volumes = [f"{name}-{suffix}" for suffix in compose.volumes] if compose else []
    return {
        "kind": service.kind,
        "engine": kind.engine,
        "options": options,
        "env": {key: str(value) for key, value in service.env.items()},
        "split": kind.options.gpus.model_dump() if kind.options.gpus else None,
        "memory": service.memory,
        "estimate": kind.memory_estimate,
        "gpus": service_gpus(fleet, machine, service),
        "cpuset": service.cpuset,
        "evict": service.evict,
        "admission": service.admission,
        "autostart": service.autostart,
        "volumes": [f"{project_name(machine.root)}_{volume}" for volume in volumes],
    }
