"""Driver, CUDA, open modules, toolkit, CDI: only looked at, with what to do."""

from __future__ import annotations

from typing import Any

import pytest
from gpu_cases import ground, one, seen

from inferfleet.hostprep.facts import Answer, Facts
from inferfleet.hostprep.kinds.gpu.driver import MODULE, TOOLKIT, Driver, version

DRIVER = Driver()
OPEN = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  "
    "(dvs-builder@U22-I3-B17-02-5)  Tue Sep 23 09:55:41 UTC 2025\n"
    "GCC version:  gcc version 11.4.0 (Ubuntu 11.4.0-1ubuntu1~22.04.2)\n"
)
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.135  Fri Jan 10 20:00:00 UTC 2025\n"
SPEC = """\
cdiVersion: 0.5.0
kind: nvidia.com/gpu
containerEdits:
  mounts:
  - hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05
  - hostPath: /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.95.05
"""


@pytest.mark.parametrize(
    ("key", "value", "hardware", "verdict", "live", "remedy"),
    [
        ("driver", "580", {}, "ok", "580.95.05", ""),
        ("driver", "580.95.05", {}, "ok", "580.95.05", ""),
        ("driver", "580.126", {}, "advice", "580.95.05", "must be 580.126 or newer:"),
        ("driver", "570", {"min-driver": "590"}, "advice", "580.95.05",
         "must be 590 or newer for this hardware"),
        ("cuda", "12.8", {}, "ok", "13.0", ""),
        ("cuda", "12.8", {"min-cuda": "13.1"}, "advice", "13.0", "13.1 or newer for this hardware"),
        ("open-modules", True, {}, "ok", "open", ""),
        ("open-modules", False, {}, "advice", "open", "proprietary"),
        ("open-modules", False, {"open-kernel-modules": "required"}, "ok", "open", ""),
    ],
)  # fmt: skip
def test_versions(
    key: str, value: Any, hardware: Any, verdict: str, live: str, remedy: str
) -> None:
    wanted = ground("driver", {key: value}, gpu=hardware)
    finding = one(DRIVER, wanted, seen("rtx-5090", files={MODULE: OPEN}))
    assert (finding.verdict, finding.live) == (verdict, live)
    assert remedy in finding.remedy
    assert bool(finding.remedy) == bool(remedy)


def test_proprietary_modules() -> None:
    finding = one(
        DRIVER, ground("driver", {"open-modules": True}), seen("tesla-t4", files={MODULE: CLOSED})
    )
    assert (finding.verdict, finding.live) == ("advice", "proprietary")
    assert "open kernel modules" in finding.remedy


def test_a_module_that_does_not_fit_its_libraries_still_tells_its_version() -> None:
    mismatch = Answer(18, "Failed to initialize NVML: Driver/library version mismatch")
    facts = Facts({MODULE: CLOSED}, probes={"nvidia-smi": mismatch})
    assert one(DRIVER, ground("driver", {"driver": "550"}), facts).verdict == "ok"
    finding = one(DRIVER, ground("driver", {"cuda": "12.0"}), facts)
    assert finding.verdict == "absent"
    assert "reboot" in finding.remedy


@pytest.mark.parametrize("key", ["driver", "cuda", "open-modules"])
def test_no_driver(key: str) -> None:
    finding = one(DRIVER, ground("driver", {key: "1" if key != "open-modules" else True}), Facts())
    assert finding.verdict == "absent"
    assert "install the NVIDIA driver" in finding.remedy


@pytest.mark.parametrize(
    ("answer", "verdict", "live"),
    [
        (Answer(0, "NVIDIA Container Toolkit CLI version 1.18.1\ncommit: f2"), "ok", "1.18.1"),
        (Answer(0, "NVIDIA Container Toolkit CLI version 1.17.8\ncommit: f2"), "advice", "1.17.8"),
        (Answer(1, "boom"), "unknown", "-"),
        (None, "absent", "-"),
    ],
)  # fmt: skip
def test_toolkit(answer: Answer | None, verdict: str, live: str) -> None:
    facts = Facts(probes={TOOLKIT: answer} if answer else {})
    finding = one(DRIVER, ground("driver", {"container-toolkit": "1.18"}), facts)
    assert (finding.verdict, finding.live) == (verdict, live)


@pytest.mark.parametrize(
    ("files", "verdict", "live"),
    [
        ({"/etc/cdi/nvidia.yaml": SPEC}, "ok", "/etc/cdi/nvidia.yaml"),
        ({"/var/run/cdi/nvidia.yaml": SPEC}, "ok", "/var/run/cdi/nvidia.yaml"),
        ({"/etc/cdi/nvidia.yaml": SPEC.replace("580.95.05", "580.65.06")}, "advice",
         "/etc/cdi/nvidia.yaml (stale)"),
        ({"/etc/cdi/other.yaml": "kind: example.com/nic\n"}, "absent", "none"),
        ({}, "absent", "none"),
    ],
)  # fmt: skip
def test_cdi(files: dict[str, str], verdict: str, live: str) -> None:
    facts = seen("rtx-5090", files={MODULE: OPEN, **files})
    finding = one(DRIVER, ground("driver", {"cdi": True}), facts)
    assert (finding.verdict, finding.live) == (verdict, live)
    assert ("nvidia-ctk cdi generate" in finding.remedy) == (verdict != "ok")


def test_cdi_not_wanted() -> None:
    wanted = ground("driver", {"cdi": False})
    assert one(DRIVER, wanted, seen("rtx-5090")).verdict == "ok"
    facts = seen("rtx-5090", files={"/etc/cdi/nvidia.yaml": SPEC})
    assert one(DRIVER, wanted, facts).remedy == "remove /etc/cdi/nvidia.yaml"


def test_nothing_is_ever_changed() -> None:
    judgement = DRIVER.judge(ground("driver", {"driver": "999", "cdi": True}), seen("tesla-t4"))
    assert (judgement.files, judgement.changes) == ((), ())
    assert DRIVER.look(ground("driver", {})).probes == {}


@pytest.mark.parametrize(
    ("one_version", "other"),
    [("580.95.05", "580.126"), ("9", "10"), ("1.17.8", "1.18"), ("13.0", "13.0.1")],
)  # fmt: skip
def test_versions_compare_by_number(one_version: str, other: str) -> None:
    assert version(one_version) < version(other)
