"""Verdicts on services, counters, ages, causes in logs, restart policies: tables."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest

from inferfleet.amounts import parse_span
from inferfleet.health.ask import Reply, Sample, read_sample
from inferfleet.health.judge import Evidence, judge, rate
from inferfleet.load.load import load_fleet
from inferfleet.observe.observed import UnitState
from inferfleet.observe.states import age
from inferfleet.paths import find_roots
from inferfleet.release.failure import Failure, find_cause, latest, own_words
from inferfleet.release.release import Counters
from inferfleet.schema.fleet import Fleet
from inferfleet.schema.machine import Machine
from inferfleet.schema.restart import Restart
from inferfleet.services.resolve import resolve
from inferfleet.services.restarts import policy

OLD = UnitState("running", "Up 3 hours (healthy)")
YOUNG = UnitState("running", "pid 7, up 12 s, restarts 0")
UP = Reply("ok", "/health answers 200", 0.01)
TOKEN = Reply("ok", "generated a token", 0.2)
SILENT = Reply("silent", "no answer")
LATE = Reply("silent", "healthy, but no answer to a request (ReadTimeout)", 30.0)


def sample(at: float, tokens: float | None, progress: float, running: float = 1) -> Sample:
    return Sample(at, tokens, progress, running)


# What was found -> verdict, and words that its explanation has.
VERDICTS: list[tuple[str, dict[str, Any], str, str]] = [
    ("nothing there", {"state": None}, "stopped", "nothing runs"),
    ("stopped", {"state": UnitState("stopped", "")}, "stopped", "nothing runs"),
    ("failed", {"state": UnitState("failed", "exit 3, gave up after 3 restarts")}, "dead", "gave"),
    ("loop", {"state": UnitState("restarting", "restarts 2")}, "dead", "does not stay up"),
    ("no port", {}, "healthy", "no port"),
    ("a token", {"health": UP, "token": TOKEN}, "healthy", "generated a token"),
    ("http only", {"health": UP, "token": None}, "healthy", ""),
    ("loads", {"health": Reply("loading", "/health answers 503")}, "loading", "after 180 min"),
    (
        "loads, young",
        {"state": YOUNG, "health": Reply("loading", "/health answers 503")},
        "loading",
        "/health answers 503",
    ),
    ("closed, young", {"state": YOUNG, "health": Reply("closed", "no answer")}, "loading", "12 s"),
    (
        "closed, starting",
        {"state": UnitState("starting", "activating"), "health": Reply("closed", "no answer")},
        "loading",
        "unknown part",
    ),
    ("closed, old", {"health": Reply("closed", "no answer")}, "dead", "runs, but no answer"),
    ("silent, young", {"state": YOUNG, "health": Reply("silent", "no answer")}, "loading", ""),
    (
        "silent, was ready", {"state": YOUNG, "health": SILENT, "answered": True}, "unreachable",
        "runs and listens",
    ),
    (
        "closed, was ready", {"state": YOUNG, "health": Reply("closed", "no answer"),
        "answered": True}, "dead", "runs, but no answer",
    ),
    ("evicted", {"state": None, "evicted": "ann@a at 9"}, "evicted", "make room by ann@a at 9"),
    (
        "evicted, a process", {"state": UnitState("stopped", ""), "evicted": "ann@a at 9"},
        "evicted", "ann@a",
    ),
    ("was evicted once", {"evicted": "ann@a at 9"}, "healthy", "no port"),
    ("silent, old", {"health": SILENT}, "unreachable", "runs and listens"),
    ("silent, a token", {"health": SILENT, "token": TOKEN}, "healthy", "generated a token"),
    (
        "silent at work",
        {"health": SILENT, "token": LATE, "before": sample(0, 5, 5), "after": sample(30, 5, 9)},
        "busy",
        "works on the tokens",
    ),
    (
        "silent and stuck",
        {"health": SILENT, "token": LATE, "before": sample(0, 5, 5), "after": sample(30, 5, 5)},
        "stuck",
        "none of 1 request has advanced",
    ),
    ("engine died", {"health": Reply("error", "/health answers 500")}, "dead", "500"),
    (
        "key", {"health": UP, "token": Reply("denied", "/v1 answers 401")}, "unreachable", "our key"
    ),
    ("429", {"health": UP, "token": Reply("busy", "/v1 answers 429")}, "busy", "429"),
    ("500", {"health": UP, "token": Reply("error", "/v1 answers 500: boom")}, "dead", "boom"),
    ("503", {"health": UP, "token": Reply("error", "/v1 answers 503: full")}, "dead", "full"),
    (
        "503 at work",
        {
            "health": UP, "token": Reply("error", "/v1 answers 503: full"),
            "before": sample(0, 5, 5), "after": sample(1, 9, 9),
        },
        "busy",
        "full",
    ),
    ("no counters", {"health": UP, "token": LATE}, "unreachable", "no counters"),
    (
        "counters late", {"health": UP, "token": LATE, "late": True}, "unreachable",
        "its counters did not answer in time",
    ),
    (
        "counters late once",
        {"health": UP, "token": LATE, "before": sample(0, 5, 5), "late": True},
        "unreachable",
        "its counters did not answer in time",
    ),
    (
        "counters gone", {"health": UP, "token": LATE, "before": sample(0, 5, 5)}, "unreachable",
        "do not answer any more",
    ),
    (
        "counted at the end",
        {
            "health": UP, "token": LATE, "before": Sample(0, 5, 5, 3, meanwhile=False),
            "after": Sample(30, 5, 5, 3, meanwhile=False),
        },
        "unreachable",
        "move only when a request ends",
    ),
    (
        "nothing under way",
        {"health": UP, "token": LATE, "before": sample(0, 5, 5), "after": sample(30, 5, 5, 0)},
        "unreachable",
        "no counter that tells of a request under way",
    ),
    (
        "a gauge fell",
        {"health": UP, "token": LATE, "before": sample(0, 5, 5.5), "after": sample(30, 5, 5.25)},
        "busy",
        "works on the tokens",
    ),
    (
        "stuck",
        {"health": UP, "token": LATE, "before": sample(0, 5, 5), "after": sample(30, 5, 5, 3)},
        "stuck",
        "none of 3 requests has advanced",
    ),
    (
        "busy",
        {"health": UP, "token": LATE, "before": sample(0, 5, 5), "after": sample(30, 95, 95, 4)},
        "busy",
        "works on the tokens of 4 requests",
    ),
    (
        "busy with a prompt",
        {"health": UP, "token": LATE, "before": sample(0, 5, 5), "after": sample(30, 5, 2005)},
        "busy",
        "1 request",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("found", "verdict", "words"), [c[1:] for c in VERDICTS],
                         ids=[c[0] for c in VERDICTS])  # fmt: skip
def test_verdicts(found: dict[str, Any], verdict: str, words: str) -> None:
    result = judge(Evidence(**{"state": OLD, "start_timeout": 600, **found}))
    assert (result.verdict, words in result.detail) == (verdict, True), result
    assert result.ready is (verdict in {"healthy", "busy"})
    assert result.good is (result.ready or verdict == "evicted")
    assert result.silent is (verdict == "unreachable" and "our key" not in words)


@pytest.mark.parametrize(
    ("before", "after", "own", "wanted"),
    [
        (sample(0, 10, 10), sample(2, 111, 111), 1, 50.0),
        (sample(0, 10, 10), sample(2, 11, 12), 1, 0.0),
        (sample(0, 10, 10), sample(2, 10, 400), 0, None),
        (sample(0, 10, 10), sample(2, 3, 3), 0, None),
        (sample(0, None, 10), sample(2, None, 90), 0, None),
        (None, sample(2, 3, 3), 0, None),
    ],
    ids=["tokens", "only ours", "counted at the end", "started again", "no counter", "first"],
)
def test_rate(before: Sample | None, after: Sample, own: int, wanted: float | None) -> None:
    assert rate(before, after, own) == wanted


def test_counters_are_read_over_all_labels() -> None:
    text = (
        "# HELP vllm:generation_tokens_total Tokens.\n# TYPE vllm:generation_tokens_total counter\n"
        'vllm:generation_tokens_total{engine="0",model_name="a b"} 12.0\n'
        'vllm:generation_tokens_total{engine="1",model_name="a}b"} 3.0\n'
        'vllm:generation_tokens_total_created{engine="0"} 1.7e9\n'
        'vllm:num_requests_running{engine="0"} 2.0\nvllm:num_requests_waiting 1\n'
        "vllm:prompt_tokens_total NaN-ish\n"
    )
    names = Counters(
        "/metrics", "vllm:generation_tokens_total", ("vllm:prompt_tokens_total",),
        ("vllm:num_requests_running", "vllm:num_requests_waiting"),
    )  # fmt: skip
    assert read_sample(text, names, 1.0) == Sample(1.0, 15.0, 15.0, 3.0, meanwhile=False)
    text += "vllm:prompt_tokens_total 7\n"
    assert read_sample(text, names, 1.0) == Sample(1.0, 15.0, 22.0, 3.0, meanwhile=True)
    assert read_sample("other 1\n", names, 1.0) is None


@pytest.mark.parametrize(
    ("detail", "seconds"),
    [
        ("Up 3 minutes (healthy)", 180), ("Up About an hour", 3600), ("Up 2 weeks", 1209600),
        ("Up Less than a second", 0), ("Up About a minute (unhealthy)", 60),
        ("up 35 s, restarts 0", 35), ("pid 7, up 4 s, restarts 1", 4), ("Exited (1)", None),
    ],
)  # fmt: skip
def test_ages(detail: str, seconds: int | None) -> None:
    assert age(UnitState("running", detail)) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("10s", 10), ("5m", 300), ("2h", 7200), ("0.5s", 0.5)]
)
def test_spans(text: str, seconds: float) -> None:
    assert parse_span(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "5d", "-1", "1 m"])
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(ValueError, match="span of time"):
        parse_span(text)


@pytest.mark.parametrize(
    ("own", "machine", "shared", "autostart", "docker", "numbers"),
    [
        ({}, {}, False, True, "unless-stopped", (3, 2408, 2)),
        ({}, {}, True, True, "on-failure:3", (3, 2640, 60)),
        ({}, {}, False, False, "on-failure:3", (3, 2408, 2)),
        ({"max": 5}, {"max": 1, "backoff": 9}, False, True, "on-failure:5", (5, 3654, 9)),
        ({"max": 0}, {}, False, True, "no", (0, 602, 2)),
        ({"window": 60}, {"max": 1}, False, True, "on-failure:1", (1, 60, 2)),
    ],
)
def test_restart_policies(
    own: dict[str, int], machine: dict[str, int], shared: bool, autostart: bool, docker: str,
    numbers: tuple[int, int, int],
) -> None:  # fmt: skip
    """The window holds all attempts of an engine that uses up its start-timeout of 600 s."""
    found = policy(Restart(**own), Restart(**machine), 600, shared, autostart)
    assert found.docker == docker
    assert (found.max, found.window, found.backoff) == numbers


@pytest.mark.parametrize(
    ("hardware", "service", "docker", "backoff"),
    [
        ("dgx-spark", {}, "on-failure:3", 60),
        ("dgx-spark", {"gpus": "none"}, "unless-stopped", 2),
        ("dgx-spark", {"gpus": []}, "unless-stopped", 2),
        ("dgx-spark", {"gpus": "none", "restart": {"max": 2}}, "on-failure:2", 2),
        ("dgx-spark", {"kind": "gateway"}, "unless-stopped", 2),
        ("dgx-spark", {"kind": "node-exporter"}, "unless-stopped", 2),
        ("dgx-spark", {"kind": "open-webui"}, "unless-stopped", 2),
        ("cpu", {}, "unless-stopped", 2),
    ],
)
def test_only_what_takes_shared_memory_is_bounded(
    hardware: str, service: dict[str, Any], docker: str, backoff: int
) -> None:
    """What ends with 0 must be there again after a clean reboot."""
    keys = {"kind": "llama-cpp", **service}
    if keys["kind"] == "llama-cpp":
        keys["model"] = "file:/m.gguf"
    machine = Machine.model_validate({"hardware": hardware, "services": {"s": keys}})
    found = resolve(fleet(), machine, "s", "/srv/x", "/srv/m").restart
    assert (found.docker, found.backoff) == (docker, backoff)


# kind -> the figure that tells an engine at work from one that hangs, while a request runs
MEANWHILE = [
    ("vllm", "vllm:kv_cache_usage_perc"),
    ("llama-cpp", "llamacpp:n_decode_total"),
    ("tgi", "tgi_batch_inference_count"),
    ("sglang", "sglang:realtime_tokens_total"),
]
# Those that count a request when it comes or ends; no proof of either.
AT_ITS_ENDS = {"tgi_request_count", "sglang:prompt_tokens_total", "sglang:generation_tokens_total"}


@pytest.mark.parametrize(("kind", "figure"), MEANWHILE)
def test_kinds_know_what_moves_meanwhile(kind: str, figure: str) -> None:
    metrics = fleet().kinds[kind].metrics
    assert metrics is not None
    assert figure in metrics.progress
    assert not AT_ITS_ENDS & set(metrics.progress)
    assert metrics.running


GGUF = "0.00.091.521 E llama_model_load: error loading model: tensor 'x' data is not within the "
GGUF += "file bounds, model is corrupted or incomplete"
# kind, lines of a real log unless it says otherwise -> what is said of them
CAUSES = [
    ("llama-cpp", [GGUF, "E srv exiting due to model loading error"], "damaged or was cut off"),
    ("llama-cpp", ["E gguf_init_from_reader: invalid magic characters: 'hell', expected 'GGUF'"],
     "is not a GGUF file"),
    ("llama-cpp", ["error: invalid argument: --nope"], "does not know the option --nope"),
    ("llama-cpp", ['error while handling argument "-c": stoi', "", "usage:"],
     "refuses the value of -c: stoi"),
    ("llama-cpp", ["E common_chat_templates_init: error: parser: Parser Error: Expected }} (Got })",
                   "...{% for m in messages %}{{ m.content }...", "       ^"],
     "refuses the chat template: parser: Parser Error: Expected }}"),
    ("llama-cpp", ["E srv start: couldn't bind HTTP server socket, hostname: 0.0.0.0, port: 22"],
     "listens on port 22"),
    ("llama-cpp", ["gguf_init: failed to open GGUF file '/m.gguf' (No such file or directory)"],
     "cannot be opened: No such file"),
    # As issue trackers quote it; no GPU at hand.
    ("llama-cpp", ["allocating 9866.00 MiB on device 1: cudaMalloc failed: out of memory"],
     "not enough free memory on the GPU"),
    ("vllm", ["vllm: error: unrecognized arguments: --swap-space 4"], "--swap-space 4"),
    ("vllm", ["(EngineCore pid=316) ValueError: To serve at least one request with the model's"],
     "not even one request"),
    ("vllm", ["ValueError: No common block size for 16"], "refuses block-size"),
    ("vllm", ["RuntimeError: something new"], "RuntimeError: something new"),
    ("ollama", ["o: Ollama cannot create q: template error: template: :1: unclosed action"],
     "refuses the template of the Modelfile: template: :1: unclosed action"),
    ("mlflow", ["ModuleNotFoundError: No module named 'psycopg'"], "driver psycopg of the"),
    ("mlflow", ['port 5433 failed: FATAL:  password authentication failed for user "mlflow"'],
     "refuses the password of mlflow"),
    ("mlflow", ['connection to server at "db", port 5433 failed: Connection refused'],
     "no database answers at db"),
]  # fmt: skip


@cache
def fleet() -> Fleet:
    return load_fleet(find_roots(None))


@pytest.mark.parametrize(("kind", "lines", "says"), CAUSES)
def test_causes(kind: str, lines: list[str], says: str) -> None:
    declared = fleet().kinds[kind].failures
    failures = [Failure(f.match, f.says, f.hint, f.more) for f in declared]
    cause = find_cause(["first words", *lines], failures)
    assert cause is not None
    assert says in cause.says
    assert lines[0] in cause.lines
    assert cause.hint
    assert not re.search(r"\{[a-z]+\}", cause.says + cause.hint)
    assert find_cause(["all is well"], failures) is None


def test_attempts_repeat_themselves_and_more_lines_belong_to_it() -> None:
    lines = ["1.0 E broken: x", "  ^ here", "2.0 E broken: x", "  ^ here", "3.0 E broken: y", "z"]
    cause = find_cause(lines, [Failure("broken: (?P<what>.)", "is {what}, not {that}", more=1)])
    assert cause is not None
    assert cause.says == "is y, not {that}"
    assert cause.lines == ("1.0 E broken: x", "  ^ here", "3.0 E broken: y", "z")


@pytest.mark.parametrize(
    "start", ["inferbase: started", "Starting inferbase: a (k)...",
              "Started native-a.service - inferbase: a (k)."],
)  # fmt: skip
def test_only_the_last_start_counts(start: str) -> None:
    again = ["a.service: Scheduled restart job, restart counter is at 1.", "Stopped a",
             "Started native-a.service - inferbase: a (k)."]  # fmt: skip
    assert latest(["old", start, "new", *again, "newer"]) == [start, "new", *again, "newer"]
    assert latest(["a", "b"]) == ["a", "b"]
    assert own_words([start, "said", *again]) == (
        [start, "said", "Stopped a"] if start.startswith("inferbase") else ["said", "Stopped a"]
    )
