"""What a start of the machine must do again: lines of other kinds, run by a unit of ours."""

from __future__ import annotations

from collections.abc import Iterable

from inferfleet.hostprep.facts import Facts, Look
from inferfleet.hostprep.setting import Change, Judgement
from inferfleet.hostprep.steps import PutFile, Run

SCRIPT = "/usr/local/lib/inferbase/boot.sh"
UNIT = "inferbase-hostprep.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
WANTS = f"/etc/systemd/system/multi-user.target.wants/{UNIT}"
RELOAD = ("systemctl", "daemon-reload")
# Reads units anew, too, and systemd's own configuration.
REEXEC = ("systemctl", "daemon-reexec")
# Services start after it, so that they find the clocks, limits and GPU instances they need.
_UNIT = f"""\
# Made by inferbase; `invoke hostprep.rollback` takes it away.
[Unit]
Description=settings that a start of the machine loses (inferbase)
After=nvidia-persistenced.service systemd-modules-load.service irqbalance.service
Before=docker.service containerd.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh {SCRIPT}
TimeoutStartSec=300
ProtectHome=yes
ProtectSystem=full
PrivateTmp=yes
PrivateNetwork=yes
NoNewPrivileges=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
RestrictNamespaces=yes
LockPersonality=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
# Programs of graphics drivers need the rest: devices, modules, /proc/irq, /sys.
CapabilityBoundingSet=~CAP_SYS_TIME CAP_SYS_PTRACE CAP_SYS_CHROOT CAP_SYS_BOOT CAP_SYS_PACCT
CapabilityBoundingSet=~CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE CAP_NET_BROADCAST
CapabilityBoundingSet=~CAP_SETUID CAP_SETGID CAP_SETPCAP CAP_SETFCAP CAP_MAC_ADMIN CAP_MAC_OVERRIDE
CapabilityBoundingSet=~CAP_AUDIT_CONTROL CAP_AUDIT_READ CAP_AUDIT_WRITE CAP_SYSLOG CAP_BPF
CapabilityBoundingSet=~CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_LEASE CAP_LINUX_IMMUTABLE CAP_KILL
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @debug @obsolete @reboot @mount
RestrictAddressFamilies=AF_UNIX

[Install]
WantedBy=multi-user.target
"""


def look() -> Look:
    """The files of this module."""
    return Look((SCRIPT, UNIT_FILE, WANTS))


def judge(lines: Iterable[str], facts: Facts) -> Judgement:
    """The script with these lines of sh and its unit; neither when there are none."""
    body = "".join(f"{line}\n" for line in lines)
    script = None
    if body:
        script = (
            "# Made by inferbase: settings that a start loses. A line that fails stops none of\n"
            f'# the others; the unit fails then.\nfailed=0\ntry() {{ "$@" || failed=1; }}\n{body}'
            "exit $failed\n"
        )
    files = (
        PutFile(SCRIPT, script, 0o755),
        PutFile(UNIT_FILE, _UNIT if body else None, after=RELOAD),
    )
    enabled = facts.text(WANTS) is not None
    changes: tuple[Change, ...] = ()
    if bool(body) != enabled:
        on, off = Run(("ln", "-sfn", UNIT_FILE, WANTS)), Run(("rm", "-f", WANTS))
        do, undo = (on, off) if body else (off, on)
        text = "enabled at every start" if body else "disabled"
        changes = (Change((UNIT,), text, (do,), (undo,)),)
    return Judgement((), files, changes)
