"""What services are measured against: what is free, what is certain, what they ask for at first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import model_configs as real
import pytest

from inferfleet.capacity.admission.admission import decide
from inferfleet.capacity.admission.admit import advice, service_claim
from inferfleet.capacity.admission.remedy import largest, remedies, words
from inferfleet.capacity.admission.situation import Situation
from inferfleet.capacity.engines.claim import claim, demand_claim
from inferfleet.capacity.facts import Known
from inferfleet.capacity.held import Card, Held, Holder
from inferfleet.capacity.shape.config import config_shape
from inferfleet.capacity.shape.shape import Shape, Weights
from inferfleet.capacity.term import Memory
from inferfleet.capacity.verdict import Verdict, judge, remedy, sentence

GIB = 1 << 30
LLAMA = config_shape(real.LLAMA_8B)
QWEN = config_shape(real.QWEN3_32B | {"quantization_config": real.FP8})
SPLIT = {
    "vllm": {"factors": [["tensor-parallel-size"], ["data-parallel-size"]]},
    "sglang": {
        "factors": [["tp-size", "tensor-parallel-size"], ["dp-size"]],
        "without": {"enable-dp-attention": ["dp-size"]},
        "elsewhere": ["nnodes"],
    },
    "tgi": {"factors": [["num-shard"]]},
}


def demand(kind: str, options: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "engine": kind, "options": options or {}, "env": {}, "memory": None, "gpus": "all",
        "split": SPLIT.get(kind), **more,
    }  # fmt: skip


def situation(
    demands: dict[str, dict[str, Any]],
    shapes: dict[str, Shape],
    *,
    total: float = 32,
    used: float = 0,
    cards: int = 1,
    running: dict[str, float] | None = None,
    unified: bool = False,
    reserve: float = 0,
) -> Situation:
    """Cards of `total` GiB with `used` of others; running: service -> GiB it has on the first."""
    up = running or {}
    free = int((total - used - sum(up.values())) * GIB)
    all_of = int(total * GIB)
    memory = None if unified else all_of
    held = Held(
        all_of if unified else 128 * GIB,
        free if unified else 120 * GIB,
        tuple(Holder(name, name, 0, {0: int(size * GIB)}) for name, size in up.items()),
        tuple(Card(i, f"GPU-{i}", memory, None if unified else free) for i in range(cards)),
    )
    acting = [name for name in demands if name not in up]
    hardware = {"unified": unified, "reserve": int(reserve * GIB)}
    made = Situation(demands, hardware, {}, held, acting, frozenset(up))
    for name in [*up, *acting]:
        one = service_claim(made, name, shapes.get(name))
        made = replace(made, claims={**made.claims, name: one})
    return made


def known(shapes: dict[str, Shape], *names: str) -> dict[str, Known]:
    return {name: Known(shapes.get(name), why="the hub is down") for name in names}


def verdict(one: Situation, shapes: dict[str, Shape]) -> Verdict:
    models = [name for name in one.acting if one.demands[name]["engine"] in SPLIT]
    return judge(one, known(shapes, *models))


@pytest.mark.parametrize("kind", ["sglang", "tgi"])
@pytest.mark.parametrize("used", [0, 0.004, 0.6, 4])
def test_who_takes_what_is_free_fits_what_is_free(kind: str, used: float) -> None:
    shapes = {"a": LLAMA}
    one = situation({"a": demand(kind)}, shapes, used=used)
    assert one.claims["a"].amount is not None
    assert one.claims["a"].amount <= (32 - used) * GIB
    assert verdict(one, shapes).fits is True
    assert decide(one, evict=False).problems == ()


@pytest.mark.parametrize("kind", ["sglang", "tgi"])
def test_who_takes_what_is_free_is_refused_for_its_weights(kind: str) -> None:
    shapes = {"a": replace(LLAMA, weights=Weights(15 * GIB))}
    one = situation({"a": demand(kind)}, shapes, used=18)
    assert verdict(one, shapes).fits is False
    assert "it needs" in decide(one, evict=False).problems[0].what
    large = {"a": replace(LLAMA, weights=Weights(33 * GIB))}
    assert situation({"a": demand(kind)}, large).claims["a"].limits


def test_tgi_keeps_what_its_fraction_leaves() -> None:
    """free - (1 - fraction) * total."""
    made = claim(
        "a", "tgi", {"cuda-memory-fraction": 0.75}, LLAMA, Memory(0, 32 * GIB, 1, free=30 * GIB)
    )
    assert made.amount == 22 * GIB
    assert made.least is not None
    assert made.least - 8 * GIB == int(LLAMA.weights.total * 0.95)


def test_sglang_takes_its_fraction_of_what_is_free() -> None:
    memory = Memory(0, 32 * GIB, 1, free=20 * GIB)
    made = claim("a", "sglang", {"mem-fraction-static": 0.9}, None, memory)
    assert made.terms[0].amount == int(0.9 * 20 * GIB)
    assert made.amount == 20 * GIB


def test_two_who_take_what_is_free() -> None:
    """Who starts second finds nothing: that is not known, and refused nobody."""
    shapes = {"a": LLAMA, "b": LLAMA}
    one = situation({"a": demand("tgi"), "b": demand("tgi")}, shapes, total=80)
    assert verdict(one, shapes).fits is None
    told = decide(one, evict=False)
    assert told.problems == ()
    assert "doubtful" in told.notes[0]
    # One that runs has taken what it takes; what is free now is free for the next.
    second = situation(
        {"a": demand("tgi"), "b": demand("tgi")}, shapes, total=80, running={"a": 40}
    )
    assert verdict(second, shapes).fits is True


def test_on_unified_memory_the_host_has_its_share() -> None:
    shapes = {"a": LLAMA}
    one = situation({"a": demand("tgi")}, shapes, total=120, unified=True, reserve=12)
    assert verdict(one, shapes).fits is False
    part = {"a": demand("tgi", {"cuda-memory-fraction": 0.5})}
    assert verdict(situation(part, shapes, total=120, unified=True, reserve=12), shapes).fits


def test_vllm_asks_for_its_share_to_be_free() -> None:
    """Also where its cache has a size of its own (request_memory)."""
    shapes = {"a": LLAMA}
    options = {"kv-cache-memory-bytes": GIB, "max-model-len": 4096}
    fits = situation({"a": demand("vllm", options)}, shapes, used=2)
    assert verdict(fits, shapes).fits is True
    one = situation({"a": demand("vllm", options)}, shapes, used=8)
    assert one.rooms()[0].need < 24 * GIB
    told = decide(one, False, advice(one, shapes)).problems[0]
    assert "it starts only where 29.44 GiB are free, and 24 GiB of 32 GiB GPU 0 are" in told.what
    assert "a would fit with gpu-memory-utilization: 0.75" in told.hint
    less = {**options, "gpu-memory-utilization": 0.75}
    assert verdict(situation({"a": demand("vllm", less)}, shapes, used=8), shapes).fits is True


UNREAD: list[tuple[str, dict[str, Any], bool]] = [
    ("vllm", {}, False),
    ("vllm", {"kv-cache-memory-bytes": GIB}, False),
    ("vllm", {"kv-cache-memory-bytes": GIB, "max-model-len": 10}, True),
    ("vllm", {"gpu-memory-utilization": 0.5}, True),
    ("sglang", {}, False),
    ("tgi", {"cuda-memory-fraction": 0.5}, True),
    ("llama-cpp", {}, False),
    ("ollama", {}, True),
    ("triton", {}, True),
]


@pytest.mark.parametrize(("kind", "options", "unified"), UNREAD)
@pytest.mark.parametrize("limit", [None, 4 * GIB])
def test_a_model_that_cannot_be_read(
    kind: str, options: dict[str, Any], unified: bool, limit: int | None
) -> None:
    """Never 'fits', whatever limit a container has: it does not bound what CUDA takes."""
    one = situation({"a": demand(kind, options, memory=limit)}, {}, unified=unified, total=120)
    told = judge(one, known({}, "a"))
    assert told.fits is None
    assert sentence(["a"], told) == (
        "a: not known whether it fits: the model of a could not be read: the hub is down"
    )
    assert decide(one, evict=False).problems == ()


def test_a_cache_that_is_larger_than_the_memory() -> None:
    """Also without the model, and beside a container's limit."""
    options = {"kv-cache-memory-bytes": 130_000_000_000}
    one = situation(
        {"a": demand("vllm", options, memory=4 * GIB)}, {}, total=121.69, unified=True, reserve=12
    )
    told = judge(one, known({}, "a"))
    assert told.fits is False
    assert "it needs 125.07 GiB" in told.why
    assert told.why.endswith("the model of a could not be read: the hub is down")


