"""The profiles that are shipped, the machines that name them, and a consumer's own profile."""

from __future__ import annotations

import subprocess
from itertools import combinations
from pathlib import Path
from typing import get_args, get_origin

import pytest
from doc_pages import read_page
from fleet_files import error_lines, load_files, write_files

from inferfleet.hostprep.merge import (
    make_ground,
    profile_settings,
    same_value,
    settings_of,
    wanted_settings,
)
from inferfleet.hostprep.setting import Wanted
from inferfleet.hostprep.verify import verification
from inferfleet.load import yaml12
from inferfleet.load.load import load
from inferfleet.paths import PACKAGE, Roots
from inferfleet.schema.fields import Model, kebab
from inferfleet.schema.profile import HostPrep, Settings

ROOT = PACKAGE.parent
FLEET = load(Roots(ROOT)).fleet
SHIPPED = [
    "huge-pages",
    "inference",
    "kubernetes-gpu-node",
    "kubernetes-node",
    "latency",
    "nvidia-datacenter",
    "nvidia-datacenter-mig",
    "nvidia-workstation",
    "unified-memory",
]
GUIDES = ["storage", "gpu-tuning", "kernel", "huge-pages", "firmware", "prepare-a-host"]
GROUPS = [
    pytest.param(group, id=f"{name}-{index}")
    for name, profile in FLEET.profiles.items()
    for index, group in enumerate(profile.settings)
]
EVERY = [w for name, profile in FLEET.profiles.items() for w in profile_settings(name, profile)]
# What takes something away from services or opens the host: never without being asked for.
HARMFUL = {
    "cmdline.isolcpus",
    "cmdline.nohz_full",
    "cmdline.rcu_nocbs",
    "cmdline.mitigations",
    "cmdline.init_on_alloc",
    "cmdline.pcie_aspm",
    "cmdline.default_hugepagesz",
    "hugepages.1G",
    "hugepages.2M",
    "gpu.memory-clocks",
    "cpu.max-idle-latency",
}
# What differs between two machines that would name the same profile.
OF_ONE_MACHINE = {"irq", "cpu.single-thread", "gpu.clocks", "gpu.power-limit", "storage"}


def test_these_profiles_are_shipped() -> None:
    assert sorted(FLEET.profiles) == SHIPPED


@pytest.mark.parametrize("group", GROUPS)
def test_every_setting_has_a_reason_and_a_source_in_one_line(group: Settings) -> None:
    assert list(settings_of(group))
    texts = [group.why, group.source, *([group.cost] if group.cost else [])]
    assert all(text.isascii() and "\n" not in text and len(text) > 10 for text in texts)


def test_what_harms_stands_behind_a_cost() -> None:
    assert {wanted.name for wanted in EVERY if wanted.cost} == HARMFUL
    assert [wanted.name for wanted in EVERY if not wanted.cost and wanted.name in HARMFUL] == []


def test_what_belongs_to_one_machine_is_in_no_profile() -> None:
    names = {word for wanted in EVERY if not wanted.cost for word in (wanted.kind, wanted.name)}
    assert names & OF_ONE_MACHINE == set()


@pytest.mark.parametrize("name", SHIPPED)
def test_the_file_is_for_people_too(name: str) -> None:
    lines = (ROOT / "hostprep" / f"{name}.yaml").read_text().splitlines()
    assert [line for line in lines if len(line) > 100] == []
    assert len(FLEET.profiles[name].summary) > 20


@pytest.mark.parametrize(("one", "other"), list(combinations(SHIPPED, 2)))
def test_no_two_profiles_disagree(one: str, other: str) -> None:
    """Not even in what has a cost, so that a machine may accept it beside any other profile."""
    first = {w.name: w for w in profile_settings(one, FLEET.profiles[one])}
    for wanted in profile_settings(other, FLEET.profiles[other]):
        assert same_value(first.get(wanted.name, wanted), wanted), wanted.name


def test_all_profiles_together_have_no_problem() -> None:
    settings, problems = wanted_settings(FLEET.profiles, HostPrep(profiles=SHIPPED))
    assert problems == []
    assert {w.name for w in settings} == {w.name for w in EVERY if not w.cost}


