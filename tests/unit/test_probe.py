"""What a machine's facts say of its hardware and of the profiles that prepare it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from inferfleet.gpu.facts import Gpu
from inferfleet.hostprep.merge import wanted_settings
from inferfleet.load.load import load_fleet
from inferfleet.operations.probe import machine_file, match_hardware, match_profiles
from inferfleet.paths import find_roots
from inferfleet.schema.fleet import Fleet
from inferfleet.schema.machine import Machine


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return load_fleet(find_roots(None))


def facts(fleet: Fleet, gpu: str | None, **more: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "target": "box", "address": "10.0.0.4", "login": "me", "port": None, "host": "Box.local",
        "arch": "x86_64", "os": "Debian", "cpus": "4", "memory_kb": "16000000", **more,
    }  # fmt: skip
    if gpu is not None:
        found["gpu"] = gpu
    found["hardware"] = match_hardware(fleet, found)
    return {**found, "profiles": match_profiles(fleet, found)}


@pytest.mark.parametrize(
    ("gpu", "hardware", "profiles"),
    [
        (None, "cpu", ["inference"]),
        ("NVIDIA GB10, 580.95.05, [N/A]", "dgx-spark", ["inference", "unified-memory"]),
        ("NVIDIA GeForce RTX 5090, 580.95.05, 32607 MiB", "rtx-5090",
         ["inference", "nvidia-workstation"]),
        ("NVIDIA GeForce RTX 4090, 560.1, 24564 MiB", None, ["inference", "nvidia-workstation"]),
        ("NVIDIA H100 NVL, 550.1, 95830 MiB;NVIDIA H100 NVL, 550.1, 95830 MiB", "h100-nvl",
         ["inference", "nvidia-datacenter"]),
        ("Tesla T4, 515.105.01, 15360 MiB", "tesla-t4", ["inference", "nvidia-datacenter"]),
        ("NVIDIA RTX A6000, 550.1, 49140 MiB", None, ["inference"]),
    ],
)  # fmt: skip
def test_hardware_and_profiles(
    fleet: Fleet, gpu: str | None, hardware: str | None, profiles: list[str]
) -> None:
    found = facts(fleet, gpu)
    assert (found["hardware"], found["profiles"]) == (hardware, profiles)
    written = yaml.safe_load(machine_file(fleet, found))
    machine = Machine.model_validate(written)
    assert machine.hostprep is not None
    assert machine.hostprep.profiles == profiles
    assert wanted_settings(fleet.profiles, machine.hostprep)[1] == []


def test_a_driver_that_fails_is_not_taken_for_no_gpu(fleet: Fleet) -> None:
    found = facts(fleet, None, **{"gpu-trouble": "Driver/library version mismatch"})
    assert found["hardware"] is None
    assert "version mismatch" in machine_file(fleet, found)


@pytest.mark.parametrize(
    ("name", "datacentre"),
    [("NVIDIA A10G", True), ("NVIDIA L40S", True), ("NVIDIA A100-SXM4-40GB", True),
     ("Quadro P400", False), ("NVIDIA T400", False), ("NVIDIA RTX 6000 Ada Generation", False),
     ("NVIDIA GeForce RTX 3060", False), ("NVIDIA GB10", False)],
)  # fmt: skip
def test_data_centre_cards_by_name(name: str, datacentre: bool) -> None:
    assert Gpu(0, "", name).datacentre == datacentre
