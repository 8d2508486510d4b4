"""What is missing, here and on a machine: each finding with its remedy."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from importlib import util
from pathlib import Path

from inferfleet.paths import PACKAGE, mounts
from inferfleet.remote import program
from inferfleet.run.session import Session

PASS, WARN, FAIL, UNKNOWN = "ok", "warn", "fail", "unknown"
CLOCK_SKEW_SECONDS = 30
LOW_DISK_KB = 5 << 20


@dataclass(frozen=True)
class Finding:
    """verdict: ok, warn, fail, or unknown where it cannot be told; remedy: what to do."""

    machine: str
    check: str
    verdict: str
    detail: str
    remedy: str = ""


def check_here() -> list[Finding]:
    """The operator's side; needs no connection."""
    here = "(here)"
    version = ".".join(map(str, sys.version_info[:3]))
    found = [Finding(here, "python", PASS, version), _engine(here, Path.cwd())]
    engine = util.find_spec("xllamacpp") is not None
    found.append(
        Finding(here, "xllamacpp", PASS, "installed")
        if engine
        else Finding(
            here, "xllamacpp", WARN, "not installed: the default machine `local` cannot serve",
            "pip install 'inferbase[local]', or in a checkout pip install -e '.[local]'",
        )
    )  # fmt: skip
    git = shutil.which("git")
    found.append(
        Finding(
            here, "git", PASS if git else WARN, git or "not found", "" if git else "install git"
        )
    )
    hosts = Path.home() / ".ssh" / "known_hosts"
    found.append(
        Finding(here, "known_hosts", PASS, str(hosts))
        if hosts.exists()
        else Finding(
            here, "known_hosts", WARN, f"{hosts} does not exist: every remote machine is unknown",
            "connect once with ssh and compare the fingerprint",
        )
    )  # fmt: skip
    return found


def _engine(here: str, folder: Path) -> Finding:
    """Whether the engine that runs is the one that the folder's project has mounted."""
    detail = str(PACKAGE.parent)
    for mount in mounts(folder):
        if mount != PACKAGE.parent:
            what = f"{detail}, but this project mounts {mount}"
            return Finding(here, "engine", FAIL, what, f"pip install -e {mount}")
    return Finding(here, "engine", PASS, detail)


def check_machine(session: Session) -> list[Finding]:
    """The machine's side, one round trip. Raises FleetError when it cannot be reached."""
    import time

    runtimes = {unit.runtime for unit in session.release.units.values()}
    needs_gpu = any(unit.gpu for unit in session.release.units.values())
    script = program("doctor", root=session.release.root, runtimes=" ".join(sorted(runtimes)))
    before = time.time()
    result = session.host.run(script, sudo=session.sudo, timeout=120)
    facts = dict(line.split("\t", 1) for line in result.out.splitlines() if "\t" in line)
    name = session.host.name
    found = [_clock(name, facts.get("now", ""), (before + time.time()) / 2), _disk(name, facts)]
    if "compose" in runtimes:
        found += _docker(name, facts)
    if "systemd" in runtimes:
        found.append(_systemd(name, facts))
    found.append(_gpu(name, facts, needs_gpu))
    if facts.get("removeipc") == "yes" and "systemd" in runtimes:
        found.append(
            Finding(
                name, "RemoveIPC", WARN, "logind removes shared memory at logout",
                "set RemoveIPC=no in /etc/systemd/logind.conf",
            )
        )  # fmt: skip
    return found


def _clock(name: str, now: str, here: float) -> Finding:
    if not now.isdigit():
        return Finding(name, "clock", UNKNOWN, "the machine's time could not be read")
    skew = abs(int(now) - here)
    if skew > CLOCK_SKEW_SECONDS:
        return Finding(
            name, "clock", WARN, f"{skew:.0f} s apart from here", "set up time sync there"
        )
    return Finding(name, "clock", PASS, "agrees with here")


def _disk(name: str, facts: dict[str, str]) -> Finding:
    free = facts.get("free_kb", "")
    if not free.isdigit():
        return Finding(name, "disk", UNKNOWN, "free space could not be read")
    gib = int(free) / (1 << 20)
    place = facts.get("near", "")
    if int(free) < LOW_DISK_KB:
        return Finding(name, "disk", WARN, f"{gib:.1f} GiB free on {place}", "free some space")
    return Finding(name, "disk", PASS, f"{gib:.0f} GiB free on {place}")


def _docker(name: str, facts: dict[str, str]) -> list[Finding]:
    from inferfleet.plan.details import REMEDIES

    found = []
    for tool in ("docker", "compose"):
        version, trouble = facts.get(tool, ""), facts.get(f"{tool}-trouble", "")
        if version:
            found.append(Finding(name, tool, PASS, version))
        else:
            found.append(Finding(name, tool, FAIL, trouble or "not installed", REMEDIES[tool]))
    engine = facts.get("docker", "").partition(".")[0]
    if engine.isdigit() and int(engine) < 28:
        found.append(
            Finding(
                name, "docker version", WARN,
                "before 28, ports published on 127.0.0.1 can be reached from the same network",
                "install Docker Engine 28 or newer",
            )
        )  # fmt: skip
    return found


def _systemd(name: str, facts: dict[str, str]) -> Finding:
    from inferfleet.plan.details import REMEDIES

    if facts.get("systemd") == "yes" and facts.get("uid") == "0":
        return Finding(name, "systemd", PASS, facts.get("systemd-version", "runs"))
    what = "not root" if facts.get("systemd") == "yes" else "does not run"
    return Finding(name, "systemd", FAIL, what, REMEDIES["systemd"])


def _gpu(name: str, facts: dict[str, str], needed: bool) -> Finding:
    gpu, trouble = facts.get("gpu", ""), facts.get("gpu-trouble", "")
    if gpu:
        return Finding(name, "gpu", PASS, gpu)
    if needed:
        return Finding(
            name, "gpu", FAIL, trouble or "nvidia-smi is not installed",
            "install the NVIDIA driver and nvidia-container-toolkit 1.18 or newer",
        )  # fmt: skip
    return Finding(name, "gpu", PASS, "none, and none is needed")
