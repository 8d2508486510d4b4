"""All kinds of settings; their order is the order in which changes are made."""

from __future__ import annotations

from inferfleet.hostprep.kinds.sysctl import Sysctl
from inferfleet.hostprep.kinds.sysfs import Sysfs
from inferfleet.hostprep.setting import Kind

KINDS: dict[str, Kind] = {
    "sysctl": Sysctl(),
    "sysfs": Sysfs(),
}
