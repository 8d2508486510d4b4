"""All kinds of settings; their order is the order in which changes are made."""

from __future__ import annotations

from inferfleet.hostprep.kinds.cmdline import Cmdline
from inferfleet.hostprep.kinds.containerd import Containerd
from inferfleet.hostprep.kinds.cpu import Cpu
from inferfleet.hostprep.kinds.driver import Driver
from inferfleet.hostprep.kinds.files import Files
from inferfleet.hostprep.kinds.firmware import Firmware
from inferfleet.hostprep.kinds.gpu import Gpu
from inferfleet.hostprep.kinds.hugepages import HugePages
from inferfleet.hostprep.kinds.irq import Irq
from inferfleet.hostprep.kinds.limits import Limits
from inferfleet.hostprep.kinds.memory_guard import MemoryGuard
from inferfleet.hostprep.kinds.module_options import ModuleOptions
from inferfleet.hostprep.kinds.modules import Modules
from inferfleet.hostprep.kinds.mounts import Mounts
from inferfleet.hostprep.kinds.storage import Storage
from inferfleet.hostprep.kinds.swap import Swap
from inferfleet.hostprep.kinds.sysctl import Sysctl
from inferfleet.hostprep.kinds.sysfs import Sysfs
from inferfleet.hostprep.kinds.timesync import Time
from inferfleet.hostprep.kinds.units import Units
from inferfleet.hostprep.setting import Kind

KINDS: dict[str, Kind] = {
    "modules": Modules(),
    "module-options": ModuleOptions(),
    "sysctl": Sysctl(),
    "sysfs": Sysfs(),
    "cmdline": Cmdline(),
    "hugepages": HugePages(),
    "mounts": Mounts(),
    "files": Files(),
    # Before what programs that are to be stopped would set back when they end.
    "units": Units(),
    "time": Time(),
    "limits": Limits(),
    "swap": Swap(),
    "cpu": Cpu(),
    "irq": Irq(),
    "gpu": Gpu(),
    "storage": Storage(),
    "memory-guard": MemoryGuard(),
    "containerd": Containerd(),
    # These two only look.
    "driver": Driver(),
    "firmware": Firmware(),
}
