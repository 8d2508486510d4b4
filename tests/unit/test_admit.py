"""`admit` on what a machine says: who is measured against what, and what is only doubt."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import model_configs as real
import pytest
from plan_cases import ROOT, applied, edited, make_release

from inferfleet.capacity import facts
from inferfleet.capacity.admission import admit as admitting
from inferfleet.capacity.admission.admit import admit
from inferfleet.errors import FleetError
from inferfleet.hosts.host import Result
from inferfleet.models.needs import model_need
from inferfleet.observe.observed import parse_observed
from inferfleet.plan.plan import Goal, Plan, Step, make_plan
from inferfleet.run.session import Session

GIB = 1 << 30
# (owner, GiB on the GPU or None for what the driver does not tell, type); owner: a service or not.
Process = tuple[str, float | None, str]


def demand(kind: str = "vllm", gpus: Any = "all", **more: Any) -> dict[str, Any]:
    options = more.pop("options", {})
    return {
        "kind": kind, "engine": kind, "options": options, "env": {}, "memory": None, "gpus": gpus,
        "cpuset": None, "evict": "allowed", "autostart": False, "volumes": [], **more,
    }  # fmt: skip


# Llama 3.1 8B in 16 bits: 15 GiB, with this context 21 GiB.
LLAMA = demand("llama-cpp", options={"ctx-size": 40_000})
FITTED = demand("llama-cpp")
HALF = demand(options={"gpu-memory-utilization": 0.48, "max-model-len": "auto"})
VLLM = demand(options={"max-model-len": 4096})
SMALL = demand("echo", "none", memory=4 * GIB)


@dataclass(frozen=True)
class Case:
    """A machine with one GPU of 24 GiB. services: what each asks for; up: of them what runs;
    acting: started or replaced; gone: runs, but is in the file no more. used: of the GPU. blind:
    whose model is not known. left: what moved, and an interrupted run left where it was."""

    services: dict[str, dict[str, Any]]
    up: tuple[str, ...]
    acting: tuple[str, ...]
    used: float
    processes: tuple[Process, ...] = ()
    gone: tuple[str, ...] = ()
    available: float = 12
    total: float = 32
    driver: bool = True
    evict: bool = False
    mode: str = "Default"
    hardware: dict[str, Any] = field(default_factory=dict)
    blind: str = ""
    left: tuple[str, ...] = ()


def says(case: Case) -> str:
    """The answer of memory.sh and gpu.sh. Service number N is process N, in container N."""
    names = sorted({*case.services, *case.gone})
    kib = int(case.total * GIB) >> 10, int(case.available * GIB) >> 10
    lines = ["/proc/meminfo:MemTotal: %d kB", "/proc/meminfo:MemAvailable: %d kB"]
    own = [line % amount for line, amount in zip(lines, kib, strict=True)]
    for number, name in enumerate(names, 1):
        if name in case.up or name in case.gone:
            identity = f"{number:064x}"
            own.append(f"/proc/{number}/cgroup:0::/docker/{identity}")
            own.append(f"container\t{identity}\tbox-{name}\trunning\tbox\t{name}\tx:1\t")
    infos = []
    for number, (owner, size, kind) in enumerate(case.processes, 100):
        pid = names.index(owner) + 1 if owner in names else number
        memory = "N/A" if size is None else f"{size * 1024:.0f} MiB"
        infos.append(
            f"<process_info><pid>{pid}</pid><type>{kind}</type><process_name>{owner}"
            f"</process_name><used_memory>{memory}</used_memory></process_info>"
        )
    sizes = (
        ("N/A", "N/A")
        if case.hardware.get("unified")
        else ("24576 MiB", f"{case.used * 1024:.0f} MiB")
    )
    report = (
        "<nvidia_smi_log><gpu><uuid>GPU-0</uuid><fb_memory_usage>"
        f"<total>{sizes[0]}</total><used>{sizes[1]}</used></fb_memory_usage>"
        f"<compute_mode>{case.mode}</compute_mode><processes>{''.join(infos)}</processes>"
        "</gpu></nvidia_smi_log>"
    )
    smi = f"smi\t0\n{report}\n\x01\n" if case.driver else "smi\tabsent\n\x01\n"
    return "\n".join([*own, "end", f"\x02\n{smi}end\n"])


def planned(case: Case, folder: Path) -> Plan:
    """Through make_plan and admit. Models are a directory here, which is asked for its shape."""
    (folder / "config.json").write_text(json.dumps(real.LLAMA_8B))
    units = {name: {"autostart": False, "address": None} for name in case.services}
    release = make_release({"units": units})
    made = [
        model_need(name, f"file:{folder}/", "hf", "/m")
        for name, asked in case.services.items()
        if asked["kind"] != "echo" and name not in case.blind
    ]
    object.__setattr__(release, "models", tuple(need for need in made if need))
    before = make_release({"units": {**units, **{name: {"address": None} for name in case.gone}}})
    stopped = [name for name in case.services if name not in case.up]
    changed = [name for name in case.acting if name in case.up]
    drop = [[word, name] for name in stopped for word in ("unit", "started")]
    drop += [["started", name] for name in changed]
    add = [["started", name, "old"] for name in changed]
    observed = parse_observed(edited(applied(before), drop, add), ROOT)
    goal = Goal(True, frozenset({*case.acting, *case.gone}), evict=case.evict)
    plan = make_plan(release, observed, goal)
    assert {s.target for s in plan.steps if s.action in ("start", "replace")} == set(case.acting)
    assert set(plan.targets("remove")) == set(case.gone)
    left = [Step("remove", name, "") for name in case.left]
    plan = replace(plan, steps=(*left, *plan.steps), left=tuple((1, name) for name in case.left))
    hardware = {"reserve": 0, "gpus": 0, "gpu_memory": None, "bandwidth": None, **case.hardware}
    talk = SimpleNamespace(
        release=release, sudo=False, secrets={},
        budget={"services": case.services, "hardware": hardware},
        host=SimpleNamespace(name="box", run=lambda *_, **__: Result(0, says(case), "")),
    )  # fmt: skip
    return admit(cast(Session, talk), observed, plan, goal)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


FITS = {
    "a llama.cpp is replaced by itself": Case({"a": LLAMA}, ("a",), ("a",), 21, (("a", 21, "C"),)),
    "a llama.cpp stays": Case(
        {"a": LLAMA, "b": SMALL}, ("a",), ("b",), 21, (("a", 21, "C"),)
    ),
    "in the place of one that is removed": Case(
        {"a": LLAMA}, (), ("a",), 22, (("old", 22, "C"),), gone=("old",)
    ),
    "in the place of one that is replaced on the CPU": Case(
        {"a": LLAMA, "b": SMALL}, ("b",), ("a", "b"), 21, (("b", 21, "C"),), available=7
    ),
    "vLLM in the place of one that is removed": Case(
        {"a": VLLM}, (), ("a",), 22, (("old", 22, "C"),), gone=("old",)
    ),
    "in memory that is one": Case(
        {"a": LLAMA}, ("a",), ("a",), 0, (("a", 21, "C"),), available=4,
        hardware={"unified": True, "gpus": 1},
    ),
    "beside one that has fitted itself in": Case(
        {"a": FITTED, "b": demand("llama-cpp", options={"ctx-size": 4096})},
        ("a", "b"), ("b",), 21, (("a", 5, "C"), ("b", 16, "C")),
    ),
    "a card by the name of a MIG device": Case(
        {"a": demand(gpus=("MIG-7",))}, (), ("a",), 1, total=16
    ),
    "no driver that answers": Case({"a": VLLM}, (), ("a",), 0, driver=False, total=16),
    "no driver, and one with its layers on the host": Case(
        {"a": LLAMA}, (), ("a",), 0, driver=False, total=16
    ),
    "replaced by itself, no process listed": Case({"a": VLLM}, ("a",), ("a",), 22.5),
    "replaced by itself, its memory not told": Case(
        {"a": VLLM}, ("a",), ("a",), 22.5, (("a", None, "C"),)
    ),
    "beside one of ours that nobody lists": Case(
        {"a": HALF, "b": HALF}, ("a",), ("b",), 11.5, blind="ab"
    ),
    "llama.cpp beside vLLM, nobody lists them": Case(
        {"a": LLAMA, "b": demand(options={"gpu-memory-utilization": 0.08})},
        ("a", "b"), ("a",), 22.5, blind="b",
    ),
    "one memory, no process listed": Case(
        {"a": HALF}, ("a",), ("a",), 0, available=3, blind="a",
        hardware={"unified": True, "gpus": 1}
    ),
}  # fmt: skip
REFUSED = {
    "others have the card": Case({"a": VLLM}, (), ("a",), 22, (("stranger", 22, "C"),)),
    "others have it and ours is replaced": Case(
        {"a": VLLM}, ("a",), ("a",), 23, (("stranger", 22, "C"),)
    ),
    "one of ours that stays has it": Case(
        {"a": VLLM, "b": VLLM}, ("b",), ("a",), 22, (("b", 22, "C"),)
    ),
    "one that stays has it, and is left elsewhere": Case(
        {"a": VLLM, "b": VLLM}, ("b",), ("a",), 22, (("b", 22, "C"),), left=("b",)
    ),
    "one of ours that stays will have it": Case(
        {"a": VLLM, "b": VLLM}, ("b",), ("a",), 1, (("b", 1, "C"),)
    ),
    "too much for the CPU": Case({"a": VLLM | {"gpus": "none"}}, (), ("a",), 0, total=24),
}


@pytest.mark.parametrize("name", FITS)
def test_what_is_not_refused(name: str, tmp_path: Path) -> None:
    assert [problem.what for problem in planned(FITS[name], tmp_path).problems] == []


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, tmp_path: Path) -> None:
    problems = planned(REFUSED[name], tmp_path).problems
    assert len(problems) == 1
    assert "a does not fit: " in problems[0].what


@pytest.mark.parametrize(
    ("gpus", "driver", "words"),
    [
        (("MIG-7",), True, "gpus MIG-7: the driver lists no such GPU"),
        ("all", False, "gpus all: no NVIDIA driver: nvidia-smi is not installed"),
    ],
)
def test_a_card_that_nobody_knows_is_told(
    gpus: Any, driver: bool, words: str, tmp_path: Path
) -> None:
    plan = planned(Case({"a": demand(gpus=gpus)}, (), ("a",), 1, driver=driver), tmp_path)
    assert f"whether a fits is not known: {words}" in plan.notes


def test_llama_cpp_takes_what_an_eviction_frees(tmp_path: Path) -> None:
    case = Case({"a": LLAMA, "b": VLLM}, ("b",), ("a",), 22, (("b", 22, "C"),))
    problems = planned(case, tmp_path).problems
    assert [problem.hint.partition(" (")[0] for problem in problems] == ["--evict stops b"]
    plan = planned(Case(**{**vars(case), "evict": True}), tmp_path)
    assert plan.problems == ()
    assert [step.target for step in plan.steps if step.action == "evict"] == ["b"]


def test_what_would_fit_is_told(tmp_path: Path) -> None:
    case = Case({"a": VLLM}, (), ("a",), 4, (("stranger", 4, "C"),))
    problems = planned(case, tmp_path).problems
    assert [problem.hint.partition(";")[0] for problem in problems] == [
        "a would fit with gpu-memory-utilization: 0.83"
    ]
    less = {"a": VLLM | {"options": {**VLLM["options"], "gpu-memory-utilization": 0.83}}}
    assert planned(Case(less, (), ("a",), 4, (("stranger", 4, "C"),)), tmp_path).problems == ()


def test_arithmetic_that_is_overridden(tmp_path: Path) -> None:
    """The plan starts it, and says that it would have been refused and who said so."""
    trusting = {"a": VLLM | {"admission": "warn"}}
    plan = planned(Case(trusting, (), ("a",), 22, (("stranger", 22, "C"),)), tmp_path)
    assert plan.problems == ()
    assert [step.target for step in plan.steps if step.action == "start"] == ["a"]
    assert any(
        note.startswith("started all the same, admission: warn of a: a does not fit: it needs")
        for note in plan.notes
    )


@pytest.mark.parametrize("kind", ["sglang", "tgi"])
def test_who_takes_what_is_free(kind: str, tmp_path: Path) -> None:
    """Others have some of the card: it takes the rest, and is refused for its weights alone."""
    for used, fits in ((0.004, True), (4, True), (12, False)):
        case = Case({"a": demand(kind)}, (), ("a",), used, (("stranger", used, "C"),))
        assert (planned(case, tmp_path).problems == ()) is fits


@pytest.mark.parametrize(
    ("owner", "kind", "refused"),
    [
        ("python", "C", True),
        ("python", "C+G", True),
        ("Xorg", "G", False),
        ("python", "M+C", False),
        ("/usr/bin/nvidia-cuda-mps-server", "C", False),
        ("python", "N/A", False),
    ],
)
def test_an_exclusive_card(owner: str, kind: str, refused: bool, tmp_path: Path) -> None:
    used = ((owner, 0.5, kind),)
    case = Case({"a": VLLM}, (), ("a",), 1, used, mode="Exclusive_Process")
    problems = planned(case, tmp_path).problems
    assert [f"and process 100 ({owner}) does" in problem.what for problem in problems] == (
        [True] if refused else []
    )


def test_sources_are_asked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each answers only once the other is asked, one of them with an error of a library."""
    both = threading.Barrier(2, timeout=20)
    parts = facts.source_parts

    def answer(need: Any, secrets: Any) -> Any:
        both.wait()
        if need.service == "b":
            raise ValueError("port out of range")
        return parts(need, secrets)

    monkeypatch.setattr(facts, "source_parts", answer)
    cpu = LLAMA | {"gpus": "none"}
    case = Case({"a": HALF, "b": cpu}, (), ("a", "b"), 0, total=64, available=60)
    problems = planned(case, tmp_path).problems
    assert [problem.what.partition(" take ")[0] for problem in problems] == [
        "a does not fit: weights"
    ]
    assert "Traceback" not in capsys.readouterr().err


def test_a_source_that_is_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read of it before stands in; without that it is unknown and refuses nothing."""
    case = Case({"a": HALF}, (), ("a",), 0)
    never = threading.Event()

    def late(need: Any, secrets: Any) -> Any:
        never.wait(20)
        raise FleetError("too late")

    monkeypatch.setattr(admitting, "SOURCE_SECONDS", 0.01)
    monkeypatch.setattr(facts, "source_parts", late)
    try:
        assert planned(case, tmp_path).problems == ()
        monkeypatch.undo()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        assert len(planned(case, tmp_path).problems) == 1
        monkeypatch.setattr(admitting, "SOURCE_SECONDS", 0.01)
        monkeypatch.setattr(facts, "source_parts", late)
        assert len(planned(case, tmp_path).problems) == 1
    finally:
        never.set()