@pytest.mark.parametrize("wanted", EVERY, ids=lambda w: f"{w.origin}-{w.name}")
def test_every_setting_has_a_command_that_verifies_it(wanted: Wanted) -> None:
    found = verification(wanted)
    parsed = subprocess.run(["sh", "-n", "-c", found.command], capture_output=True, check=False)
    assert (parsed.returncode, parsed.stderr) == (0, b"")
    assert found.shows
    assert f"{found.command}{found.shows}".isascii()


def test_the_workstation_is_tuned_as_its_owner_tunes_it() -> None:
    found = {w.name: w.value for w in make_ground(FLEET, "rtx5090").settings}
    asked = {
        "swap.active": False,
        "cpu.governor": "performance",
        "cpu.single-thread": "0-11",
        "limits.memlock": "infinity",
        "sysfs./sys/kernel/mm/transparent_hugepage/enabled": "never",
        "irq.nvidia": "24-31",
        "gpu.persistence": True,
        "gpu.clocks": "2400-2550",
        "gpu.memory-clocks": "14001",
        "gpu.power-limit": 600,
        "gpu.compute-mode": "default",
        "cmdline.iommu": "pt",
        "driver.cuda": "12.8",
        "driver.open-modules": True,
        "firmware.pcie-generation": 5,
        "firmware.pcie-width": 16,
        "firmware.memory-speed": 6000,
        "firmware.resizable-bar": True,
        "firmware.above-4g": True,
        "firmware.idle-states": False,
    }
    assert asked.items() <= found.items()
    assert found["mounts./mnt/hugepages"]["options"] == "pagesize=2M"
    assert found["hugepages.2M"] * 2 >= 30 * 1024


def test_the_workstations_memory_holds_the_pool_and_every_limit() -> None:
    machine = FLEET.machines["rtx5090"]
    hardware = FLEET.hardware["rtx-5090"]
    assert machine.hostprep is not None
    pool = machine.hostprep.hugepages["2M"] << 21
    limits = sum(service.memory or 0 for service in machine.services.values())
    assert pool + limits <= (hardware.memory or 0) - (hardware.reserve or 0)


