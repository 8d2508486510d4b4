"""Compressed swap space in memory: a device of our own, made again at every start by a unit."""

from __future__ import annotations

import re
from collections.abc import Iterator

from inferfleet.hostprep.facts import Facts
from inferfleet.hostprep.kinds import back
from inferfleet.hostprep.kinds.boot import RELOAD
from inferfleet.hostprep.kinds.kernel.sysfs import HEAD
from inferfleet.hostprep.kinds.memory.swaps import Space, spaces
from inferfleet.hostprep.setting import Change
from inferfleet.hostprep.steps import PutFile, Run, Step, Write

SCRIPT = "/usr/local/lib/inferbase/zram.sh"
UNIT = "inferbase-zram.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
# swap.target comes before what every service waits for, so it cannot wait for a service.
DROP_IN = "/etc/systemd/system/multi-user.target.d/90-inferbase-zram.conf"
# The device that the script made; /run is empty after a start, and so are the devices.
DEVICE = "/run/inferbase/zram"
MODULE = "/sys/module/zram"
# Above every swap space whose priority the kernel chose itself (those are negative).
PRIORITY = 100
FILES = (SCRIPT, UNIT_FILE, DROP_IN)

# Nothing here that gives it mounts of its own (ProtectSystem, PrivateTmp, PrivateNetwork): the
# kernel would then name its swap space /zram1 in /proc/swaps, where nobody finds it again.
_LESS = """\
NoNewPrivileges=yes
CapabilityBoundingSet=CAP_SYS_ADMIN CAP_SYS_MODULE
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
"""
_SCRIPT = f"""\
#!/bin/sh
# Made by inferbase: compressed swap space in memory; start BYTES, or stop.
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
case $1 in
  start)
    modprobe zram
    number=$(cat /sys/class/zram-control/hot_add)
    mkdir -p {DEVICE.rpartition("/")[0]}
    echo "/dev/zram$number" >{DEVICE}
    echo "$2" >"/sys/block/zram$number/disksize"
    mkswap "/dev/zram$number" >/dev/null
    swapon -p {PRIORITY} "/dev/zram$number"
    ;;
  stop)
    [ -e {DEVICE} ] || exit 0
    device=$(cat {DEVICE})
    if grep -q "^$device " /proc/swaps; then swapoff "$device"; fi
    echo "${{device#/dev/zram}}" >/sys/class/zram-control/hot_remove
    rm {DEVICE}
    ;;
esac
"""
# Swap space on a device that was emptied, unless it is still in use.
AGAIN = (
    'grep -q "^$1 " /proc/swaps || '
    f'{{ echo "$3" >"$2/disksize" && mkswap "$1" >/dev/null && swapon -p {PRIORITY} "$1"; }}'
)


def ours(facts: Facts) -> Space | None:
    """Our swap space, when it is in use."""
    device = facts.value(DEVICE)
    return next((space for space in spaces(facts) if space.path == device), None)


def size_kept(facts: Facts) -> int | None:
    """Bytes that the next start of the machine makes; None for none."""
    found = re.search(r"^ExecStart=.* start ([0-9]+)$", facts.text(UNIT_FILE) or "", re.MULTILINE)
    wanted = f"Wants={UNIT}" in (facts.text(DROP_IN) or "").splitlines()
    return int(found[1]) if found and wanted and facts.text(SCRIPT) == _SCRIPT else None


def right(space: Space, size: int) -> bool:
    """Whether it has that many bytes, but for the page that swap space keeps for itself."""
    return 0 <= (size >> 10) - space.size <= 64


def files(size: int | None) -> Iterator[PutFile]:
    """The script, its unit and what starts it, for so many bytes; None: none of them."""
    unit = (
        f"{HEAD}[Unit]\nDescription=compressed swap space in memory (inferbase)\n"
        "\n[Service]\nType=oneshot\nRemainAfterExit=yes\n"
        f"ExecStart=/bin/sh {SCRIPT} start {size}\nExecStop=/bin/sh {SCRIPT} stop\n{_LESS}"
    )
    yield PutFile(SCRIPT, _SCRIPT if size else None, 0o755)
    yield PutFile(UNIT_FILE, unit if size else None, after=RELOAD)
    wants = f"{HEAD}[Unit]\nWants={UNIT}\n"
    yield PutFile(DROP_IN, wants if size else None, after=RELOAD)


def change(name: str, facts: Facts, size: int) -> Change | None:
    """Our device with so many bytes; None when it is there. The script is there before it."""
    space = ours(facts)
    if space and right(space, size):
        return None
    do: list[Step] = []
    undo: list[Step] = [back.script(SCRIPT, "stop")]
    if space:
        do.append(Run(("sh", SCRIPT, "stop")))
        undo.append(Run(("sh", SCRIPT, "start", _bytes(space))))
    elif MODULE not in facts.stats:
        undo.append(back.unload(["zram"]))
    do.append(Run(("sh", SCRIPT, "start", str(size))))
    before = f"{space.size >> 10} MiB" if space else "none"
    return Change((name,), f"{before} -> {size >> 20} MiB", tuple(do), tuple(undo))


def removal(facts: Facts) -> Change | None:
    """Our device away, when nobody wants it any more; its script is gone before that."""
    space = ours(facts)
    if space is None:
        return None
    disk = f"/sys/block/{space.path.removeprefix('/dev/')}"
    undo = Run(("sh", "-c", AGAIN, "inferbase", space.path, disk, _bytes(space)))
    do = (space.off, Write(f"{disk}/reset", "1"))
    return Change((space.path,), "in use -> not in use", do, (undo,))


def _bytes(space: Space) -> str:
    return str((space.size + 4) << 10)
