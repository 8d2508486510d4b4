"""llama.cpp and Ollama over several GPUs: who gets what, and what is refused for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import model_configs as real
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferfleet.capacity.admission.admission import decide
from inferfleet.capacity.admission.admit import service_claim
from inferfleet.capacity.admission.loose import Loose, poured, settled
from inferfleet.capacity.admission.room import Room
from inferfleet.capacity.admission.situation import Situation
from inferfleet.capacity.engines.claim import claim
from inferfleet.capacity.engines.given import Given
from inferfleet.capacity.engines.layout import llama_layout, ollama_layout
from inferfleet.capacity.facts import Known
from inferfleet.capacity.held import Card, Held, Holder
from inferfleet.capacity.machine import live_memory
from inferfleet.capacity.shape.config import config_shape
from inferfleet.capacity.shape.shape import Shape, Weights
from inferfleet.capacity.term import Laid, Memory, Vram
from inferfleet.capacity.verdict import judge

GIB = 1 << 30
LLAMA = config_shape(real.LLAMA_8B)


def sized(gib: float) -> Shape:
    """Llama 3.1 8B's layers with weights of this size, of which all lie in its layers."""
    part = int(gib * GIB) // len(LLAMA.layers)
    layers = (part,) * len(LLAMA.layers)
    return replace(LLAMA, weights=Weights(sum(layers), layers=layers))


def memory(*cards: float, free: Sequence[float] = (), ordered: bool = True) -> Memory:
    """GPUs of so many GiB; free: of each, all where nothing is said."""
    each = tuple(
        Vram(int(total * GIB), int(left * GIB))
        for total, left in zip(cards, free or cards, strict=True)
    )
    smallest = int(min(cards) * GIB)
    least = min(one.free or 0 for one in each)
    return Memory(128 * GIB, smallest, len(cards), free=least, cards=each, ordered=ordered)


def situation(
    demands: dict[str, dict[str, Any]],
    shapes: dict[str, Shape],
    cards: Sequence[float],
    used: Sequence[float] = (),
    running: Mapping[str, Sequence[float]] | None = None,
    listed: bool = True,
) -> Situation:
    """used: GiB of others by GPU; running: service -> GiB that it has of each; listed: whether the
    driver tells whose."""
    up, others = running or {}, used or [0] * len(cards)
    has = {name: dict(enumerate(int(g * GIB) for g in each)) for name, each in up.items()}
    held = Held(
        128 * GIB,
        120 * GIB,
        tuple(Holder(name, name, 0, each) for name, each in has.items()) if listed else (),
        tuple(
            Card(i, f"GPU-{i}", int(total * GIB),
                 int((total - others[i]) * GIB) - sum(each[i] for each in has.values()))
            for i, total in enumerate(cards)
        ),
    )  # fmt: skip
    made = Situation(
        demands, {"reserve": 0}, {}, held, [n for n in demands if n not in up], frozenset(up)
    )
    for name in [*up, *made.acting]:
        one = service_claim(made, name, shapes.get(name))
        made = replace(made, claims={**made.claims, name: one})
    return made


def demand(kind: str = "llama-cpp", env: dict[str, str] | None = None, **options: Any) -> Any:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    gpus = named.pop("gpus", "all")
    return {"engine": kind, "options": named, "env": env or {}, "memory": None, "gpus": gpus}


