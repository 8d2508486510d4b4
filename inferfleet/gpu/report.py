"""The XML of `nvidia-smi -q -x`, of drivers 450 to 610, as GpuFacts; pure."""

from __future__ import annotations

import re
from xml.etree import ElementTree as Tree

from inferfleet.errors import FleetError
from inferfleet.gpu.facts import (
    MIB,
    Clocks,
    Ecc,
    Gpu,
    GpuFacts,
    Instance,
    Link,
    Mig,
    Power,
    Process,
)

# One process answers everything; --query-gpu would need another one for each kind of list.
SMI = ("nvidia-smi", "-q", "-x")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_REASON = re.compile(r"clocks_(?:throttle|event)_reason_(\w+)")
# An idle GPU clocks down: that is no fault and no news.
_QUIET = {"gpu_idle"}


def parse_report(text: str) -> GpuFacts:
    """Raises FleetError for what is not such a report. What surrounds the XML does not count."""
    begin, end = text.find("<nvidia_smi_log"), text.rfind("</nvidia_smi_log>")
    try:
        if begin < 0 or end < begin:
            raise ValueError(text.strip().partition("\n")[0][:200] or "no output")
        root = Tree.fromstring(text[begin : end + len("</nvidia_smi_log>")])
    except (ValueError, Tree.ParseError) as error:
        raise FleetError(f"the report of nvidia-smi cannot be read: {error}") from None
    gpus = tuple(_gpu(index, found) for index, found in enumerate(root.findall("gpu")))
    return GpuFacts(gpus, _text(root, "driver_version"), _text(root, "cuda_version"))


def _gpu(index: int, gpu: Tree.Element) -> Gpu:
    minor = _whole(gpu, "minor_number")
    return Gpu(
        # The order of the report is nvidia-smi's own numbering; minor numbers may differ from it.
        index=index,
        uuid=_text(gpu, "uuid") or f"GPU-{minor if minor is not None else index}",
        name=_text(gpu, "product_name") or "unknown",
        bus=gpu.get("id", ""),
        brand=_text(gpu, "product_brand"),
        memory_total=_size(gpu, "fb_memory_usage/total"),
        memory_used=_size(gpu, "fb_memory_usage/used"),
        bar1=_size(gpu, "bar1_memory_usage/total"),
        utilization=_whole(gpu, "utilization/gpu_util"),
        temperature=_whole(gpu, "temperature/gpu_temp"),
        power=_power(gpu),
        clocks=_clocks(gpu, "clocks"),
        max_clocks=_clocks(gpu, "max_clocks"),
        application_clocks=_clocks(gpu, "applications_clocks"),
        link=Link(
            _whole(gpu, "pci/pci_gpu_link_info/pcie_gen/current_link_gen"),
            _whole(gpu, "pci/pci_gpu_link_info/link_widths/current_link_width"),
            _whole(gpu, "pci/pci_gpu_link_info/pcie_gen/max_link_gen"),
            _whole(gpu, "pci/pci_gpu_link_info/link_widths/max_link_width"),
        ),
        ecc=Ecc(
            _enabled(gpu, "ecc_mode/current_ecc"),
            _enabled(gpu, "ecc_mode/pending_ecc"),
            _errors(gpu, "_correctable", "single_bit"),
            _errors(gpu, "_uncorrectable", "double_bit"),
        ),
        mig=Mig(
            _enabled(gpu, "mig_mode/current_mig"),
            _enabled(gpu, "mig_mode/pending_mig"),
            tuple(_instance(found) for found in gpu.findall("mig_devices/mig_device")),
        ),
        reasons=_reasons(gpu),
        compute_mode=_mode(_text(gpu, "compute_mode")),
        persistence=_enabled(gpu, "persistence_mode"),
        state=_text(gpu, "performance_state"),
        processes=_processes(gpu),
    )


def _power(gpu: Tree.Element) -> Power:
    for name in ("gpu_power_readings", "power_readings"):
        found = gpu.find(name)
        if found is not None:
            draws = ("power_draw", "instant_power_draw", "average_power_draw")
            limits = ("current_power_limit", "power_limit", "enforced_power_limit")
            return Power(
                _first(found, draws),
                _first(found, limits),
                _real(found, "default_power_limit"),
                _real(found, "min_power_limit"),
                _real(found, "max_power_limit"),
            )
    return Power()


def _first(element: Tree.Element, paths: tuple[str, ...]) -> float | None:
    return next((n for path in paths if (n := _real(element, path)) is not None), None)


def _clocks(gpu: Tree.Element, path: str) -> Clocks:
    return Clocks(_whole(gpu, f"{path}/graphics_clock"), _whole(gpu, f"{path}/mem_clock"))


def _errors(gpu: Tree.Element, word: str, old: str) -> int | None:
    """Sum of the volatile counters of one sort; older drivers count in single_bit/double_bit."""
    found = gpu.find("ecc_errors/volatile")
    if found is None:
        return None
    numbers = [_number(entry.text) for entry in found if word in entry.tag]
    before = _real(found, f"{old}/total")
    counted = [number for number in (*numbers, before) if number is not None]
    return int(sum(counted)) if counted else None


def _instance(found: Tree.Element) -> Instance:
    return Instance(
        _whole(found, "index") or 0,
        _whole(found, "gpu_instance_id"),
        _whole(found, "compute_instance_id"),
        _size(found, "fb_memory_usage/total"),
        _size(found, "fb_memory_usage/used"),
    )


def _reasons(gpu: Tree.Element) -> tuple[str, ...]:
    found = []
    for name in ("clocks_event_reasons", "clocks_throttle_reasons"):
        for entry in gpu.findall(f"{name}/*"):
            match = _REASON.fullmatch(entry.tag)
            if match and (entry.text or "").strip() == "Active" and match[1] not in _QUIET:
                found.append(match[1].replace("_", " "))
    return tuple(dict.fromkeys(found))


def _processes(gpu: Tree.Element) -> tuple[Process, ...]:
    found: dict[int, Process] = {}
    for entry in gpu.findall("processes/process_info"):
        pid = _whole(entry, "pid")
        if pid is None:
            continue
        name, kind = _text(entry, "process_name") or "", _text(entry, "type") or ""
        memory = _size(entry, "used_memory")
        before = found.get(pid)
        if before is not None and before.memory is not None:
            # A process on several MIG instances has a line for each.
            memory = before.memory + (memory or 0)
        found[pid] = Process(pid, name, memory, kind)
    return tuple(found.values())


def _mode(text: str | None) -> str | None:
    """Compute mode as profiles write it: default, exclusive-process, prohibited."""
    return text.lower().replace("_", "-") if text else None


def _text(element: Tree.Element, path: str) -> str | None:
    text = (element.findtext(path) or "").strip().strip("[]")
    empty = not text or text in {"N/A", "None", "Not Supported", "Not Found", "Unknown Error"}
    return None if empty or text.startswith(("Requested functionality", "Insufficient")) else text


def _number(text: str | None) -> float | None:
    match = _NUMBER.match((text or "").strip())
    return float(match[0]) if match else None


def _real(element: Tree.Element, path: str) -> float | None:
    return _number(element.findtext(path))


def _whole(element: Tree.Element, path: str) -> int | None:
    found = _real(element, path)
    return None if found is None else int(found)


def _size(element: Tree.Element, path: str) -> int | None:
    found = _real(element, path)
    return None if found is None else int(found) * MIB


def _enabled(element: Tree.Element, path: str) -> bool | None:
    return {"Enabled": True, "Disabled": False}.get(_text(element, path) or "")
