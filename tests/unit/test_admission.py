"""Who fits beside whom, who is stopped for whom, and in which words it is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from plan_cases import make_release

from inferfleet.capacity.admission.admission import decide, enough
from inferfleet.capacity.admission.owners import taken
from inferfleet.capacity.admission.situation import Situation
from inferfleet.capacity.held import Card, Container, Held, Holder
from inferfleet.capacity.term import Claim, Term
from inferfleet.capacity.verdict import judge

GIB = 1 << 30


def gib(number: float) -> int:
    return int(number * GIB)


def claim(service: str, size: float, pool: Any = "host", **more: Any) -> Claim:
    terms = (Term("weights", gib(size), "bytes"),)
    return Claim(service, pool, gib(size), terms=terms, **more)


def situation(
    acting: dict[str, float],
    running: dict[str, tuple[float, float]] | None = None,
    *,
    total: float = 100,
    others: float = 0,
    reserve: float = 0,
    demands: dict[str, dict[str, Any]] | None = None,
    wanted: frozenset[str] = frozenset(),
    foreign: dict[str, float] | None = None,
) -> Situation:
    """Main memory only. acting: service -> GiB claimed; running: service -> (claimed, held)."""
    up = running or {}
    holders = [Holder(name, name, gib(held)) for name, (_, held) in up.items()]
    holders += [Holder(label, "", gib(size)) for label, size in (foreign or {}).items()]
    available = gib(total - others - sum(held for _, held in up.values()))
    amounts = {**{name: size for name, (size, _) in up.items()}, **acting}
    return Situation(
        demands={name: {"evict": "allowed", **(demands or {}).get(name, {})} for name in amounts},
        hardware={"reserve": gib(reserve)},
        claims={name: claim(name, size) for name, size in amounts.items()},
        held=Held(gib(total), available, tuple(holders)),
        acting=list(acting),
        running=frozenset(up),
        wanted=wanted,
    )


@pytest.mark.parametrize(
    ("one", "fits"),
    [
        (situation({"a": 100}), True),
        (situation({"a": 100.1}), False),
        # The host's share is the larger of the reserve and what others have.
        (situation({"a": 90}, others=4, reserve=10), True),
        (situation({"a": 90}, others=12, reserve=10), False),
        # One that still loads will take what it claims; one that took more keeps it.
        (situation({"a": 50}, {"b": (50, 1)}), True),
        (situation({"a": 51}, {"b": (50, 1)}), False),
        (situation({"a": 50}, {"b": (40, 51)}), False),
        # What is replaced gives back what it has.
        (situation({"a": 100}, {"a": (100, 100)}), True),
        (situation({"a": 60, "b": 41}), False),
    ],
)
def test_room(one: Situation, fits: bool) -> None:
    verdict = decide(one, evict=False)
    assert (verdict.problems == ()) is fits
    assert verdict.evict == {}
    assert all(problem.hint for problem in verdict.problems)


NEVER = {"evict": "never"}
FULL = {"b": (30.0, 30.0), "c": (20.0, 20.0), "d": (50.0, 50.0)}


@pytest.mark.parametrize(
    ("acting", "more", "stopped"),
    [
        # The fewest, of several the smallest that is enough.
        (15, {}, ("c",)),
        (25, {}, ("b",)),
        (45, {}, ("d",)),
        (65, {}, ("c", "d")),
        (100, {}, ("b", "c", "d")),
        (101, {}, None),
        (45, {"demands": {"d": NEVER}}, ("b", "c")),
        (45, {"demands": {"d": NEVER, "c": NEVER}}, None),
        (45, {"wanted": frozenset({"d"})}, ("b", "c")),
    ],
)
def test_who_is_stopped(acting: float, more: dict[str, Any], stopped: tuple[str, ...]) -> None:
    one = situation({"a": acting}, FULL, **more)
    assert enough(one) == stopped
    verdict = decide(one, evict=True)
    assert tuple(sorted(verdict.evict)) == (stopped or ())
    assert (verdict.problems == ()) is (stopped is not None)
    assert verdict.room == (gib(acting) if stopped else 0)
    refused = decide(one, evict=False)
    assert refused.evict == {}
    assert len(refused.problems) == 1
    assert ("--evict stops" in refused.problems[0].hint) is (stopped is not None)


def test_many_services() -> None:
    """Too many to try every set: still enough, and none without which it would do."""
    running = {f"s{number:02}": (5.0, 5.0) for number in range(20)}
    one = situation({"a": 12}, running)
    chosen = enough(one)
    assert chosen is not None
    assert len(chosen) == 3


def test_words() -> None:
    one = situation(
        {"new": 60},
        {"old": (40.0, 38.0), "base": (5.0, 6.0)},
        others=10,
        reserve=2,
        foreign={"container db (postgres:18)": 9, "process 7 (cron)": 0.1},
        demands={"base": NEVER},
    )
    problem = decide(one, evict=False).problems[0]
    assert problem.what == (
        "new does not fit: it needs 60 GiB, and 44 GiB of 100 GiB main memory are left "
        "(less 10 GiB of others: container db (postgres:18) 9 GiB, 6 GiB of base and 40 GiB of "
        "old) [new: weights 60 GiB]"
    )
    assert problem.hint == (
        "--evict stops old (40 GiB of main memory) for it; `invoke down --service NAME` does so "
        "by hand"
    )
    assert decide(one, evict=True).evict == {"old": "makes room for new: 40 GiB of main memory"}
    hopeless = decide(situation({"new": 96}, {"base": (5, 5)}, demands={"base": NEVER}), True)
    assert "evict: never protects base" in hopeless.problems[0].hint
    both = decide(situation({"a": 60, "b": 50}), evict=False).problems[0].what
    assert both.startswith(
        "a and b do not fit: together they need 110 GiB (a 60 GiB and b 50 GiB), and 100 GiB of"
    )


def test_unknown_never_refuses() -> None:
    one = situation({"a": 1}, total=10)
    blind = Situation(
        {"a": {}}, {}, {"a": Claim("a", "device", None)}, one.held, ["a"], frozenset()
    )
    assert decide(blind, evict=False).problems == ()
    # A limit in the machine file stands for what nobody can compute.
    limited = Situation(
        {"a": {"memory": gib(11)}}, {}, {"a": Claim("a", "host", None)}, one.held, ["a"],
        frozenset(),
    )  # fmt: skip
    problem = decide(limited, evict=False).problems[0]
    assert "it needs 11 GiB, and 10 GiB of 10 GiB" in problem.what
    assert "11 GiB is its memory limit" in problem.what


@pytest.mark.parametrize(
    ("limit", "kind", "options", "refused"),
    [
        (20, "vllm", {}, ""),
        # Less than is certain: the kernel would end it.
        (8, "vllm", {}, "a does not fit: it takes 20 GiB of main memory, and memory: allows 8 GiB"),
        # Weights that are mapped from their file are dropped from memory and read again.
        (8, "llama-cpp", {}, ""),
        (8, "ollama", {}, ""),
        (4, "llama-cpp", {}, "takes 5 GiB of main memory, and memory: allows 4 GiB"),
        (8, "llama-cpp", {"no-mmap": True}, "takes 20 GiB of main memory"),
        (8, "llama-cpp", {"load-mode": "mmap+mlock"}, "takes 20 GiB of main memory"),
        (8, "ollama", {"use_mmap": False}, "takes 20 GiB of main memory"),
    ],
)
def test_a_limit_below_what_a_service_takes(
    limit: int, kind: str, options: dict[str, Any], refused: str
) -> None:
    demand = {"memory": gib(limit), "engine": kind, "options": options}
    one = situation({"a": 20}, total=30, demands={"a": demand})
    terms = (Term("weights", gib(15), "bytes"), Term("KV cache", gib(5), "bytes"))
    one = replace(one, claims={"a": Claim("a", "host", gib(20), terms=terms)})
    told = decide(one, evict=False).problems
    assert [refused in problem.what for problem in told] == ([True] if refused else [])
    assert judge(one, {}).fits is (not refused)
    # What is mapped takes no more than the limit lets it; the rest is never counted as less.
    mapped = kind == "llama-cpp" and not options
    taken = max(limit, 5) if mapped or (kind == "ollama" and not options) else 20
    assert one.need("a") == {"main memory": gib(taken)}


def test_a_limit_between_what_is_certain_and_what_is_estimated() -> None:
    demand = {"memory": gib(16), "engine": "vllm", "options": {}}
    one = situation({"a": 20}, total=30, demands={"a": demand})
    one = replace(one, claims={"a": replace(one.claims["a"], least=gib(15))})
    assert decide(one, evict=False).problems == ()
    assert one.need("a") == {"main memory": gib(20)}


def test_room_is_awaited_for_what_has_to_be_free() -> None:
    """On unified memory an engine may ask for more free memory than it takes then."""
    demands = {"a": {"engine": "vllm", "gpus": "all", "options": {}}}
    one = situation({"a": 60}, {"b": (50, 50)}, demands=demands)
    one = replace(
        one,
        hardware={"unified": True, "gpus": 1},
        claims={**one.claims, "a": Claim("a", "device", gib(60), ask=gib(90))},
        held=replace(one.held, cards=cards(0, total=None)),
    )
    verdict = decide(one, evict=True)
    assert list(verdict.evict) == ["b"]
    assert verdict.room == gib(90)


def test_what_cannot_start_alone() -> None:
    one = situation({"a": 1})
    bad = Claim("a", "host", gib(1), limits=("32,000 tokens of context need 8 GiB more",))
    told = decide(
        Situation(one.demands, {}, {"a": bad}, one.held, ["a"], frozenset()), evict=True
    ).problems
    assert [p.what for p in told] == ["a does not fit: 32,000 tokens of context need 8 GiB more"]


def cards(*free: float, total: float | None = 24, mode: str = "default") -> tuple[Card, ...]:
    return tuple(
        Card(i, f"GPU-{i}", None if total is None else gib(total), gib(one), mode)
        for i, one in enumerate(free)
    )


def on_gpus(
    size: float, gpus: Any, held: Held, running: frozenset[str] = frozenset(), **options: Any
) -> Situation:
    split = {"factors": [["tensor-parallel-size"]]}
    demand = {"engine": "vllm", "gpus": gpus, "options": options, "split": split}
    return Situation(
        {"a": demand, "b": {"engine": "llama-cpp", "gpus": "all", "options": {}}},
        {"reserve": gib(4)},
        {"a": claim("a", size, "device", host=gib(2)), "b": claim("b", 10, "device")},
        held,
        ["a"],
        running,
    )


@pytest.mark.parametrize(
    ("size", "gpus", "free", "options", "short"),
    [
        (20, "all", (24, 3), {}, []),  # it takes one GPU, the first
        (20, "all", (24, 3), {"tensor-parallel-size": 2}, ["GPU 1"]),
        (20, ["1"], (3, 24), {}, []),
        (20, ["GPU-1"], (24, 3), {}, ["GPU 1"]),
        (20, "none", (0, 0), {}, []),
    ],
)
def test_gpus(
    size: float, gpus: Any, free: tuple[float, ...], options: dict[str, Any], short: list[str]
) -> None:
    one = on_gpus(size, gpus, Held(gib(64), gib(64), cards=cards(*free)), **options)
    assert [room.pool for room in one.rooms() if not room.fits] == short


def test_a_gpu_that_ours_and_others_share() -> None:
    holders = (
        Holder("b", "b", gib(1), {0: gib(9)}),
        Holder("process 5 (python)", "", gib(1), {0: gib(6)}),
    )
    held = Held(gib(64), gib(60), holders, cards(24 - 9 - 6))
    one = on_gpus(12, "all", held, frozenset({"b"}))
    problem = decide(one, evict=False).problems[0].what
    assert "it needs 12 GiB, and 8 GiB of 24 GiB GPU 0 are left" in problem
    assert "(less 6 GiB of others: process 5 (python) 6 GiB and 10 GiB of b)" in problem
    assert decide(one, evict=True).evict == {"b": "makes room for a: 10 GiB of GPU 0"}


def test_unified_memory() -> None:
    """One pool: what CUDA took counts with the rest, and a container's limit does not bound it."""
    holders = (Holder("b", "b", gib(1), {0: gib(59)}),)
    held = Held(gib(120), gib(120 - 60 - 5), holders, cards(0, total=None))
    one = on_gpus(98, "all", held, frozenset({"b"}))
    assert one.unified
    problem = decide(one, evict=False).problems[0].what
    assert "it needs 100 GiB, and 55 GiB of 120 GiB main memory are left" in problem
    assert "5 GiB of others and 60 GiB of b" in problem
    assert problem.endswith("[a: weights 98 GiB, main memory of its processes 2 GiB]")
    verdict = decide(one, evict=True)
    assert verdict.evict == {"b": "makes room for a: 60 GiB of main memory"}
    assert verdict.room == gib(100)