ALL: dict[str, Any] = {"ngl": 99, "c": 4096}
# (kind, options, env, memory, proportions of weights, where, whether layers are moved)
Laying = tuple[str, dict[str, Any], dict[str, str], Memory, tuple[float, ...], str, bool]
LAYOUTS: list[Laying] = [
    ("llama-cpp", {}, {}, memory(24), (1,), "each", True),
    ("llama-cpp", {"fit": "off"}, {}, memory(24), (1,), "each", False),
    ("llama-cpp", {}, {}, memory(24, 24), (1, 1), "all", True),
    ("llama-cpp", {}, {}, memory(24, 12), (2, 1), "all", True),
    ("llama-cpp", {}, {}, memory(24, 24, free=(24, 6)), (4, 1), "all", True),
    ("llama-cpp", {}, {}, memory(24, 24, free=(0, 0)), (1, 1), "all", True),
    ("llama-cpp", {"tensor-split": "3,1"}, {}, memory(24, 24), (3, 1), "each", False),
    ("llama-cpp", {"ts": "3/1"}, {}, memory(24, 12), (3, 1), "all", False),
    ("llama-cpp", {"ts": "3"}, {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, memory(24, 12), (1, 0), "each",
     False),
    ("llama-cpp", {"ts": "3,1"}, {}, memory(24, 24, ordered=False), (3, 1), "all", False),
    ("llama-cpp", {"ts": "0,0"}, {}, memory(24, 12), (2, 1), "all", True),
    ("llama-cpp", {"ts": "much"}, {}, memory(24, 12), (2, 1), "all", True),
    ("llama-cpp", {}, {"LLAMA_ARG_TENSOR_SPLIT": "1,4"}, memory(24, 24), (1, 4), "each", False),
    ("llama-cpp", {"split-mode": "none"}, {}, memory(24, 24), (1, 0), "each", True),
    ("llama-cpp", {"sm": "none", "mg": 1}, {}, memory(24, 24), (0, 1), "each", True),
    ("llama-cpp", {"sm": "none", "mg": 1}, {}, memory(24, 12), (0, 1), "one", True),
    ("llama-cpp", {"sm": "none", "mg": -1}, {}, memory(24, 24), (0, 0), "each", True),
    # Rows by the whole memory of each GPU, whatever is free; split mode tensor evenly.
    ("llama-cpp", {"sm": "row"}, {}, memory(24, 12, free=(6, 12)), (2, 1), "all", False),
    ("llama-cpp", {"sm": "row", "ts": "1,1"}, {}, memory(24, 12), (1, 1), "all", False),
    ("llama-cpp", {"sm": "tensor"}, {}, memory(24, 12), (1, 1), "all", False),
    ("llama-cpp", {"sm": "tensor", "ts": "2,1"}, {}, memory(24, 12), (2, 1), "all", False),
    # 15 GiB and their cache on the GPU with most free memory, if 80 % of that are enough.
    ("ollama", {}, {}, memory(24, 24), (1, 0), "all", True),
    ("ollama", {}, {}, memory(24, 24, free=(20, 24)), (0, 1), "all", True),
    ("ollama", {}, {}, memory(24, 24, free=(18, 18)), (1, 1), "all", True),
    ("ollama", {}, {"OLLAMA_SCHED_SPREAD": "1"}, memory(24, 12), (2, 1), "all", True),
    ("ollama", {}, {"OLLAMA_SCHED_SPREAD": "false"}, memory(24, 12), (1, 0), "all", True),
    ("ollama", {"main_gpu": 1}, {}, memory(24, 24), (0, 1), "each", True),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(LAYOUTS)))
def test_layouts(number: int) -> None:
    kind, options, env, there, parts, where, moves = LAYOUTS[number]
    asked = Given(options, env)
    if kind == "ollama":
        found = ollama_layout(asked, there, 16 * GIB)
    else:
        found = llama_layout(asked, there)
    whole = sum(found.weights) or 1
    assert [one / whole for one in found.weights] == pytest.approx(
        [one / (sum(parts) or 1) for one in parts]
    )
    assert (found.where, found.moves, found.limit) == (where, moves, "")


def test_rows_lie_by_size_and_their_cache_by_what_is_free() -> None:
    """The help says the cache lies on --main-gpu; llama_kv_cache asks for the layer's device."""
    found = llama_layout(Given({"sm": "row"}, {}), memory(24, 12, free=(6, 12)))
    assert found.weights == (24 * GIB, 12 * GIB)
    assert found.cache == (6 * GIB, 12 * GIB)


# (options, GiB of weights, cards, GiB by card less the work, words of a limit)
CLAIMS: list[tuple[dict[str, Any], float, Memory, tuple[float, ...], str]] = [
    (ALL, 30, memory(24, 12), (20.3, 10.2), ""),
    (ALL, 30, memory(24, 24), (15.25, 15.25), ""),
    (ALL, 40, memory(24, 12), (27, 13.5), "take 40.5 GiB and its 2 GPUs have 36 GiB"),
    ({**ALL, "sm": "none"}, 31, memory(24, 24), (31.5, 0), "31.5 GiB of one GPU, which has 24"),
    ({**ALL, "sm": "none"}, 20, memory(24, 24), (20.5, 0), ""),
    ({**ALL, "sm": "none", "mg": 1}, 20, memory(24, 12), (0, 20.5), ""),
    ({**ALL, "sm": "none"}, 30, memory(24, 12), (30.5, 0), "of its 2 GPUs the largest has 24 GiB"),
    (
        {**ALL, "sm": "none", "mg": 2},
        3,
        memory(24, 24),
        (1.75, 1.75),
        "main-gpu 2 names none of its 2 GPUs",
    ),
    # 33 places: 25 layers, and 7 with the output, which has no weights of its own here.
    ({**ALL, "ts": "3,1"}, 32, memory(24, 24), (25.4, 7.1), "take 24.38 GiB of one GPU"),
    ({**ALL, "ts": "3,1"}, 24, memory(24, 24), (19.14, 5.36), ""),
    ({**ALL, "ts": "3,1"}, 32, memory(24, 24, ordered=False), (25.4, 7.1), ""),
    ({**ALL, "ts": "1,0"}, 20, memory(24, 24), (20.5, 0), ""),
]


