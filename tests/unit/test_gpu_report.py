"""Reports of nvidia-smi of several drivers and cards, what is not a report, rows of tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from inferfleet.errors import FleetError
from inferfleet.gpu.facts import MIB, Clocks, Ecc, Gpu, GpuFacts, Link, Power, Process, Xid
from inferfleet.gpu.report import parse_report
from inferfleet.gpu.rows import gpu_rows, notes, process_rows
from inferfleet.gpu.trouble import explain

CASES = Path(__file__).parents[1] / "cases" / "gpu"


def read(case: str) -> GpuFacts:
    return parse_report((CASES / f"{case}.xml").read_text())


def only(case: str) -> Gpu:
    (gpu,) = read(case).gpus
    return gpu


@pytest.mark.parametrize(
    ("case", "driver", "cuda", "name"),
    [
        ("tesla-t4", "515.105.01", "11.7", "Tesla T4"),
        ("a100-mig", "510.47.03", "11.6", "NVIDIA A100-SXM4-40GB"),
        ("h100-nvl", "550.127.06", "12.4", "NVIDIA H100 NVL"),
        ("rtx-5090", "580.95.05", "13.0", "NVIDIA GeForce RTX 5090"),
        ("gb10", "580.126.09", "13.0", "NVIDIA GB10"),
        ("rtx-pro-6000", "590.44.01", "13.1",
         "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition"),
    ],
)  # fmt: skip
def test_versions_and_names(case: str, driver: str, cuda: str, name: str) -> None:
    facts = read(case)
    assert (facts.driver, facts.cuda, facts.gpus[0].name) == (driver, cuda, name)


def test_tesla_t4() -> None:
    gpu = only("tesla-t4")
    assert gpu.uuid == "GPU-d37e67a5-91dd-3774-a5cb-99096249601a"
    assert (gpu.memory_total, gpu.memory_used) == (15360 * MIB, 1032 * MIB)
    assert gpu.power == Power(26.78, 70.0, 70.0, 60.0, 70.0)
    assert gpu.clocks == Clocks(585, 5000)
    assert gpu.max_clocks == Clocks(1590, 5001)
    assert gpu.application_clocks == Clocks(585, 5001)
    assert gpu.link == Link(3, 8, 3, 16)
    assert gpu.ecc == Ecc(True, True, 0, 0)
    assert gpu.persistence is False
    assert gpu.mig.current is None
    assert gpu.processes == (
        Process(675, "/usr/lib/xorg/Xorg", 22 * MIB, "G"),
        Process(5762, "python", 1005 * MIB, "C"),
    )
    assert gpu.datacentre
    assert not gpu.geforce


def test_gb10_has_no_memory_and_no_limit() -> None:
    gpu = only("gb10")
    assert (gpu.memory_total, gpu.memory_used, gpu.bar1) == (None, None, None)
    assert gpu.power == Power(11.36, None, None, None, None)
    assert gpu.max_clocks == Clocks(3003, None)
    assert gpu.ecc == Ecc()
    assert gpu.utilization == 96
    assert gpu.processes[1] == Process(37388, "VLLM::EngineCore", 109832 * MIB, "C")


def test_memory_of_the_machine_stands_for_that_of_gb10() -> None:
    facts = replace(read("gb10"), host_total=120 << 30, host_available=20 << 30)
    (row,) = gpu_rows("spark", facts)
    assert row["memory"] == "100.0 of 120.0 GiB"
    assert row["note"] == "memory is the machine's"
    assert gpu_rows("spark", read("gb10"))[0]["memory"] is None


def test_rtx_5090() -> None:
    gpu = only("rtx-5090")
    assert gpu.power == Power(561.2, 575.0, 575.0, 400.0, 600.0)
    assert gpu.reasons == ("sw power cap",)
    assert gpu.application_clocks == Clocks()
    assert (gpu.bar1 or 0) >= (gpu.memory_total or 0)
    assert gpu.ecc.current is None
    assert gpu.geforce
    assert not gpu.datacentre


def test_h100_counts_memory_errors() -> None:
    gpu = only("h100-nvl")
    assert gpu.ecc == Ecc(True, True, 2, 0)
    assert gpu.power.draw == 64.87
    assert gpu.mig.current is False
    assert gpu.datacentre


def test_mig_devices() -> None:
    gpu = only("a100-mig")
    assert gpu.mig.current is True
    assert [(one.index, one.gi, one.ci) for one in gpu.mig.instances] == [(0, 1, 0), (1, 2, 0)]
    assert gpu.mig.instances[0].memory_total == 19968 * MIB
    assert gpu.memory_total == 40960 * MIB
    assert gpu.utilization is None
    assert gpu.reasons == ()
    many = only("h100-nvl-mig")
    assert [one.gi for one in many.mig.instances] == [7, 8, 9, 10, 11, 12, 13]


def test_what_surrounds_the_report_does_not_count() -> None:
    text = (CASES / "tesla-t4.xml").read_text()
    assert parse_report(f"WARNING: infoROM is corrupted\n{text}\nmore") == read("tesla-t4")


@pytest.mark.parametrize(
    "text",
    ["", "No devices were found", "<nvidia_smi_log><gpu>", "</nvidia_smi_log><nvidia_smi_log"],
)  # fmt: skip
def test_no_report(text: str) -> None:
    with pytest.raises(FleetError, match="cannot be read"):
        parse_report(text)


def test_an_empty_card_is_all_unknown() -> None:
    gpu = parse_report("<nvidia_smi_log><gpu id='x'></gpu></nvidia_smi_log>").gpus[0]
    assert gpu == Gpu(0, "GPU-0", "unknown", bus="x")


def test_a_process_on_several_instances_counts_once() -> None:
    one = "<process_info><pid>7</pid><used_memory>{} MiB</used_memory></process_info>"
    body = "".join(one.format(size) for size in (100, 50))
    report = f"<nvidia_smi_log><gpu><processes>{body}</processes></gpu></nvidia_smi_log>"
    assert parse_report(report).gpus[0].processes == (Process(7, "", 150 * MIB),)


@pytest.mark.parametrize(
    ("text", "code", "what"),
    [
        ("", None, "not installed"),
        ("Failed to initialize NVML: Driver/library version mismatch", 18, "newer than its kernel"),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", 9,
         "kernel module is not loaded"),
        ("No devices were found", 6, "no GPU that it can drive"),
        ("Failed to initialize NVML: Insufficient Permissions", 4, "may not ask"),
        ("Failed to initialize NVML: Unknown Error", 255, "does not answer"),
        ("Unable to determine the device handle for GPU: GPU is lost.", 15, "fallen off the bus"),
        ("Segmentation fault", 139, "exit 139"),
    ],
)  # fmt: skip
def test_failures_are_explained(text: str, code: int | None, what: str) -> None:
    error = explain(text, code)
    assert what in error.what
    assert error.hint


def test_row_of_a_card() -> None:
    facts = replace(read("rtx-5090"), xids=(Xid("0000:01:00", 13, ""), Xid("0000:02:00", 79, "")))
    (row,) = gpu_rows("box", facts)
    assert row == {
        "machine": "box",
        "gpu": 0,
        "name": "NVIDIA GeForce RTX 5090",
        "driver": "580.95.05, CUDA 13.0",
        "memory": "27.5 of 31.8 GiB",
        "util": "97 %",
        "temp": "63 C",
        "power": "561 of 575 W (400-600)",
        "clocks": "2497 of 3105 MHz",
        "pcie": "gen 5x16",
        "ecc": None,
        "mig": None,
        "note": "clocks held by sw power cap; XID 13 (x1)",
    }


def test_notes_tell_what_waits_and_what_is_wrong() -> None:
    gpu = replace(
        only("h100-nvl"), ecc=Ecc(True, False, 0, 3), compute_mode="prohibited", persistence=False
    )
    assert notes(GpuFacts((gpu,)), gpu) == [
        "3 uncorrected memory errors", "ECC off after a reboot", "prohibited", "no persistence",
    ]  # fmt: skip


def test_rows_of_processes_and_of_nothing() -> None:
    rows = process_rows("box", read("tesla-t4"))
    assert [(row["pid"], row["memory"], row["kind"]) for row in rows] == [
        (675, "0.0 GiB", "G"), (5762, "1.0 GiB", "C"),
    ]  # fmt: skip
    assert gpu_rows("box", GpuFacts(note="no driver")) == [{"machine": "box", "note": "no driver"}]


def test_mig_row_names_profiles_where_they_are_known() -> None:
    facts = read("a100-mig")
    assert gpu_rows("m", facts)[0]["mig"] == "2 instances"
    gpu = facts.gpus[0]
    named = tuple(replace(one, profile="3g.20gb") for one in gpu.mig.instances)
    facts = replace(facts, gpus=(replace(gpu, mig=replace(gpu.mig, instances=named)),))
    assert gpu_rows("m", facts)[0]["mig"] == "2x 3g.20gb"