def owned(
    containers: tuple[Container, ...] = (), cards_: tuple[Card, ...] = (), **demand: Any
) -> tuple[list[str], list[str]]:
    one = Situation(
        {"a": {"gpus": "all", "volumes": ["box_a-home"], "cpuset": "0-3", **demand}},
        {}, {}, Held(gib(8), gib(8), cards=cards_, containers=containers), ["a"], frozenset(),
    )  # fmt: skip
    problems, notes = taken(one, make_release({}))
    assert all(problem.hint for problem in problems)
    return [problem.what for problem in problems], notes


def test_owners() -> None:
    assert owned() == ([], [])
    ours = Container("box-a", "x:1", True, "box", "a", ("box_a-home",), "0-3")
    assert owned((ours,)) == ([], [])
    stranger = Container("box-a", "x:1", False, "shop", "web", ("box_a-home",), "0-3")
    taken_name = "the container name box-a of service a is taken by a stopped container of "
    assert owned((stranger,)) == ([f"{taken_name}compose project shop (x:1)"], [])
    alone = Container("db", "postgres:18", True, "", "", ("box_a-home",), "2-5")
    assert owned((alone,)) == (
        [],
        [
            "the volume box_a-home of service a is in use by container db (postgres:18)",
            "a and container db (postgres:18) are both pinned to CPU 2-3",
        ],
    )
    used = Card(0, "GPU-0", 1, 1, "exclusive-process", ("process 5 (python)",))
    lets_one = "GPU 0 of service a lets one process use it (exclusive-process), and "
    assert owned((), (used,))[0] == [f"{lets_one}process 5 (python) does"]
    assert owned((), (Card(0, "GPU-0", 1, 1, "exclusive-process", ("a",)),)) == ([], [])
    assert "lets no process use it" in owned((), (Card(0, "", 1, 1, "prohibited"),))[0][0]


def test_estimates_refuse_nothing_and_evict_only_when_asked() -> None:
    """What is certain of a newcomer has room, its estimate has not: doubtful, and no more."""
    one = situation({"a": 60}, {"b": (45.0, 45.0)})
    claims = {**one.claims, "a": replace(one.claims["a"], least=gib(50))}
    tight = replace(one, claims=claims)
    told = decide(tight, evict=False)
    assert told.problems == ()
    assert [*told.notes] == [
        (
            "whether it fits is doubtful: a needs 60 GiB, and 55 GiB of 100 GiB main memory are "
            "left (less 45 GiB of b)"
        )
    ]
    assert decide(tight, evict=True).evict == {"b": "makes room for a: 45 GiB of main memory"}
    short = replace(one, claims={**claims, "a": replace(one.claims["a"], least=gib(56))})
    assert "it needs 60 GiB" in decide(short, evict=False).problems[0].what


def test_room_for_what_is_certain_where_there_is_none_for_more() -> None:
    one = situation({"a": 90}, {"b": (30.0, 30.0), "c": (40.0, 40.0)}, demands={"b": NEVER})
    tight = replace(one, claims={**one.claims, "a": replace(one.claims["a"], least=gib(65))})
    assert enough(tight) == ("c",)
