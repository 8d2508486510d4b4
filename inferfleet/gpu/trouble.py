"""Why nvidia-smi or NVML does not answer, and what to do about it; pure."""

from __future__ import annotations

from inferfleet.errors import FleetError

INSTALL = "install the NVIDIA driver of the distribution, then reboot"
_MODULE = (
    "the driver's kernel module is not loaded",
    "see `dmesg | grep -i nvrm`; after a kernel upgrade, rebuild the module (dkms autoinstall)",
)
_RIGHTS = (
    "this user may not ask the driver",
    "set `sudo: true` in the machine file, or let the user open /dev/nvidia*",
)
# What they print -> what it means and what to do; the first that occurs counts.
_KNOWN = {
    "version mismatch": (
        "the driver's libraries are newer than its kernel module",
        "reboot: an upgrade replaced the libraries while the old module was loaded",
    ),
    "couldn't communicate with the nvidia driver": _MODULE,
    "driver not loaded": _MODULE,
    "no devices were found": (
        "the driver finds no GPU that it can drive",
        "a Blackwell card needs the open kernel modules; see `lspci -d 10de:`, `dmesg`",
    ),
    "insufficient permission": _RIGHTS,
    "permission denied": _RIGHTS,
    "gpu is lost": (
        "a GPU has fallen off the bus",
        "power the machine off and on; see `dmesg | grep -i xid`",
    ),
    "unknown error": (
        "the driver does not answer (unknown error)",
        "in a container, recreate it; on a machine, see `dmesg | grep -i xid` and reboot",
    ),
}


def explain(text: str, code: int | None = None) -> FleetError:
    """An error for what nvidia-smi printed when it failed. code: its exit status, None: absent."""
    if code is None:
        return FleetError("nvidia-smi is not installed", hint=INSTALL)
    line = next((one.strip() for one in text.splitlines() if one.strip()), "no output")
    lower = text.lower()
    for words, (what, hint) in _KNOWN.items():
        if words in lower:
            return FleetError(what, hint=hint)
    return FleetError(f"nvidia-smi failed (exit {code}): {line[:200]}", hint=INSTALL)