@pytest.mark.parametrize("number", range(len(CLAIMS)))
def test_claims(number: int) -> None:
    options, weights, there, expected, words = CLAIMS[number]
    made = claim("a", "llama-cpp", options, sized(weights), there)
    assert (words in " ".join(made.limits)) if words else not made.limits
    assert made.laid is not None
    assert made.amount == max(made.laid.amounts)
    parts = [term.amount for term in made.terms if term.unit == "bytes"]
    assert sum(parts[:4]) == pytest.approx(made.amount, abs=1)
    work = sum(parts[2:4])
    for amount, gib in zip(made.laid.amounts, expected, strict=True):
        # A context is on every GPU that llama.cpp sees, with its buffers where it computes.
        beside = work if gib else GIB // 2
        assert (amount - beside) / GIB == pytest.approx(gib, rel=0.01, abs=0.01)


def test_one_gpu_is_what_it_was() -> None:
    one = claim("a", "llama-cpp", ALL, LLAMA, Memory(0, 24 * GIB, 1))
    assert claim("a", "llama-cpp", ALL, LLAMA, memory(24)) == one
    assert one.laid is None


def test_layers_go_where_there_is_room_for_them() -> None:
    """By what is free GPU 1 would be too full; fitting moves layers, a number of them does not."""
    there = memory(24, 6)
    fitted = claim("a", "llama-cpp", {"c": 4096}, sized(23), there)
    given_ = claim("a", "llama-cpp", ALL, sized(23), there)
    assert fitted.laid is not None
    assert given_.laid is not None
    assert fitted.laid.amounts[0] <= 23 * GIB
    assert fitted.laid.amounts[1] <= 5 * GIB
    assert given_.laid.amounts[1] > 5 * GIB
    assert given_.limits == ()


def test_without_fitting_all_layers_go_to_the_gpus() -> None:
    for options in ({"fit": "off"}, {"ts": "1,1"}, {"sm": "row"}, {"sm": "tensor"}):
        made = claim("a", "llama-cpp", {"c": 4096, **options}, sized(60), memory(24, 24))
        assert made.limits, options
    assert not claim("a", "llama-cpp", {"c": 4096}, sized(60), memory(24, 24)).limits


def test_proportions_of_layers_whose_sizes_are_not_known() -> None:
    """Which experts stay on the host is not told layer by layer: only the sum is certain then."""
    shape = config_shape(real.MORE["qwen3-30b-a3b"])
    shape = replace(shape, weights=replace(shape.weights, how="measured"))
    options = {**ALL, "ts": "1,1", "n-cpu-moe": 12}
    known = claim("a", "llama-cpp", {**ALL, "ts": "1,1"}, shape, memory(48, 48)).laid
    blind = claim("a", "llama-cpp", options, shape, memory(48, 48)).laid
    assert known is not None
    assert blind is not None
    assert (known.where, blind.where) == ("each", "all")
    assert blind.amounts[0] == blind.amounts[1] < known.amounts[0]


def test_ollama_on_one_of_two() -> None:
    made = claim("a", "ollama", {"num_ctx": 4096}, LLAMA, memory(24, 24, free=(20, 24)))
    assert made.laid is not None
    assert made.laid.amounts[0] == 0
    assert made.laid.amounts[1] == made.amount
    assert "on one of 2 GPUs" in made.terms[0].formula
    large = claim("a", "ollama", {"num_ctx": 4096, "num_gpu": 99}, sized(30), memory(24, 12))
    assert large.laid is not None
    assert large.limits == ()
    assert min(large.laid.amounts) > 8 * GIB
    # Its context goes by the memory of all GPUs, which are not as many times the smallest.
    long = claim("a", "ollama", {}, LLAMA, memory(36, 12))
    assert {t.name: t.amount for t in long.terms}["largest context"] == 131_072


def told(one: Situation, shapes: dict[str, Shape]) -> tuple[bool | None, list[str], list[str]]:
    """(whether it fits, problems, notes)."""
    verdict = judge(one, {name: Known(shapes[name]) for name in shapes})
    found = decide(one, evict=False)
    return verdict.fits, [problem.what for problem in found.problems], list(found.notes)


