"""Profiles and machine files to wanted settings: who wins, what is a mistake, and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fleet_files import error_lines, load_files

from inferfleet.hostprep.merge import MACHINE_FILE, make_ground
from inferfleet.hostprep.setting import Wanted

CALM = """\
summary: calm
settings:
  - {why: disk is slow, source: s1, sysctl: {vm.swappiness: 10}}
  - {why: no jumps, source: s2, cpu: {governor: performance}}
"""
FAST = """\
summary: fast
settings:
  - {why: quick, source: s3, sysctl: {vm.swappiness: 1}}
  - {why: alone, source: s4, cost: others starve, example: true, cmdline: {isolcpus: 1-3}}
  - {why: cheap, source: s5, cost: unsafe, cmdline: {mitigations: "off"}}
"""
SAME = """\
summary: same
settings:
  - {why: also slow, source: s6, sysctl: {vm.swappiness: "10"}}
"""
FILES = {"hostprep/calm.yaml": CALM, "hostprep/fast.yaml": FAST, "hostprep/same.yaml": SAME}


def wanted(
    tmp_path: Path, machine: str, files: Mapping[str, str] = FILES, **overlay: str
) -> dict[str, Wanted]:
    loaded = load_files(tmp_path, {**files, "inventory/m.yaml": machine}, **overlay)
    assert error_lines(loaded) == ""
    settings = make_ground(loaded.fleet, "m").settings
    assert [w.name for w in settings] == sorted(w.name for w in settings)
    return {w.name: w for w in settings}


def values(found: Mapping[str, Wanted]) -> dict[str, Any]:
    return {name: one.value for name, one in found.items()}


def test_a_setting_knows_its_reason_source_and_profile(tmp_path: Path) -> None:
    found = wanted(tmp_path, "hostprep: [calm]\n")
    assert found["sysctl.vm.swappiness"] == Wanted(
        "sysctl", "vm.swappiness", 10, "disk is slow", "s1", "calm"
    )
    assert found["cpu.governor"] == Wanted("cpu", "governor", "performance", "no jumps", "s2",
                                           "calm")  # fmt: skip


@pytest.mark.parametrize("text", ["", "hostprep: []\n", "hostprep: {}\n"])
def test_nothing_is_wanted_of_a_machine_that_says_nothing(text: str, tmp_path: Path) -> None:
    assert wanted(tmp_path, f"address: m\n{text}") == {}


def test_a_list_alone_names_profiles(tmp_path: Path) -> None:
    short = wanted(tmp_path, "hostprep: [calm]\n")
    assert short == wanted(tmp_path, "hostprep: {profiles: [calm]}\n")


def test_the_machine_file_wins(tmp_path: Path) -> None:
    found = wanted(tmp_path, "hostprep: {profiles: [calm], sysctl: {vm.swappiness: 60}}\n")
    assert values(found) == {"cpu.governor": "performance", "sysctl.vm.swappiness": 60}
    assert found["sysctl.vm.swappiness"].origin == MACHINE_FILE


def test_the_machine_file_decides_between_profiles(tmp_path: Path) -> None:
    text = "hostprep: {profiles: [calm, fast], sysctl: {vm.swappiness: 1}}\n"
    assert values(wanted(tmp_path, text))["sysctl.vm.swappiness"] == 1


def test_what_is_left_is_not_wanted(tmp_path: Path) -> None:
    text = "hostprep: {profiles: [calm, fast], leave: [sysctl.vm.swappiness]}\n"
    assert values(wanted(tmp_path, text)) == {"cpu.governor": "performance"}


def test_profiles_that_agree(tmp_path: Path) -> None:
    found = wanted(tmp_path, "hostprep: [calm, same]\n")
    assert found["sysctl.vm.swappiness"].origin == "calm"


def test_what_has_a_cost_is_wanted_only_when_it_is_accepted(tmp_path: Path) -> None:
    assert "cmdline.mitigations" not in wanted(tmp_path, "hostprep: [fast]\n")
    found = wanted(tmp_path, "hostprep: {profiles: [fast], accept: [cmdline.mitigations]}\n")
    assert found["cmdline.mitigations"].value == "off"
    assert found["cmdline.mitigations"].cost == "unsafe"


def test_what_has_a_cost_can_be_the_machines_own(tmp_path: Path) -> None:
    text = "hostprep: {accept: [cmdline.isolcpus], cmdline: {isolcpus: 4-7}}\n"
    (found,) = wanted(tmp_path, text).values()
    assert (found.value, found.cost, found.origin) == ("4-7", "others starve", MACHINE_FILE)


def test_to_be_rid_of_it_costs_nothing(tmp_path: Path) -> None:
    found = wanted(tmp_path, "hostprep: {cmdline: {isolcpus: false}}\n")
    assert values(found) == {"cmdline.isolcpus": False}


def test_no_huge_pages_cost_nothing(tmp_path: Path) -> None:
    profile = (
        "summary: x\nsettings:\n  - {why: w, source: s, cost: c, example: true, "
        "hugepages: {1G: 4}}\n"
    )
    files = {"hostprep/p.yaml": profile}
    found = wanted(tmp_path, "hostprep: {hugepages: {1G: 0}}\n", files)
    assert values(found) == {"hugepages.1G": 0}


@dataclass(frozen=True)
class Mistake:
    """Machine m as it is wrong and right; errors without the leading inventory/m.yaml:."""

    name: str
    wrong: str
    right: str
    errors: str
    files: Mapping[str, str] = field(default_factory=dict)


WHICH = (
    "hint: say which with sysctl: {vm.swappiness: ...} in this file, or leave one of the profiles "
    "out"
)
MISTAKES = [
    Mistake(
        "unknown profile",
        "hostprep: {profiles: [calm, fsat]}\n",
        "hostprep: {profiles: [calm]}\n",
        "1:29: hostprep.profiles[1]: there is no profile fsat\nhint: did you mean fast?",
    ),
    Mistake(
        "unknown profile in the short form",
        "hostprep:\n  - calm\n  - nothing-like-it\n",
        "hostprep:\n  - calm\n",
        "3:5: hostprep[1]: there is no profile nothing-like-it\nhint: profiles: calm, fast, same",
    ),
    Mistake(
        "profiles that disagree",
        "hostprep: {profiles: [calm, fast]}\n",
        "hostprep: {profiles: [calm, fast], sysctl: {vm.swappiness: 1}}\n",
        "1:29: hostprep.profiles[1]: fast wants sysctl.vm.swappiness to be 1, and calm wants 10\n"
        + WHICH,
    ),
    Mistake(
        "profiles that disagree in the short form",
        "hostprep: [fast, calm]\n",
        "hostprep: [fast]\n",
        "1:18: hostprep[1]: calm wants sysctl.vm.swappiness to be 10, and fast wants 1\n" + WHICH,
    ),
    Mistake(
        "1 and true are not the same",
        "hostprep: [one, yes]\n",
        "hostprep: [one]\n",
        "1:17: hostprep[1]: yes wants cmdline.quiet to be true, and one wants 1\n"
        "hint: say which with cmdline: {quiet: ...} in this file, or leave one of the profiles out",
        {
            "hostprep/one.yaml": "summary: x\nsettings: "
            "[{why: w, source: s, cmdline: {quiet: 1}}]\n",
            "hostprep/yes.yaml": "summary: x\nsettings: "
            "[{why: w, source: s, cmdline: {quiet: true}}]\n",
        },
    ),
    Mistake(
        "cost not accepted",
        'hostprep: {cmdline: {mitigations: "off"}}\n',
        'hostprep: {accept: [cmdline.mitigations], cmdline: {mitigations: "off"}}\n',
        "1:22: hostprep.cmdline.mitigations: has a cost: unsafe\n"
        "hint: add cmdline.mitigations to accept",
    ),
    Mistake(
        "accepted what has no cost",
        "hostprep: {profiles: [calm, fast], accept: [cmdline.mitigation], "
        "leave: [sysctl.vm.swappiness]}\n",
        "hostprep: {profiles: [calm, fast], accept: [cmdline.mitigations], "
        "leave: [sysctl.vm.swappiness]}\n",
        "1:45: hostprep.accept[0]: cmdline.mitigation is no setting that has a cost\n"
        "hint: did you mean cmdline.mitigations?",
    ),
    Mistake(
        "accepted what nothing sets",
        "hostprep: {profiles: [calm], accept: [cmdline.mitigations]}\n",
        "hostprep: {profiles: [fast], accept: [cmdline.mitigations]}\n",
        "1:39: hostprep.accept[0]: cmdline.mitigations is set neither by these profiles nor in "
        "this file\nhint: name its profile, fast, or remove it here",
    ),
    Mistake(
        "accepted and left",
        "hostprep: {profiles: [fast], accept: [cmdline.mitigations], leave: "
        "[cmdline.mitigations]}\n",
        "hostprep: {profiles: [fast], leave: [cmdline.mitigations]}\n",
        "1:39: hostprep.accept[0]: cmdline.mitigations is in leave, too\n"
        "hint: remove it from one of them",
    ),
    Mistake(
        "accepted an example",
        "hostprep: {profiles: [fast], accept: [cmdline.isolcpus]}\n",
        "hostprep: {profiles: [fast], accept: [cmdline.isolcpus], cmdline: {isolcpus: 2-5}}\n",
        "1:39: hostprep.accept[0]: cmdline.isolcpus needs a value of this machine\n"
        'hint: add cmdline: {isolcpus: ...}; an example is "1-3"',
    ),
    Mistake(
        "left what is not there",
        "hostprep: {profiles: [calm], leave: [cpu.governer]}\n",
        "hostprep: {profiles: [calm], leave: [cpu.governor]}\n",
        "1:38: hostprep.leave[0]: cpu.governer is no setting of these profiles\n"
        "hint: did you mean cpu.governor?",
    ),
    Mistake(
        "exclusive mode of a profile for two services",
        "hostprep: [alone]\nhardware: box\nservices:\n"
        "  a: {kind: engine, model: /m, gpus: all}\n  b: {kind: engine, model: /m, port: 1}\n",
        "hostprep: [alone]\nhardware: box\nservices:\n"
        "  a: {kind: engine, model: /m, gpus: [0]}\n"
        "  b: {kind: engine, model: /m, port: 1, gpus: [1]}\n",
        "1:1: hostprep.gpu.compute-mode: exclusive-process of alone lets one process use a GPU, "
        "and a and b share one\n"
        "hint: use hostprep: {gpu: {compute-mode: default}}, or give them different gpus",
        {
            "hostprep/alone.yaml": "summary: x\nsettings: "
            "[{why: w, source: s, gpu: {compute-mode: exclusive-process}}]\n"
        },
    ),
    Mistake(
        "out of /sys by way of ..",
        "hostprep: {sysfs: {/sys/../etc/passwd: 1}}\n",
        "hostprep: {sysfs: {/sys/kernel/mm/ksm/run: 1}}\n",
        "1:20: hostprep.sysfs./sys/../etc/passwd: the key is not a path in /sys\n"
        "hint: write it in full, without '..'; * ? [] match",
    ),
    Mistake(
        "a path with a blank",
        'hostprep: {storage: {"/mnt/a b": {}}}\n',
        "hostprep: {storage: {/mnt/a-b: {}}}\n",
        "1:22: hostprep.storage./mnt/a b: the key is not a plain path\n"
        "hint: use letters, digits and / _ . : @ + , = -",
    ),
    Mistake(
        "less than no power",
        "hostprep: {gpu: {power-limit: -5}}\n",
        "hostprep: {gpu: {power-limit: 400.5}}\n",
        "1:31: hostprep.gpu.power-limit: -5 is not above 0",
    ),
]


@pytest.mark.parametrize("case", MISTAKES, ids=lambda case: case.name)
def test_each_mistake_and_its_clean_twin(
    case: Mistake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {**FILES, **case.files}
    loaded = load_files(tmp_path, {**files, "inventory/m.yaml": case.wrong})
    assert error_lines(loaded) == f"inventory/m.yaml:{case.errors}"
    assert {error.code for error in loaded.errors} == {64}
    assert error_lines(load_files(tmp_path, {**files, "inventory/m.yaml": case.right})) == ""


PROFILE_MISTAKES = [
    (
        "summary: x\nsettings:\n  - {why: w, source: s, sysctl: {vm.swap 10: 1}}\n",
        (
            "hostprep/p.yaml:3:34: settings[0].sysctl.vm.swap 10: the key is not a sysctl key\n"
            "hint: write it as vm.swappiness"
        ),
    ),
    (
        "summary: x\nsettings:\n  - {why: w, source: s, gpu: {clock: 1-2}}\n",
        "hostprep/p.yaml:3:31: settings[0].gpu.clock: unknown key\nhint: did you mean clocks?",
    ),
    (
        "summary: x\nsettings:\n  - {why: w, source: s, sysctrl: {a.b: 1}}\n",
        "hostprep/p.yaml:3:25: settings[0].sysctrl: unknown key\nhint: did you mean sysctl?",
    ),
    (
        "summary: x\nsettings:\n  - {source: s, sysctl: {a.b: 1}}\n",
        "hostprep/p.yaml:3:5: settings[0].why: is missing",
    ),
    (
        "summary: x\nsettings:\n  - {why: w, sysctl: {a.b: 1}}\n",
        "hostprep/p.yaml:3:5: settings[0].source: is missing",
    ),
    (
        "summary: x\nsettings:\n  - {why: w, source: s}\n",
        "hostprep/p.yaml:3:5: settings[0]: holds no setting\nhint: add one, or remove the group",
    ),
    (
        "summary: x\nsettings:\n  - {why: w, source: s, swap: {active: off}}\n",
        (
            "hostprep/p.yaml:3:40: settings[0].swap.active: should be true or false, found text "
            '"off"\nhint: write true or false'
        ),
    ),
    (
        (
            "summary: x\nsettings:\n  - {why: w, source: s, sysctl: {a.b: 1}}\n"
            "  - {why: w, source: s, cost: c, sysctl: {a.b: 2}}\n"
        ),
        (
            "hostprep/p.yaml:4:43: settings[1].sysctl.a.b: is set in settings[0], too\n"
            "hint: remove one of them"
        ),
    ),
    (
        "summary: x\nsettings:\n  - {why: w, source: s, example: true, sysctl: {a.b: 1}}\n",
        (
            "hostprep/p.yaml:3:25: settings[0].example: is only for settings that have a cost\n"
            "hint: add cost, or remove example"
        ),
    ),
    ("summary: x\nsettings: [\n", "hostprep/p.yaml:3:1: is not valid YAML"),
]


@pytest.mark.parametrize(("text", "error"), PROFILE_MISTAKES)
def test_mistakes_of_profiles_are_told_once_and_at_their_place(
    text: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {**FILES, "hostprep/p.yaml": text, "inventory/m.yaml": "hostprep: [calm, p]\n"}
    (found,) = load_files(tmp_path, files).errors
    assert str(found).startswith(error)


def test_what_a_broken_profile_would_set_is_no_further_mistake(tmp_path: Path) -> None:
    machine = "hostprep: {profiles: [calm, p], leave: [sysctl.a.b]}\n"
    files = {**FILES, "hostprep/p.yaml": "summary: 1\n", "inventory/m.yaml": machine}
    lines = error_lines(load_files(tmp_path, files))
    assert "p.yaml:1:10: summary: should be text" in lines
    assert "m.yaml" not in lines


def test_an_overlay_changes_a_profile_and_adds_one(tmp_path: Path) -> None:
    mine = "summary: mine\nsettings: [{why: w, source: s, sysctl: {vm.swappiness: 30}}]\n"
    for name, origin, value in (("calm", "calm", 30), ("mine", "mine", 30)):
        found = wanted(tmp_path, f"hostprep: [{name}]\n", FILES, **{f"hostprep__{name}": mine})
        assert values(found) == {"sysctl.vm.swappiness": value}
        assert found["sysctl.vm.swappiness"].origin == origin


def test_an_overlay_changes_what_a_machine_takes(tmp_path: Path) -> None:
    found = wanted(
        tmp_path,
        "hostprep: {profiles: [calm], sysctl: {a.b: 1}}\n",
        FILES,
        inventory__m="hostprep: {profiles: [fast], sysctl: {a.b: null, a.c: 2}}\n",
    )
    assert values(found) == {"sysctl.a.c": 2, "sysctl.vm.swappiness": 1}
