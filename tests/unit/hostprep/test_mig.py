"""MIG layouts: what is there and what is wanted -> finding, change, undo, boot lines."""

from __future__ import annotations

from typing import Any

import pytest
from gpu_cases import H100, argvs, booted, ground, one, report, seen, verdict

from inferfleet.hostprep.facts import Answer
from inferfleet.hostprep.kinds.gpu.gpu import Gpu
from inferfleet.hostprep.kinds.gpu.mig import MANAGER, PROBE, layouts, slices
from inferfleet.hostprep.kinds.gpu.nvidia import HELPER

GPU = Gpu()
SEVEN = ["1g.12gb"] * 7
BALANCED = ["1g.12gb", "1g.12gb", "2g.24gb", "3g.47gb"]
VALID = {
    "1g.12gb": 7, "1g.12gb+me": 1, "1g.24gb": 4, "2g.24gb": 3, "3g.47gb": 2, "4g.47gb": 1,
    "7g.94gb": 1,
}  # fmt: skip
NVL = {"gpu": {"mig-profiles": VALID}}
IDS = {"1g.12gb": 19, "2g.24gb": 14, "3g.47gb": 9}
ENABLED = [("<current_mig>Disabled", "<current_mig>Enabled"),
           ("<pending_mig>Disabled", "<pending_mig>Enabled")]  # fmt: skip
IDLE = (
    report("h100-nvl")[report("h100-nvl").index("<processes>") :].split("</processes>")[0],
    "<processes>",
)


def listed(*profiles: str, gpu: int = 0) -> dict[str, Answer]:
    """The answer of nvidia-smi mig -lgi."""
    if not profiles:
        return {PROBE: Answer(6, "No GPU instances found: Not Found")}
    rows = [
        f"|   {gpu}  MIG {name:14}{IDS[name]:>5}{index + 7:>9}{index:>11}:1     |"
        for index, name in enumerate(profiles)
    ]
    head = "| GPU   Name             Profile  Instance   Placement  |"
    return {PROBE: Answer(0, "\n".join([head, *rows, "+" + "-" * 55 + "+"]))}


def mig(layout: Any, **hardware: Any) -> Any:
    return ground("gpu", {"mig": layout}, **{**NVL, **hardware})


def test_the_list_of_instances_is_read() -> None:
    facts = seen("h100-nvl-mig", probes=listed(*BALANCED))
    assert layouts(facts) == {0: {"1g.12gb": 2, "2g.24gb": 1, "3g.47gb": 1}}
    assert layouts(seen("h100-nvl")) == {}


@pytest.mark.parametrize("key", ["0", "all"])
def test_from_whole_to_divided(key: str) -> None:
    wanted = mig({key: BALANCED})
    facts = seen("h100-nvl", IDLE, probes={PROBE: Answer(6, "No MIG-enabled devices found.")})
    judgement = GPU.judge(wanted, facts)
    assert verdict(GPU, wanted, facts) == ("differs", "off", "-")
    # Largest first: small ones first may leave no place where a large one fits.
    value = "3g.47gb,2g.24gb,1g.12gb,1g.12gb"
    assert argvs(judgement) == [("sh", HELPER, "mig", H100, value)]
    assert argvs(judgement, undo=True) == [("sh", HELPER, "mig", H100, "off")]
    assert GPU.bootlines(wanted, facts) == (f"try sh {HELPER} mig {key} {value}",)


def test_as_wanted() -> None:
    wanted = mig({"0": SEVEN})
    lines = GPU.bootlines(wanted, seen("h100-nvl-mig"))
    facts = seen("h100-nvl-mig", files=booted(*lines), probes=listed(*SEVEN))
    assert verdict(GPU, wanted, facts) == ("ok", "7x 1g.12gb", "at every start")
    assert GPU.judge(wanted, facts).changes == ()


def test_another_layout() -> None:
    wanted = mig({"0": ["3g.47gb", "3g.47gb"]})
    facts = seen("h100-nvl-mig", probes=listed(*SEVEN))
    judgement = GPU.judge(wanted, facts)
    assert argvs(judgement) == [("sh", HELPER, "mig", H100, "3g.47gb,3g.47gb")]
    assert argvs(judgement, undo=True) == [("sh", HELPER, "mig", H100, ",".join(SEVEN))]
    assert judgement.changes[0].text == "GPU 0: 7x 1g.12gb -> 2x 3g.47gb"


def test_back_to_whole() -> None:
    wanted, facts = mig({"all": []}), seen("h100-nvl-mig", probes=listed(*SEVEN))
    judgement = GPU.judge(wanted, facts)
    assert argvs(judgement) == [("sh", HELPER, "mig", H100, "off")]
    assert argvs(judgement, undo=True) == [("sh", HELPER, "mig", H100, ",".join(SEVEN))]
    assert GPU.bootlines(wanted, facts) == ()
    assert verdict(GPU, wanted, seen("h100-nvl")) == ("ok", "off", "-")