def test_unequal_cards_are_not_refused_for_the_smallest() -> None:
    shapes = {"a": sized(30)}
    fits, problems, _ = told(situation({"a": demand(**ALL)}, shapes, (24, 12)), shapes)
    assert fits is True
    assert problems == []


def test_what_is_short_on_one_card_alone_is_doubtful() -> None:
    """Rows lie by the cards' sizes; that GPU 1 is half taken is for llama.cpp to see."""
    shapes = {"a": sized(20)}
    one = situation({"a": demand(sm="row", **ALL)}, shapes, (24, 24), used=(0, 16))
    fits, problems, notes = told(one, shapes)
    assert (fits, problems) == (None, [])
    assert "doubtful" in notes[0]
    assert "GPU 1" in notes[0]


def test_what_all_cards_together_have_no_room_for() -> None:
    shapes = {"a": sized(30)}
    one = situation({"a": demand(**ALL)}, shapes, (24, 12), used=(4, 4))
    fits, problems, _ = told(one, shapes)
    assert fits is False
    assert len(problems) == 1
    assert "of 36 GiB GPU 0 and GPU 1 are left (less 8 GiB of others)" in problems[0]
    assert "28 GiB" in problems[0]
    assert "[a, of the GPU that gets most: weights 21.43 GiB" in problems[0]


def test_what_has_to_be_on_one_card() -> None:
    shapes = {"a": sized(20)}
    full = situation({"a": demand(sm="none", **ALL)}, shapes, (24, 24), used=(6, 0))
    fits, problems, _ = told(full, shapes)
    assert fits is False
    assert "18 GiB of 24 GiB GPU 0 are left" in problems[0]
    other = situation({"a": demand(sm="none", mg=1, **ALL)}, shapes, (24, 24), used=(6, 0))
    assert told(other, shapes)[0] is True
    # Which card CUDA counts first is not known of cards that differ: any that has room will do.
    for used, refused in (((0, 0), False), ((6, 0), True)):
        odd = situation({"a": demand(sm="none", mg=1, **ALL)}, shapes, (24, 12), used=used)
        assert bool(told(odd, shapes)[1]) is refused
    assert "18 GiB of 24 GiB GPU 0 are left" in told(odd, shapes)[1][0]


def test_proportions_of_the_user_are_certain() -> None:
    shapes = {"a": sized(24)}
    part = {"a": demand(ts="3,1", **ALL)}
    assert told(situation(part, shapes, (24, 24)), shapes)[0] is True
    # Of 19 GiB one layer of 0.77 may lie on the other.
    assert told(situation(part, shapes, (24, 24), used=(5.5, 0)), shapes)[0] is None
    assert told(situation(part, shapes, (24, 24), used=(6, 0)), shapes)[0] is False
    assert told(situation(part, shapes, (24, 24), used=(0, 12)), shapes)[0] is True


def test_two_at_once() -> None:
    """Each by itself is laid by all that is free; together they are measured against the sum."""
    shapes = {"a": sized(16), "b": sized(16)}
    both = {name: demand(**ALL) for name in shapes}
    assert told(situation(both, shapes, (24, 12)), shapes)[1] == []
    fits, problems, _ = told(situation(both, shapes, (20, 10)), shapes)
    assert fits is False
    assert "together they need" in problems[0]


@pytest.mark.parametrize("listed", [True, False])
def test_one_that_runs_stays_where_it_is(listed: bool) -> None:
    """It was laid by what was free when it started, which is not what is free now."""
    shapes = {"a": sized(16), "b": sized(8)}
    demands = {"a": demand(**ALL), "b": demand(sm="none", **ALL)}
    running = {"a": (9.5, 9.5)}
    one = situation(demands, shapes, (24, 24), used=(0, 13), running=running, listed=listed)
    kept, laid = one.keeps("a"), one.claims["a"].laid
    assert laid is not None
    if listed:
        assert laid.amounts[0] > 10.5 * GIB
        assert (kept["GPU 0"], kept["GPU 1"]) == (9.5 * GIB, 9.5 * GIB)
    else:
        assert kept["GPU 0"] + kept["GPU 1"] == pytest.approx(sum(laid.amounts), rel=0.01)
    assert told(one, shapes)[1] == []
    # One that still loads will take the rest.
    early = situation(demands, shapes, (24, 24), running={"a": (5, 0)})
    assert sum(early.keeps("a").get(f"GPU {n}", 0) for n in (0, 1)) >= 16 * GIB