def test_no_service_of_the_workstation_uses_cpus_that_go_off_line() -> None:
    machine = FLEET.machines["rtx5090"]
    threads = FLEET.hardware["rtx-5090"].cpu.threads
    assert threads == 32
    assert machine.hostprep is not None
    assert machine.hostprep.cpu is not None
    single = cpus(machine.hostprep.cpu.single_thread)
    off = {cpu + threads // 2 for cpu in single}
    for name, service in machine.services.items():
        if service.cpuset:
            assert not cpus(service.cpuset) & off, name
    assert single == cpus(machine.services["llama-cpu"].cpuset)
    assert cpus(machine.hostprep.irq["nvidia"]) - off == {28, 29, 30, 31}


def cpus(text: str | None) -> set[int]:
    from inferfleet.amounts import cpuset_cpus

    return set(cpuset_cpus(text or ""))


def test_the_unified_machine_gets_nothing_that_it_lacks() -> None:
    ground = make_ground(FLEET, "spark")
    names = {w.name for w in ground.settings}
    assert ground.lacks("power-limit")
    assert {"memory-guard.floor", "memory-guard.drop-caches", "driver.cuda"} <= names
    lacking = {"gpu.power-limit", "gpu.memory-clocks", "gpu.mig", "cmdline.iommu"}
    assert names & (lacking | HARMFUL) == set()
    # Below what planning keeps free, or the watch would end what was planned.
    floor = next(w.value for w in ground.settings if w.name == "memory-guard.floor")
    reserve = FLEET.hardware["dgx-spark"].reserve
    assert reserve is not None
    assert floor < reserve


def test_mig_instances_fit_on_their_card() -> None:
    (mig,) = [w for w in EVERY if w.name == "gpu.mig"]
    gpu = FLEET.hardware["h100-nvl"].gpu
    assert gpu is not None
    layout = mig.value["all"]
    assert set(layout) <= set(gpu.mig_profiles)
    assert sum(int(name[0]) for name in layout) == 7


@pytest.mark.parametrize("page", GUIDES)
def test_the_examples_of_the_guides_load(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = read_page(ROOT / "docs/how-to" / f"{page}.md").of("yaml")
    assert blocks
    write_files(tmp_path, {f"inventory/m-{n}.yaml": one.text for n, one in enumerate(blocks)})
    loaded = load(Roots(ROOT, tmp_path))
    assert error_lines(loaded) == ""
    for number in range(len(blocks)):
        assert make_ground(loaded.fleet, f"m-{number}").settings


OWN = """\
summary: everything that a profile can say
settings:
  - why: one setting of every kind
    source: this test
    sysctl: {net.core.somaxconn: 4096, net.ipv4.tcp_rmem: 4096 87380 6291456}
    sysfs: {/sys/class/net/*/queues/rx-*/rps_cpus: "f"}
    modules: {nvidia_peermem: loaded, nouveau: blocked}
    module-options: {nvidia: NVreg_RestrictProfilingToAdminUsers=0}
    cmdline: {quiet: true, splash: false, console: ttyS0, loglevel: 3}
    units: {irqbalance.service: stopped, fstrim.timer: running, apt-daily.timer: masked}
    files:
      /etc/docker/daemon.json: {content: "{}\\n", mode: "0600", after: [systemctl, reload, docker]}
    hugepages: {2M: 0, 1G: 0}
    mounts: {/mnt/huge: {what: hugetlbfs, type: hugetlbfs, options: pagesize=1G}}
    swap: {active: true, zram: 8G}
    cpu:
      governor: schedutil
      energy-preference: balance_performance
      max-idle-latency: 100
      smt: true
      single-thread: 2-3
    irq: {mlx5: 0-3}
    limits: {memlock: 64G, nofile: 65536}
    time: {synchronized: false}
    gpu:
      persistence: false
      clocks: 1200-1980
      memory-clocks: "2619"
      power-limit: 310.5
      compute-mode: prohibited
      ecc: false
      mig: {"0": [1g.12gb+me], "1": []}
      uvm: false
    driver:
      driver: "580.95"
      cuda: "13.0"
      open-modules: false
      container-toolkit: "1.18.1"
      cdi: false
    storage: {/srv/x: {owner: ray, group: ray, mode: "0750", mount: true, min-free: 15%}}
    memory-guard: {floor: 4G, drop-caches: false}
    firmware:
      pcie-generation: 4
      pcie-width: 8
      resizable-bar: false
      above-4g: false
      memory-speed: 4800
      idle-states: true
      smt: true
      virtualization: true
    containerd: {systemd-cgroup: false, nvidia-runtime: false}
"""


def known_names() -> set[str]:
    """Settings whose keys the schema itself names, such as gpu.ecc."""
    return {
        f"{kebab(kind)}.{kebab(key)}"
        for kind, field in Settings.model_fields.items()
        for part in get_args(field.annotation)
        if get_origin(field.annotation) is not dict and issubclass(part, Model)
        for key in part.model_fields
    }


def test_a_consumers_profile_sets_everything_without_code(tmp_path: Path) -> None:
    """Data alone: a file in the overlay, named by a machine of the overlay."""
    loaded = load_files(
        tmp_path, {}, hostprep__own=OWN, inventory__m="address: m\nhostprep: [own]\n"
    )
    assert error_lines(loaded) == ""
    found = {w.name: w for w in make_ground(loaded.fleet, "m").settings}
    assert {w.kind for w in found.values()} == {
        name.replace("_", "-") for name in Settings.model_fields
    }
    root = yaml12.read(OWN.encode(), "own").root
    assert root is not None
    (group,) = root.plain()["settings"]
    written = [f"{kind}.{key}" for kind in group for key in group[kind] if kind not in
               ("why", "source")]  # fmt: skip
    assert sorted(written) == sorted(found)
    assert {name for name in found if name in known_names()} == known_names()
    assert {w.origin for w in found.values()} == {"own"}
    assert found["limits.memlock"].value == 64 << 30
    assert found["gpu.power-limit"].value == 310.5
    assert found["gpu.mig"].value == {"0": ["1g.12gb+me"], "1": []}
    assert found["cmdline.quiet"].value is True
    assert found["cmdline.loglevel"].value == 3
    assert found["storage./srv/x"].value["min-free"] == "15%"
    parsed = subprocess.run(
        ["sh", "-n"],
        input="\n".join(verification(one).command for one in found.values()),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (parsed.returncode, parsed.stderr) == (0, "")