def test_a_cache_type_whose_size_is_not_known() -> None:
    shapes = {"a": LLAMA}
    one = situation({"a": demand("vllm", {"kv-cache-dtype": "turboquant_k8v4"})}, shapes, total=80)
    told = verdict(one, shapes)
    assert told.fits is None
    assert "turboquant_k8v4 is not known" in told.why
    assert "KV tokens" not in {term.name for term in one.claims["a"].terms}


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("vllm", {"tensor-parallel-size": 8}, "tensor-parallel-size 8 needs 8 GPUs, and it has 1"),
        ("vllm", {"tensor-parallel-size": 2, "data-parallel-size": 2},
         "tensor-parallel-size 2 x data-parallel-size 2 needs 4 GPUs, and it has 1"),
        ("sglang", {"tp-size": 4}, "tp-size 4 needs 4 GPUs"),
        ("sglang", {"tp-size": 4, "nnodes": 4}, ""),
        ("sglang", {"tp-size": 1, "dp-size": 2, "enable-dp-attention": True}, ""),
        ("tgi", {"num-shard": 2}, "num-shard 2 needs 2 GPUs"),
    ],
)  # fmt: skip
def test_more_gpus_than_there_are(kind: str, options: dict[str, Any], words: str) -> None:
    shapes = {"a": LLAMA}
    one = situation({"a": demand(kind, options)}, shapes, total=94)
    problems = [problem.what for problem in decide(one, evict=False).problems]
    assert (words in problems[0]) if words else problems == []
    assert verdict(one, shapes).fits is (not words)
    enough = situation({"a": demand(kind, options)}, shapes, total=94, cards=8)
    assert verdict(enough, shapes).fits is True