def test_mode_without_instances_comes_back_so() -> None:
    facts = seen("h100-nvl", IDLE, *ENABLED, probes=listed())
    judgement = GPU.judge(mig({"0": SEVEN}), facts)
    assert argvs(judgement, undo=True) == [("sh", HELPER, "mig", H100, "none")]


def test_a_gpu_in_use_is_left_alone() -> None:
    wanted, facts = mig({"0": BALANCED}), seen("h100-nvl")
    finding = one(GPU, wanted, facts)
    assert finding.verdict == "advice"
    assert finding.remedy == (
        "GPU 0 is in use by /mnt/work/vllm_env/bin/python (1471): stop it first"
    )
    assert GPU.judge(wanted, facts).changes == ()


def test_a_mode_that_waits_for_a_reset() -> None:
    pending = ("<pending_mig>Disabled", "<pending_mig>Enabled")
    wanted = mig({"0": SEVEN})
    lines = GPU.bootlines(wanted, seen("h100-nvl"))
    facts = seen("h100-nvl", pending, IDLE, files=booted(*lines))
    assert verdict(GPU, wanted, facts) == ("pending", "off, on after a reset", "at every start")
    assert GPU.judge(wanted, facts).changes == ()


@pytest.mark.parametrize(
    ("layout", "remedy"),
    [
        ({"0": ["1g.10gb"]}, "GPU 0 has no profile 1g.10gb; it has 1g.12gb"),
        ({"0": ["1g.12gb"] * 8}, "GPU 0 holds at most 7 of 1g.12gb"),
        ({"0": ["3g.47gb", "3g.47gb", "2g.24gb"]}, "need 8 and 10"),
        ({"0": ["4g.47gb", "3g.47gb", "1g.12gb"]}, "need 8 and 9"),
        ({"0": ["3g.47gb", "1g.24gb", "1g.24gb", "1g.24gb"]}, "need 6 and 10"),
        ({"1": SEVEN}, "there is no GPU 1"),
    ],
)
def test_layouts_that_cannot_be(layout: Any, remedy: str) -> None:
    finding = one(GPU, mig(layout), seen("h100-nvl", IDLE))
    assert finding.verdict == "advice"
    assert remedy in finding.remedy
    assert GPU.judge(mig(layout), seen("h100-nvl", IDLE)).changes == ()


@pytest.mark.parametrize(
    ("profiles", "expected"),
    [(SEVEN, (7, 7)), (BALANCED, (7, 8)), (["7g.94gb"], (7, 8)), (["1g.24gb"] * 4, (4, 8)),
     (["3g.47gb", "4g.47gb"], (7, 8)), (["1g.12gb+me"], (1, 1))],
)  # fmt: skip
def test_slices(profiles: list[str], expected: tuple[int, int]) -> None:
    assert slices(profiles, VALID) == expected
    assert slices(profiles, {}) == (expected[0], 0)


def test_cards_that_cannot_be_divided() -> None:
    assert verdict(GPU, mig({"all": SEVEN}), seen("rtx-5090")) == ("unsupported", "off", "-")
    assert verdict(GPU, mig({"all": SEVEN}, lacks=["mig"]), seen("rtx-5090"))[0] == "unsupported"
    assert verdict(GPU, mig({"all": []}, lacks=["mig"]), seen("rtx-5090"))[0] == "ok"
    assert verdict(GPU, mig({"all": []}), seen("rtx-5090"))[0] == "ok"


def test_mig_manager_would_win() -> None:
    facts = seen("h100-nvl", IDLE, files={MANAGER: "unit"})
    finding = one(GPU, mig({"0": SEVEN}), facts)
    assert finding.verdict == "overridden"
    assert "nvidia-mig-manager" in finding.remedy


def test_a_list_that_may_not_be_read() -> None:
    denied = {PROBE: Answer(4, "Failed to display GPU instances: Insufficient Permissions")}
    assert one(GPU, mig({"0": BALANCED}), seen("h100-nvl-mig", probes=denied)).verdict == "unknown"


def test_own_number_before_all() -> None:
    first = report("h100-nvl", IDLE)
    gpu = first[first.index("<gpu ") : first.index("</gpu>") + 6]
    two = first.replace("</gpu>", "</gpu>" + gpu.replace(H100, "GPU-two"))
    facts = seen("h100-nvl", probes={"nvidia-smi": Answer(0, two)})
    judgement = GPU.judge(mig({"all": ["7g.94gb"], "1": []}), facts)
    assert argvs(judgement) == [("sh", HELPER, "mig", H100, "7g.94gb")]
    assert GPU.bootlines(mig({"all": ["7g.94gb"], "1": []}), facts) == (
        f"try sh {HELPER} mig 0 7g.94gb",
    )
    assert judgement.findings[0].live == "off"
