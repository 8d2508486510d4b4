"""A machine's facts, and the machine file they make."""

from __future__ import annotations

import re
from typing import Any

from inferfleet.errors import FleetError
from inferfleet.gpu.facts import Gpu
from inferfleet.hosts.connect import Reach, open_host, reach_of
from inferfleet.remote import program
from inferfleet.schema.fleet import Fleet


def probe_host(fleet: Fleet, target: str) -> dict[str, Any]:
    """Facts of a machine of the inventory or of user@address[:port]; one round trip.

    Raises FleetError when it cannot be reached.
    """
    if target in fleet.machines:
        reach = reach_of(fleet.machines, target)
    else:
        user, _, address = target.rpartition("@")
        address, _, port = address.partition(":")
        reach = Reach(address, user or None, int(port) if port.isdigit() else None)
    host = open_host(target, reach)
    try:
        result = host.run(program("doctor", root="/opt/inferbase", runtimes=""), timeout=120)
    finally:
        host.close()
    facts: dict[str, Any] = dict(
        line.split("\t", 1) for line in result.out.splitlines() if "\t" in line
    )
    if "arch" not in facts:
        raise FleetError(f"{target}: reading its facts failed: {result.err.strip()[:200]}")
    facts["hardware"] = match_hardware(fleet, facts)
    return {
        "target": target, "address": reach.address, "login": reach.user, "port": reach.port,
        **facts, "profiles": match_profiles(fleet, facts),
    }  # fmt: skip


def match_hardware(fleet: Fleet, facts: dict[str, Any]) -> str | None:
    """The hardware file whose GPU name is in nvidia-smi's; cpu when there is no GPU.

    None where there is one that is not known, or whose driver does not answer.
    """
    gpu = str(facts.get("gpu", ""))
    for name, hardware in sorted(fleet.hardware.items()):
        if gpu and hardware.gpu and any(text in gpu for text in hardware.gpu.match):
            return name
    if not gpu and not facts.get("gpu-trouble") and "cpu" in fleet.hardware:
        return "cpu"
    return None


def match_profiles(fleet: Fleet, facts: dict[str, Any]) -> list[str]:
    """Profiles of host preparation for what was found, of those that there are."""
    hardware = fleet.hardware.get(facts["hardware"] or "")
    gpus = [Gpu(0, "", line.split(",")[0].strip()) for line in str(facts.get("gpu", "")).split(";")]
    found = ["inference"]
    if hardware is not None and hardware.unified:
        found.append("unified-memory")
    elif any(gpu.geforce for gpu in gpus):
        found.append("nvidia-workstation")
    elif any(gpu.datacentre for gpu in gpus):
        found.append("nvidia-datacenter")
    return [name for name in found if name in fleet.profiles]


def machine_file(fleet: Fleet, facts: dict[str, Any]) -> str:
    """A machine file to begin with; what was seen stands in its comments."""
    import yaml

    name = re.sub(r"[^a-z0-9-]", "-", str(facts.get("host", "machine")).lower())
    body: dict[str, Any] = {"summary": f"{facts.get('os', '')}, {facts.get('arch')}".strip(", ")}
    if facts["address"]:
        body["address"] = facts["address"]
    if facts["login"]:
        body["user"] = facts["login"]
    if facts["port"]:
        body["port"] = facts["port"]
    if facts["hardware"]:
        body["hardware"] = facts["hardware"]
    if not facts["address"]:
        body["root"] = "~/.local/share/inferbase"
    if facts["profiles"]:
        body["hostprep"] = facts["profiles"]
    body["services"] = {}
    seen = [
        f"# inventory/{name}.yaml, from what was seen on {facts.get('host')}:",
        f"#   cpu      {facts.get('cpus')} x {facts.get('cpu') or facts.get('arch')}",
        f"#   memory   {int(facts.get('memory_kb', 0)) / (1 << 20):.1f} GiB",
        f"#   gpu      {facts.get('gpu') or facts.get('gpu-trouble') or 'none'}",
        f"#   docker   {facts.get('docker', 'none')}, compose {facts.get('compose', 'none')}",
    ]
    if facts["hardware"] is None:
        seen.append("#   hardware not recognised; known: " + ", ".join(sorted(fleet.hardware)))
    return "\n".join(seen) + "\n" + yaml.safe_dump(body, sort_keys=False)