def test_replicas() -> None:
    """Each has a cache of its own; the main memory holds the processes of all."""
    memory = Memory(256 * GIB, 94 * GIB, 4)
    one = claim("a", "vllm", {}, LLAMA, memory)
    two = claim("a", "vllm", {"data-parallel-size": 2, "tensor-parallel-size": 2}, LLAMA, memory)
    assert (one.host, two.host) == (4 * GIB, 10 * GIB)
    names = {term.name for term in two.terms}
    assert "KV tokens, each replica" in names
    assert "concurrency, each replica" in names
    assert "KV tokens" not in names
    cpu = Memory(256 * GIB)
    single, double = (
        claim("a", "vllm", {"data-parallel-size": n}, LLAMA, cpu, {"VLLM_CPU_KVCACHE_SPACE": "4"})
        for n in (1, 2)
    )
    assert single.amount is not None
    assert double.amount is not None
    assert double.amount - single.amount > LLAMA.weights.total


def test_a_family_that_is_not_known_refuses_nothing_by_its_cache() -> None:
    odd = replace(LLAMA, kv="estimated", weights=Weights(6 * GIB))
    options = {"ctx-size": 131_072, "ngl": "all"}
    for shape, fits in ((odd, None), (replace(odd, kv="exact"), False)):
        one = situation({"a": demand("llama-cpp", options)}, {"a": shape}, total=16)
        assert judge(one, known({"a": shape}, "a")).fits is fits
        assert (decide(one, evict=False).problems == ()) is (fits is None)


HELPER: dict[str, Any] = {"gpus": "none", "estimate": GIB}


def test_helpers_without_a_word_of_their_memory() -> None:
    """What is usual for their kind counts for capacity, and refuses nothing."""
    one = situation({"a": demand("jupyter", **HELPER)}, {})
    assert judge(one, {}).fits is True
    assert one.claims["a"].terms[0].how == "estimated"
    large = situation({"a": demand("jupyter", **{**HELPER, "estimate": 200 * GIB})}, {})
    assert judge(large, {}).fits is None
    assert decide(large, evict=False).problems == ()
    declared = situation({"a": demand("jupyter", **HELPER, memory=200 * GIB)}, {})
    assert judge(declared, {}).fits is False
    assert declared.claims["a"].terms[0].how == "declared"
    # An exporter that watches GPUs takes none of their memory.
    card = demand("dcgm-exporter", estimate=GIB)
    assert judge(situation({"a": card}, {}), {}).fits is True
    bare = judge(situation({"a": demand("echo", gpus="none")}, {}), {})
    assert bare.fits is None
    assert "memory: in its machine file declares it" in bare.why