def test_a_service_that_makes_room_on_several() -> None:
    shapes = {"a": sized(30), "b": sized(20)}
    demands = {"a": demand(**ALL), "b": demand(**ALL)}
    running = {"b": (11, 11)}
    one = situation(demands, shapes, (24, 24), running=running)
    problem = decide(one, evict=False).problems[0]
    assert "48 GiB GPU 0 and GPU 1" in problem.what
    assert "of GPU 0 and GPU 1) for it" in problem.hint
    assert list(decide(one, evict=True).evict) == ["b"]


def test_of_other_engines_the_smallest_card_counts() -> None:
    shapes = {"a": LLAMA}
    asked = {**demand("vllm"), "options": {"tensor-parallel-size": 2, "max-model-len": 4096},
             "split": {"factors": [["tensor-parallel-size"]]}}  # fmt: skip
    one = situation({"a": asked}, shapes, (24, 12))
    assert one.need("a")["GPU 0"] == one.need("a")["GPU 1"] == pytest.approx(0.92 * 12 * GIB)


def test_what_a_machine_says_of_its_cards() -> None:
    cards = (Card(0, "GPU-a", 24 * GIB, 20 * GIB), Card(1, "GPU-b", 12 * GIB, None))
    there = live_memory({}, "all", Held(1, 1, cards=cards), {"GPU 0": 8 * GIB})
    assert there.cards == (Vram(24 * GIB, 24 * GIB), Vram(12 * GIB))
    assert (there.device, there.gpus, there.ordered) == (12 * GIB, 2, True)
    assert live_memory({}, ["1", "0"], Held(1, 1, cards=cards)).ordered is False
    assert live_memory({}, ["GPU-a", "1"], Held(1, 1, cards=cards)).ordered is True
    assert live_memory({}, ["1"], Held(1, 1, cards=cards)).places == (Vram(12 * GIB),)
    shared = Memory(128 * GIB, 128 * GIB, 2, unified=True)
    assert shared.places == (Vram(128 * GIB),)
    assert Memory(128 * GIB).places == ()


def rooms(*left: int) -> list[Room]:
    return [Room(f"GPU {n}", 100, 100 - size, 0, {}, {}) for n, size in enumerate(left)]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 100), min_size=1, max_size=4),
    st.lists(st.integers(0, 150), min_size=1, max_size=3),
)
def test_what_is_poured_is_all_there(left: list[int], amounts: list[int]) -> None:
    pools = tuple(f"GPU {n}" for n in range(len(left)))
    loose = [Loose(f"s{n}", pools, amount, amount) for n, amount in enumerate(amounts)]
    found, lacking = poured(rooms(*left), loose)
    assert sum(room.need for room in found) >= sum(amounts)
    assert (not lacking) is (sum(amounts) <= sum(left))
    assert all(room.fits for room in found) is (not lacking)


def test_whole_parts_are_placed_where_they_fill_best() -> None:
    pools = ("GPU 0", "GPU 1")
    loose = [Loose(name, pools, size, size, one=True) for name, size in
             (("a", 6), ("b", 6), ("c", 10))]  # fmt: skip
    found, lacking = poured(rooms(12, 10), loose)
    assert lacking == []
    assert [room.need for room in found] == [12, 10]
    assert [one.service for one in poured(rooms(12, 9), loose)[1]] == ["b"]


def test_settled() -> None:
    pools = ("x", "y")
    assert settled({"x": 10, "y": 10}, {"x": 13, "y": 7, "z": 1}, pools) == {
        "x": 10, "y": 10, "z": 1,
    }  # fmt: skip
    assert settled({"x": 10}, {"x": 10, "y": 10}, pools) == {"x": 10, "y": 10}
    assert settled({}, {"x": 3, "y": 1}, pools) == {"x": 3, "y": 1}
    assert settled({"x": 9}, {"x": 3, "y": 1}, pools) == {"x": 9, "y": 0}


def test_a_claim_that_is_not_laid_out_is_alike_on_each() -> None:
    one = situation({"a": demand(**ALL)}, {"a": LLAMA}, (24, 24))
    plain = replace(one.claims["a"], laid=None, amount=7)
    alike = replace(one, claims={"a": plain})
    assert {alike.need("a")[f"GPU {n}"] for n in (0, 1)} == {7}
    laid = Laid((5, 0), (4, 0), "each")
    apart = replace(one, claims={"a": replace(plain, laid=laid)})
    assert apart.need("a")["GPU 0"] == 5
    assert "GPU 1" not in apart.need("a")
    assert apart.need("a", least=True)["GPU 0"] == 4
