"""The same facts through NVML, NVIDIA's library: no process, and as fresh as they get."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from inferfleet.errors import FleetError
from inferfleet.gpu.facts import Clocks, Ecc, Gpu, GpuFacts, Instance, Link, Mig, Power, Process
from inferfleet.gpu.trouble import INSTALL, explain

T = TypeVar("T")
_MODES = {0: "default", 1: "exclusive-thread", 2: "prohibited", 3: "exclusive-process"}
# Bits of NVML's clocks event reasons (nvml.h), but for idle (bit 0), which is no news.
_REASONS = {
    0x002: "applications clocks setting",
    0x004: "sw power cap",
    0x008: "hw slowdown",
    0x010: "sync boost",
    0x020: "sw thermal slowdown",
    0x040: "hw thermal slowdown",
    0x080: "hw power brake slowdown",
    0x100: "display clocks setting",
}


class NoLibrary(FleetError):
    """NVML cannot be loaded here: nvidia-smi may still answer."""


def local_gpus() -> GpuFacts:
    """All GPUs of this machine.

    Raises NoLibrary where there is no NVML or one too old to begin with, FleetError where it is
    there and fails. A value that the library, the card or the user's rights do not give is None.
    """
    try:
        import pynvml as nvml
    except ImportError:
        raise NoLibrary(
            "the Python module pynvml is not installed", hint="pip install nvidia-ml-py"
        ) from None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError_LibraryNotFound:
        raise NoLibrary("libnvidia-ml.so.1 is not installed", hint=INSTALL) from None
    except nvml.NVMLError_FunctionNotFound:
        raise NoLibrary(
            "libnvidia-ml.so.1 is too old: it lacks functions that every driver since 2018 has",
            hint="install a current NVIDIA driver",
        ) from None
    except nvml.NVMLError as error:
        raise explain(str(error), int(error.value)) from None
    try:
        count = nvml.nvmlDeviceGetCount()
        gpus = tuple(_gpu(nvml, index) for index in range(count))
        version = _ask(nvml, nvml.nvmlSystemGetCudaDriverVersion)
        cuda = None if version is None else f"{version // 1000}.{version % 1000 // 10}"
        return GpuFacts(gpus, _ask(nvml, nvml.nvmlSystemGetDriverVersion), cuda)
    except nvml.NVMLError as error:
        raise explain(str(error), int(error.value)) from None
    finally:
        _ask(nvml, nvml.nvmlShutdown)


def _ask(nvml: Any, function: Callable[..., T], *arguments: Any) -> T | None:
    """An answer, None where this card, library or user has none. A dead driver still raises."""
    try:
        return function(*arguments)
    except (
        nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NoPermission,
        nvml.NVMLError_NotFound, nvml.NVMLError_InvalidArgument, nvml.NVMLError_NoData,
        nvml.NVMLError_ArgumentVersionMismatch, nvml.NVMLLibraryMismatchError,
    ):  # fmt: skip
        return None


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def ask(name: str, *arguments: Any) -> Any:
        return _ask(nvml, getattr(nvml, f"nvmlDeviceGet{name}"), handle, *arguments)

    # The second version counts what the driver keeps for itself apart, as nvidia-smi does.
    memory = ask("MemoryInfo", nvml.nvmlMemory_v2) or ask("MemoryInfo")
    bar1, rates = ask("BAR1MemoryInfo"), ask("UtilizationRates")
    pci, bits = ask("PciInfo"), ask("CurrentClocksEventReasons")
    if bits is None:
        bits = ask("CurrentClocksThrottleReasons") or 0
    state = ask("PerformanceState")
    return Gpu(
        index=index,
        uuid=ask("UUID") or f"GPU-{index}",
        name=ask("Name") or "unknown",
        bus=_words(pci.busId) if pci else "",
        memory_total=memory.total if memory and memory.total else None,
        memory_used=memory.used if memory and memory.total else None,
        bar1=bar1.bar1Total if bar1 else None,
        utilization=rates.gpu if rates else None,
        temperature=ask("Temperature", nvml.NVML_TEMPERATURE_GPU),
        power=_power(ask),
        clocks=Clocks(ask("ClockInfo", nvml.NVML_CLOCK_GRAPHICS),
                      ask("ClockInfo", nvml.NVML_CLOCK_MEM)),
        max_clocks=Clocks(ask("MaxClockInfo", nvml.NVML_CLOCK_GRAPHICS),
                          ask("MaxClockInfo", nvml.NVML_CLOCK_MEM)),
        application_clocks=Clocks(ask("ApplicationsClock", nvml.NVML_CLOCK_GRAPHICS),
                                  ask("ApplicationsClock", nvml.NVML_CLOCK_MEM)),
        link=Link(ask("CurrPcieLinkGeneration"), ask("CurrPcieLinkWidth"),
                  ask("MaxPcieLinkGeneration"), ask("MaxPcieLinkWidth")),
        ecc=_ecc(nvml, ask),
        mig=_mig(nvml, handle, ask),
        reasons=tuple(text for bit, text in _REASONS.items() if bits & bit),
        compute_mode=_MODES.get(ask("ComputeMode")),
        persistence=_bool(ask("PersistenceMode")),
        state=None if state is None or state > 15 else f"P{state}",
        processes=_processes(nvml, ask),
    )  # fmt: skip


def _power(ask: Callable[..., Any]) -> Power:
    bounds = ask("PowerManagementLimitConstraints") or (None, None)
    milliwatt = (ask("PowerUsage"), ask("PowerManagementLimit"), ask("PowerManagementDefaultLimit"),
                 *bounds)  # fmt: skip
    return Power(*(None if value is None else value / 1000 for value in milliwatt))


def _ecc(nvml: Any, ask: Callable[..., Any]) -> Ecc:
    current, pending = ask("EccMode") or (None, None)
    if not current:
        return Ecc(_bool(current), _bool(pending))
    counter = nvml.NVML_VOLATILE_ECC
    return Ecc(
        _bool(current),
        _bool(pending),
        ask("TotalEccErrors", nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, counter),
        ask("TotalEccErrors", nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, counter),
    )


def _mig(nvml: Any, handle: Any, ask: Callable[..., Any]) -> Mig:
    current, pending = ask("MigMode") or (None, None)
    found = []
    for index in range((ask("MaxMigDeviceCount") or 0) if current else 0):
        device = _ask(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index)
        if device is None:
            continue
        memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, device)
        name = str(_ask(nvml, nvml.nvmlDeviceGetName, device) or "")
        found.append(
            Instance(
                index,
                _ask(nvml, nvml.nvmlDeviceGetGpuInstanceId, device),
                _ask(nvml, nvml.nvmlDeviceGetComputeInstanceId, device),
                memory.total if memory else None,
                memory.used if memory else None,
                name.rpartition(" MIG ")[2] if " MIG " in name else None,
            )
        )
    return Mig(_bool(current), _bool(pending), tuple(found))


def _processes(nvml: Any, ask: Callable[..., Any]) -> tuple[Process, ...]:
    found: dict[int, Process] = {}
    for name, kind in (("ComputeRunningProcesses", "C"), ("GraphicsRunningProcesses", "G")):
        for one in ask(f"{name}_v3") or ask(f"{name}_v2") or ():
            before = found.get(one.pid)
            label = _ask(nvml, nvml.nvmlSystemGetProcessName, one.pid)
            found[one.pid] = Process(
                one.pid, label or "", one.usedGpuMemory, f"{before.kind}+{kind}" if before else kind
            )
    return tuple(found.values())


def _bool(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def _words(value: bytes | str) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value
