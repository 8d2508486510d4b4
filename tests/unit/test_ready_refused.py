"""`up` does not wait for an engine that says again and again why it cannot load its model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testbed.ollama_server import Ollama

from inferfleet.events import Event
from inferfleet.health import ready
from inferfleet.health.ready import REFUSED_LOOKS, wait_ready
from inferfleet.hosts.local import LocalHost
from inferfleet.observe.observed import UnitState
from inferfleet.release.failure import Failure
from inferfleet.release.release import Probe, Unit

KILLED = "llama-server process has terminated: signal: killed"
FAILURES = {"chat": (Failure("process has terminated: (?P<words>.*)", "it ended: {words}"),)}


@pytest.fixture
def ollama(tmp_path: Path) -> Iterator[Ollama]:
    server = Ollama(tmp_path).start()
    list(server.pull({"model": "qwen3:32b-q8_0"}))
    yield server
    server.close()


def waited(ollama: Ollama, failures: Any, seconds: int) -> tuple[Any, list[Event]]:
    model, told = "qwen3:32b-q8_0", list[Event]()
    probe = Probe("/api/version", (503,), "ollama-generate", model, None, seconds)
    unit = Unit("chat", "ollama", "compose", "m-chat", "", ("127.0.0.1", ollama.port), "ollama",
                model, probe, None, True, False)  # fmt: skip
    states: Any = lambda: {"chat": UnitState("running", "Up 3 s")}  # noqa: E731
    (found,) = wait_ready(LocalHost("m1"), [unit], states, {}, told.append, failures)
    return found, told


def test_what_is_recognised_ends_the_wait(ollama: Ollama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "REFUSED_SECONDS", 0.0)
    ollama.dies = KILLED
    found, _ = waited(ollama, FAILURES, 600)
    assert (found.ready, found.stage) == (False, "http")
    assert KILLED in found.detail
    assert [path for path, _ in ollama.calls].count("/api/generate") == REFUSED_LOOKS


def test_what_is_not_recognised_is_waited_for(ollama: Ollama) -> None:
    ollama.dies = "the model is still being put together"
    found, told = waited(ollama, FAILURES, 2)
    assert "not ready after 2 s" in found.detail
    assert len(told) == 1


def test_memory_may_come_back_late(ollama: Ollama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "POLL_SECONDS", 0.01)
    ollama.dies = KILLED
    heard = ollama.generate

    def much_later(*words: Any) -> Any:
        if [path for path, _ in ollama.calls].count("/api/generate") > 5 * REFUSED_LOOKS:
            ollama.dies = ""
        return heard(*words)

    ollama.generate = much_later  # type: ignore[method-assign]
    assert waited(ollama, FAILURES, 600)[0].ready


def test_one_that_recovers_is_ready(ollama: Ollama) -> None:
    ollama.dies = KILLED
    heard = ollama.generate

    def second_time(*words: Any) -> Any:
        try:
            return heard(*words)
        finally:
            ollama.dies = ""

    ollama.generate = second_time  # type: ignore[method-assign]
    assert waited(ollama, FAILURES, 600)[0].ready
