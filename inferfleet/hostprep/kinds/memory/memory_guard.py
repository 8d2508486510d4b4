"""Against full memory where CPU and GPU share it: a floor that is watched, caches given back.

The kernel's own out-of-memory killer sees too late what a GPU driver takes, and such machines
hang. earlyoom keeps the floor where it is installed, else a small watch of our own does.
"""

from __future__ import annotations

from typing import Any

from inferfleet.hostprep.facts import Facts, Look
from inferfleet.hostprep.setting import Change, Finding, Ground, Judgement, Wanted
from inferfleet.hostprep.steps import PutFile, Run
from inferfleet.remote import program

UNIT = "inferbase-memory-guard.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
WANTS = f"/etc/systemd/system/multi-user.target.wants/{UNIT}"
SCRIPT = "/usr/local/lib/inferbase/memory-guard.sh"
EARLYOOM = "/usr/bin/earlyoom"
EARLYOOM_UNIT = "earlyoom.service"
DROP_IN = f"/etc/systemd/system/{EARLYOOM_UNIT}.d/90-inferbase.conf"
EARLYOOM_WANTS = f"/etc/systemd/system/multi-user.target.wants/{EARLYOOM_UNIT}"
# Names as /proc/PID/comm has them, 15 characters: what serves models here.
ENGINES = ("llama-server", "vllm", "VLLM::", "ollama", "sglang", "tritonserver",
           "text-generation", "ray::")  # fmt: skip
MEMINFO = "/proc/meminfo"
_HEAD = "# Made by inferbase; `invoke hostprep.rollback` takes it away.\n"
# Starts what is there and stops what is not, so that it serves the way there and the way back.
_CONVERGE = (
    f"if [ -e {UNIT_FILE} ]; then systemctl enable --quiet --no-reload {UNIT} && "
    f"systemctl restart {UNIT}; else systemctl stop {UNIT} 2>/dev/null; rm -f {WANTS}; fi"
)
_AFTER = ("sh", "-c", _CONVERGE)
_EARLYOOM_AFTER = ("systemctl", "try-restart", EARLYOOM_UNIT)
_SERVICE = f"""\
{_HEAD}[Unit]
Description=keeps a floor of free memory by ending the largest inference process (inferbase)

[Service]
ExecStart=/bin/sh {SCRIPT}
Restart=always
RestartSec=5
OOMScoreAdjust=-1000
Nice=-20
MemoryLow=16M
TasksMax=16
UMask=0077
CapabilityBoundingSet=CAP_KILL
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateNetwork=yes
PrivateIPC=yes
DevicePolicy=closed
DeviceAllow=char-nvidia rw
DeviceAllow=char-nvidia-frontend rw
DeviceAllow=char-nvidiactl rw
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
KeyringMode=private
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


def _signs(unit: str) -> tuple[str, str]:
    """Where systemd has the control group of a unit that runs (cgroup v2, v1)."""
    folder = f"system.slice/{unit}"
    return f"/sys/fs/cgroup/{folder}", f"/sys/fs/cgroup/systemd/{folder}"


class MemoryGuard:
    """The kind `memory-guard`."""

    def look(self, ground: Ground) -> Look:
        ours = (SCRIPT, UNIT_FILE, DROP_IN)
        if not ground.of("memory-guard"):
            return Look(ours)
        stats = (EARLYOOM, EARLYOOM_WANTS, WANTS, *_signs(UNIT), *_signs(EARLYOOM_UNIT))
        return Look((*ours, MEMINFO), stats=stats)

    def judge(self, ground: Ground, facts: Facts) -> Judgement:
        wanted = {one.key: one for one in ground.of("memory-guard")}
        findings = []
        floor = wanted.get("floor")
        trouble = _too_high(floor.value, facts) if floor else ""
        kept = floor.value if floor and not trouble else None
        early = EARLYOOM in facts.stats
        files = (
            PutFile(SCRIPT, _script(kept) if kept and not early else None, after=_AFTER),
            PutFile(UNIT_FILE, _SERVICE if kept and not early else None, after=_AFTER, reload=True),
            PutFile(
                DROP_IN,
                _drop_in(kept) if kept and early else None,
                after=_EARLYOOM_AFTER,
                reload=True,
            ),
        )
        changes: tuple[Change, ...] = ()
        if floor and trouble:
            findings.append(Finding(floor, "-", "-", "unsupported", trouble))
        elif floor:
            written = all(facts.text(file.path) == file.content for file in files)
            unit, wants = (EARLYOOM_UNIT, EARLYOOM_WANTS) if early else (UNIT, WANTS)
            runs = any(sign in facts.stats for sign in _signs(unit))
            enabled = wants in facts.stats
            changes = _changes(floor, unit, runs, enabled, written and not early)
            live = f"{floor.value >> 20} MiB ({unit})" if runs and written else "-"
            persisted = live if written and enabled else "-"
            good = written and runs and enabled
            findings.append(Finding(floor, live, persisted, "ok" if good else "differs"))
        drop = wanted.get("drop-caches")
        if drop:
            how = "before each start" if drop.value else "never"
            findings.append(Finding(drop, how, how, "ok"))
        return Judgement(tuple(findings), files, changes)


def _changes(
    floor: Wanted, unit: str, runs: bool, enabled: bool, written: bool
) -> tuple[Change, ...]:
    """To run and to be started at boot, where a written file does not see to it already."""
    if unit == UNIT and not written:
        return ()
    if runs and enabled:
        return ()
    do = (Run(("systemctl", "enable", "--quiet", "--now", unit)),)
    undo: list[Run] = []
    if not runs:
        undo.append(Run(("systemctl", "stop", unit)))
    if not enabled:
        undo.append(Run(("systemctl", "disable", "--quiet", unit)))
    words = " and ".join(
        word for word, wrong in (("started", not runs), ("enabled", not enabled)) if wrong
    )
    return (Change((floor.name,), f"{unit} {words}", do, tuple(undo)),)


def _too_high(floor: int, facts: Facts) -> str:
    """Why a floor cannot be kept on this machine, "" when it can or nobody knows."""
    for line in (facts.text(MEMINFO) or "").splitlines():
        key, _, rest = line.partition(":")
        words = rest.split()
        if key == "MemTotal" and words and words[0].isdigit() and floor * 2 > int(words[0]) << 10:
            return f"a floor above half of the memory ({int(words[0]) >> 10} MiB) ends everything"
    return ""


def _drop_in(floor: int) -> str:
    prefer = "|".join(ENGINES)
    # -s 100: whatever the swap; -r 3600: a report an hour. KiB; the second number: SIGKILL.
    return (
        f"{_HEAD}[Service]\nExecStart=\nExecStart={EARLYOOM} -M {floor >> 10},{floor >> 11} "
        f"-s 100 -r 3600 --prefer ^({prefer})\n"
    )


def _script(floor: int) -> str:
    values: dict[str, Any] = {"floor": floor >> 10, "engines": " ".join(ENGINES)}
    return _HEAD + program("memory-guard", **values)