def test_arithmetic_that_is_not_trusted() -> None:
    """admission: warn starts it, and the plan says so; others are refused as ever."""
    shapes = {"a": LLAMA, "b": LLAMA}
    asked = {"a": demand("vllm", {"max-model-len": 4096}, admission="warn")}
    one = situation(asked, shapes, used=20)
    told = decide(one, evict=False)
    assert told.problems == ()
    assert told.notes[0].startswith(
        "started all the same, admission: warn of a: a does not fit: it needs 29.44 GiB"
    )
    long = {"a": demand("vllm", {"max-model-len": 10**6}, admission="warn")}
    told = decide(situation(long, shapes), evict=False)
    assert (told.problems, len(told.notes)) == ((), 1)
    assert "a request of max-model-len" in told.notes[0]
    short = {"gpu-memory-utilization": 0.7, "max-model-len": 4096}
    both = {"a": demand("vllm", short), "b": demand("vllm", short, admission="warn")}
    assert decide(situation(both, shapes), evict=False).problems == ()
    assert decide(situation(both, shapes, used=20), evict=False).problems
    # What such a service holds counts, not what the arithmetic makes of it.
    stays = situation({**asked, "b": demand("tgi")}, shapes, running={"a": 5})
    assert stays.rooms()[0].kept == {"a": 5 * GIB}


# (kind, options, shape, GiB of others, what would fit)
REMEDIES: list[tuple[str, dict[str, Any], Shape | None, float, tuple[dict[str, Any], ...]]] = [
    ("vllm", {}, LLAMA, 0, ({"max-model-len": 105_000},)),
    ("vllm", {"gpu-memory-utilization": 0.5, "max-model-len": 16_384}, LLAMA, 0,
     ({"gpu-memory-utilization": 0.58}, )),
    ("vllm", {"max-model-len": 131_072}, LLAMA, 8,
     ({"gpu-memory-utilization": 0.75, "max-model-len": 60_000},)),
    ("vllm", {"max-model-len": 4096}, LLAMA, 8, ({"gpu-memory-utilization": 0.75},)),
    ("vllm", {"max-model-len": 4096, "kv-cache-memory-bytes": "20G"}, LLAMA, 0,
     ({"kv-cache-memory-bytes": 15 * GIB},)),
    ("vllm", {}, QWEN, 0, ()),
    ("llama-cpp", {"ctx-size": 131_072, "ngl": 99}, LLAMA, 8, ({"ctx-size": 76_288},)),
    ("ollama", {"num_ctx": 131_072, "num_gpu": 99}, LLAMA, 8, ({"num_ctx": 71_936},)),
    ("sglang", {}, LLAMA, 20, ()),
    ("vllm", {"kv-cache-memory-bytes": "40G"}, None, 0, ()),
    ("tgi", {}, None, 0, ()),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(REMEDIES)))
def test_the_largest_setting_that_fits(number: int) -> None:
    kind, options, shape, used, expected = REMEDIES[number]
    shapes = {"a": shape} if shape else {}
    one = situation({"a": demand(kind, options)}, shapes, used=used)

    def again(other: Situation, service: str) -> Any:
        return service_claim(other, service, shape)

    found = remedies(one, "a", again)
    names = [tuple(setting) for setting in found]
    assert names == [tuple(setting) for setting in expected]
    for setting, wanted in zip(found, expected, strict=True):
        for name, value in setting.items():
            assert value == pytest.approx(wanted[name], rel=0.03)
        fits = situation({"a": demand(kind, {**options, **setting})}, shapes, used=used)
        assert verdict(fits, shapes).fits is True


def test_the_sparks_own_example() -> None:
    """0.92 of 121.69 GiB is more than is left beside the host's 12."""
    one = situation(
        {"a": demand("vllm", {"max-model-len": 32_000})}, {"a": QWEN}, total=121.69, unified=True,
        reserve=12,
    )  # fmt: skip
    told = judge(one, known({"a": QWEN}, "a"))
    assert told.fits is False
    found = remedies(one, "a", lambda other, service: service_claim(other, service, QWEN))
    assert found == ({"gpu-memory-utilization": 0.86},)
    assert remedy("a", replace(told, remedies=found)) == (
        "a would fit with gpu-memory-utilization: 0.86"
    )
    assert remedy("a", told) == ""
    said = words([{"x": 1, "y": 0.5}, {"z": 2}])
    assert said == "would fit with x: 1 and y: 0.5, or with z: 2"


@pytest.mark.parametrize(
    ("fits", "most", "found"),
    [
        (lambda n: n <= 7, 100, 7),
        (lambda n: True, 100, 100),
        (lambda n: False, 100, 0),
        (lambda n: n <= 1, 1, 1),
    ],
)
def test_largest(fits: Callable[[int], bool], most: int, found: int) -> None:
    assert largest(fits, most) == found


def test_a_declared_shape_is_marked() -> None:
    shape = replace(LLAMA, source="declared")
    made = demand_claim("a", demand("vllm"), shape, Memory(0, 80 * GIB, 1))
    terms = {term.name: term.how for term in made.terms}
    assert terms["KV per token"] == "declared"
    assert "exact" not in terms.values()
