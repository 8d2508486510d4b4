"""GPUs as plain data. None everywhere: the driver does not say, or the card has no such thing."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

MIB = 1 << 20
FOREIGN = "foreign"
# Product names of data-centre cards; NVIDIA prints no such property. Names such as P400 and T400
# are workstation cards, so families alone do not tell.
_DATACENTRE = re.compile(
    r"\b(Tesla|A2|A10G?|A16|A30|A40|A100|A800|L2|L4|L20|L40S?|H20|H100|H200|H800|B100|B200|B300"
    r"|GH200|GB200|GB300|V100|P4|P40|P100|T4)\b"
)


@dataclass(frozen=True)
class Process:
    """A process that uses a GPU. memory: bytes. kind: C (compute), G (graphics), C+G, "" unknown.

    owner: the service it belongs to, "foreign" for none of ours, "" where nobody asked.
    """

    pid: int
    name: str
    memory: int | None = None
    kind: str = ""
    owner: str = ""


@dataclass(frozen=True)
class Instance:
    """A MIG device. gi, ci: numbers of its GPU instance and compute instance; bytes."""

    index: int
    gi: int | None
    ci: int | None
    memory_total: int | None = None
    memory_used: int | None = None
    profile: str | None = None


@dataclass(frozen=True)
class Clocks:
    """MHz."""

    graphics: int | None = None
    memory: int | None = None


@dataclass(frozen=True)
class Power:
    """Watt. minimum and maximum bound what the limit may be set to."""

    draw: float | None = None
    limit: float | None = None
    default: float | None = None
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Link:
    """The PCIe link now, and the most that card and slot can do together."""

    generation: int | None = None
    width: int | None = None
    max_generation: int | None = None
    max_width: int | None = None


@dataclass(frozen=True)
class Ecc:
    """Error correction: now, after a reboot, and errors since the driver was loaded."""

    current: bool | None = None
    pending: bool | None = None
    corrected: int | None = None
    uncorrected: int | None = None


@dataclass(frozen=True)
class Mig:
    """MIG mode now and after a reset or reboot, and the instances that are there."""

    current: bool | None = None
    pending: bool | None = None
    instances: tuple[Instance, ...] = ()


@dataclass(frozen=True)
class Xid:
    """An error of a GPU in the kernel log. bus: such as 0000:61:00."""

    bus: str
    number: int
    text: str


@dataclass(frozen=True)
class Gpu:
    """One GPU. Sizes in bytes, temperature in degrees Celsius, utilization in percent.

    bus: PCI address as the driver prints it. reasons: why clocks are below what was asked for.
    application_clocks: as set with nvidia-smi -ac; a lock set with -lgc is not told by the driver.
    """

    index: int
    uuid: str
    name: str
    bus: str = ""
    brand: str | None = None
    memory_total: int | None = None
    memory_used: int | None = None
    bar1: int | None = None
    utilization: int | None = None
    temperature: int | None = None
    power: Power = Power()
    clocks: Clocks = Clocks()
    max_clocks: Clocks = Clocks()
    application_clocks: Clocks = Clocks()
    link: Link = Link()
    ecc: Ecc = Ecc()
    mig: Mig = Mig()
    reasons: tuple[str, ...] = ()
    compute_mode: str | None = None
    persistence: bool | None = None
    state: str | None = None
    processes: tuple[Process, ...] = ()

    @property
    def datacentre(self) -> bool:
        """Whether its name is that of a data-centre card."""
        return self.brand == "Tesla" or bool(_DATACENTRE.search(self.name))

    @property
    def geforce(self) -> bool:
        """Whether it is a consumer card."""
        return "GeForce" in self.name


@dataclass(frozen=True)
class GpuFacts:
    """All GPUs of a machine. driver, cuda: versions. xids: None when the log may not be read.

    host_total, host_available: main memory in bytes, where it was asked for. note: what hinders.
    """

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    cuda: str | None = None
    xids: tuple[Xid, ...] | None = None
    host_total: int | None = None
    host_available: int | None = None
    note: str = ""

    def memory(self, gpu: Gpu) -> tuple[int | None, int | None]:
        """(total, used) bytes of a GPU; of the machine where the two share one memory."""
        if gpu.memory_total is not None:
            return gpu.memory_total, gpu.memory_used
        if self.host_total is None or self.host_available is None:
            return None, None
        return self.host_total, self.host_total - self.host_available

    def data(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)
