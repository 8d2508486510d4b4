"""A profile: hostprep/NAME.yaml, settings of the host; and what a machine file says of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from inferfleet.schema.fields import Cpuset, Merge, Model, Name, Size, Text
from inferfleet.schema.words import (
    Clocks,
    FileMode,
    GpuNumber,
    Line,
    MigProfile,
    Module,
    Owner,
    Parameter,
    Percent,
    PlainPath,
    SysctlKey,
    SysPath,
    UnitName,
    Version,
    Watt,
    Word,
)


class HostFile(Model):
    """A file of the host."""

    content: Text = Field(description="Its whole text; its last line gets a line break.")
    mode: FileMode = Field(default="0644", description="Its permissions, in quotes.")
    after: list[Text] = Field(
        default=[], description="Program with arguments (no shell) that must follow a change."
    )


class Mount(Model):
    """A file system that is mounted at every start."""

    what: Line = Field(description="Device, or the type's name where there is none.")
    type: Word = Field(description="File system type, such as hugetlbfs.")
    options: Word | None = Field(default=None, description="Mount options, such as pagesize=2M.")


class Swap(Model):
    """Swap space."""

    active: bool | None = Field(
        default=None, description="false: none is in use, now and after a start."
    )
    zram: Annotated[Size, Field(gt=0)] | None = Field(
        default=None, description="Size of compressed swap in memory, the only swap then."
    )


class CpuSettings(Model):
    """Frequency, idle states and hardware threads of the processor."""

    governor: Word | None = Field(default=None, description="cpufreq governor of every CPU.")
    energy_preference: Word | None = Field(
        default=None, description="Energy performance preference (EPP) of every CPU."
    )
    max_idle_latency: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Idle states that take longer to leave than this many microseconds are off.",
    )
    smt: bool | None = Field(
        default=None, description="Whether cores run two hardware threads; for all cores."
    )
    single_thread: Cpuset | None = Field(
        default=None, description="CPUs whose sibling hardware threads are taken off line."
    )


class Limits(Model):
    """Resource limits of logins and of services that set none themselves."""

    memlock: Size | Literal["infinity"] | None = Field(
        default=None, description="Memory that a process may lock, or infinity."
    )
    nofile: Annotated[int, Field(ge=1024)] | None = Field(
        default=None, description="Files that a process may have open."
    )


class GpuSettings(Model):
    """NVIDIA GPUs, all of the machine alike but for MIG."""

    persistence: bool | None = Field(
        default=None, description="Whether the driver stays loaded, by nvidia-persistenced."
    )
    clocks: Clocks | None = Field(
        default=None, description="Range that the GPU clock is locked to, in MHz."
    )
    memory_clocks: Clocks | None = Field(
        default=None, description="Range that the memory clock is locked to, in MHz."
    )
    power_limit: Watt | None = Field(
        default=None, description="Watt; held within what the card itself allows."
    )
    compute_mode: Literal["default", "exclusive-process", "prohibited"] | None = Field(
        default=None, description="How many processes may use a GPU."
    )
    ecc: bool | None = Field(default=None, description="Error correction of the GPU memory.")
    mig: dict[GpuNumber, list[MigProfile]] | None = Field(
        default=None, description="MIG instances of each GPU; an empty list: MIG off."
    )
    uvm: bool | None = Field(
        default=None, description="Whether nvidia_uvm is loaded and its devices made at boot."
    )


class DriverSettings(Model):
    """What must be installed for GPUs; checked, never installed."""

    driver: Version | None = Field(default=None, description="Oldest driver.")
    cuda: Version | None = Field(default=None, description="Oldest CUDA that the driver brings.")
    open_modules: bool | None = Field(
        default=None, description="Whether the driver's open kernel modules must be in use."
    )
    container_toolkit: Version | None = Field(
        default=None, description="Oldest NVIDIA Container Toolkit."
    )
    cdi: bool | None = Field(
        default=None, description="A CDI specification that is there and not stale."
    )


class Storage(Model):
    """A directory of the storage layout."""

    owner: Owner | None = Field(default=None, description="User it belongs to.")
    group: Owner | None = Field(default=None, description="Group it belongs to.")
    mode: FileMode | None = Field(default=None, description="Its permissions, in quotes.")
    mount: bool = Field(
        default=False, description="It lies on a mounted disk of its own, not the root disk."
    )
    min_free: Size | Percent | None = Field(
        default=None, description="Space that should stay free there: a size, or a share as 10%."
    )


class MemoryGuard(Model):
    """What keeps a machine alive whose CPU and GPU share one memory."""

    floor: Size | None = Field(
        default=None, description="Free memory below which the largest process is ended."
    )
    drop_caches: bool | None = Field(
        default=None, description="Give the page cache back before a service is started."
    )


class Firmware(Model):
    """What the firmware decides; read as far as the system shows it, never written."""

    pcie_generation: Annotated[int, Field(ge=1, le=7)] | None = Field(
        default=None, description="PCIe generation of every GPU's link."
    )
    pcie_width: Annotated[int, Field(ge=1, le=32)] | None = Field(
        default=None, description="Lanes of every GPU's link."
    )
    resizable_bar: bool | None = Field(
        default=None, description="The GPU's whole memory is mapped (BAR1)."
    )
    above_4g: bool | None = Field(default=None, description="BARs lie above 4 GiB.")
    memory_speed: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Configured speed of the memory, MT/s."
    )
    idle_states: bool | None = Field(default=None, description="C-states in the firmware.")
    smt: bool | None = Field(default=None, description="Two hardware threads for each core.")
    virtualization: bool | None = Field(default=None, description="VT-x or AMD-V.")


class Containerd(Model):
    """containerd as Kubernetes needs it, edited into its own default configuration."""

    systemd_cgroup: bool | None = Field(
        default=None, description="runc puts containers into systemd's cgroups."
    )
    nvidia_runtime: bool | None = Field(
        default=None, description="nvidia is a runtime, and the default one."
    )


class Settings(Model):
    """Settings of the host, by kind."""

    sysctl: dict[SysctlKey, int | Text] = Field(
        default={}, description="Kernel settings below /proc/sys."
    )
    sysfs: dict[SysPath, int | Text] = Field(
        default={}, description="Values in /sys, written again at every start."
    )
    modules: dict[Module, Literal["loaded", "blocked"]] = Field(
        default={}, description="Kernel modules."
    )
    module_options: dict[Module, Line] = Field(
        default={}, description="Options of kernel modules, as modprobe.d writes them."
    )
    cmdline: dict[Parameter, bool | int | Word] = Field(
        default={}, description="Kernel command line; true: the name alone, false: not there."
    )
    units: dict[UnitName, Literal["running", "stopped", "masked"]] = Field(
        default={}, description="systemd units, now and at every start."
    )
    files: dict[PlainPath, HostFile] = Field(default={}, description="Files with their text.")
    hugepages: dict[Literal["2M", "1G"], Annotated[int, Field(ge=0)]] = Field(
        default={}, description="How many huge pages of a size are kept."
    )
    mounts: dict[PlainPath, Mount] = Field(default={}, description="File systems.")
    swap: Swap | None = Field(default=None, description="Swap space.")
    cpu: CpuSettings | None = Field(default=None, description="The processor.")
    irq: dict[Word, Cpuset] = Field(
        default={},
        description="CPUs that take the interrupts whose name in /proc/interrupts has this word.",
    )
    limits: Limits | None = Field(default=None, description="Resource limits.")
    time: dict[Literal["synchronized"], bool] = Field(default={}, description="The clock.")
    gpu: GpuSettings | None = Field(default=None, description="NVIDIA GPUs.")
    driver: DriverSettings | None = Field(default=None, description="NVIDIA software.")
    storage: dict[PlainPath, Storage] = Field(default={}, description="Directories of disks.")
    memory_guard: MemoryGuard | None = Field(default=None, description="Against full memory.")
    firmware: Firmware | None = Field(default=None, description="Firmware settings, read only.")
    containerd: Containerd | None = Field(default=None, description="The container runtime.")


class Group(Settings):
    """Settings that share one reason."""

    why: Text = Field(description="The reason, in one line.")
    source: Text = Field(description="Where it comes from.")
    cost: Text | None = Field(
        default=None,
        description="What it takes away; only machines that `accept` the setting get it.",
    )
    example: bool = Field(
        default=False,
        description="The values are examples: a machine that accepts one writes its own.",
    )


class Profile(Model):
    """Settings of the host that machines share; its name is the file's name."""

    summary: Text = Field(description="One line on what it is for.")
    merge: Merge = True
    settings: list[Group] = Field(description="Groups of settings, each with its reason.")


class HostPrep(Settings):
    """How a machine's host is prepared: profiles, and settings that win over theirs."""

    profiles: list[Name] = Field(default=[], description="Names of files in hostprep/.")
    accept: list[Text] = Field(
        default=[],
        description="Settings of the profiles that have a cost, such as cmdline.isolcpus, "
        "taken all the same.",
    )
    leave: list[Text] = Field(
        default=[], description="Settings of the profiles that this machine does not take."
    )
