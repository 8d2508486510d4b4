"""What one service answers over HTTP: its health URL, one token, its own counters."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inferfleet.release.release import Counters, Probe
from inferfleet.secrets import Secret

if TYPE_CHECKING:
    import httpx

HEALTH_SECONDS = 5.0
SCRAPE_SECONDS = 5.0
_SAMPLE = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(?:\{.*\})?\s+(\S+)")


@dataclass(frozen=True)
class Reply:
    """What became of one request.

    outcome: ok, loading (a status that means "not yet"), busy (429), denied (our key is not
    taken), error (another status, or an answer without a token), silent (accepted, no answer in
    time), closed (no connection, or it broke). seconds: how long it took.
    """

    outcome: str
    detail: str
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"


@dataclass(frozen=True)
class Sample:
    """An engine's own counters at one moment, time.monotonic() in at; None: it has no such one.

    meanwhile: one of them changes while a request is worked on, not only when it ends.
    """

    at: float
    tokens: float | None
    progress: float
    running: float | None
    meanwhile: bool = True


@contextmanager
def connect(base_url: str, key: Secret | None) -> Iterator[httpx.Client]:
    """A client of one service; the key travels in a header only."""
    import httpx

    headers = {"Authorization": f"Bearer {key.reveal()}"} if key else {}
    # An HTTP proxy of this machine's user must not get what goes to loopback.
    with httpx.Client(base_url=base_url, headers=headers, trust_env=False) as client:
        yield client


def token_request(probe: Probe) -> tuple[str, dict[str, Any]] | None:
    """Path and JSON body of the smallest request that generates one token; None for http."""
    chat = {"messages": [{"role": "user", "content": "Hi"}]}
    match probe.request:
        case "openai-chat":
            return "/v1/chat/completions", {"model": probe.model, **chat, "max_tokens": 1}
        case "openai-completion":
            return "/v1/completions", {"model": probe.model, "prompt": "Hi", "max_tokens": 1}
        case "openai-embedding":
            return "/v1/embeddings", {"model": probe.model, "input": "Hi"}
        case "ollama-generate":
            options = {"num_predict": 1}
            body = {"model": probe.model, "prompt": "Hi", "stream": False, "options": options}
            return "/api/generate", body
        case _:
            return None


def ask_health(client: httpx.Client, probe: Probe) -> Reply:
    """One look at the health URL. Never raises for an unhealthy service."""
    import httpx

    began = time.monotonic()
    try:
        answer = client.get(probe.health, timeout=max(HEALTH_SECONDS, probe.health_timeout))
    except httpx.TimeoutException as error:
        return Reply("silent", f"no answer ({type(error).__name__})", time.monotonic() - began)
    except httpx.HTTPError as error:
        return Reply("closed", f"no answer ({type(error).__name__})", time.monotonic() - began)
    detail = f"{probe.health} answers {answer.status_code}"
    loading = answer.status_code in probe.loading
    outcome = "loading" if loading else "ok" if answer.is_success else "error"
    return Reply(outcome, detail, time.monotonic() - began)


def ask_token(client: httpx.Client, probe: Probe, timeout: float) -> Reply:
    """One token, if the kind of service can be asked for any, within timeout seconds."""
    import httpx

    request = token_request(probe)
    if request is None and probe.page is None:
        return Reply("ok", "healthy")
    path, body = request or (probe.page or "", {})
    began = time.monotonic()
    try:
        if request is None:
            answer = client.get(path, timeout=timeout)
        else:
            answer = client.post(path, json=body, timeout=timeout)
        if answer.is_success:
            found = _generated(path, answer.json()) if request else Reply("ok", f"{path} answers")
        else:
            outcome = {401: "denied", 403: "denied", 429: "busy"}.get(answer.status_code, "error")
            detail = f"{path} answers {answer.status_code}: {answer.text[:200]}"
            found = Reply(outcome, detail)
    except (httpx.HTTPError, ValueError) as error:
        outcome = "silent" if isinstance(error, httpx.TimeoutException) else "closed"
        found = Reply(outcome, f"healthy, but no answer to a request ({type(error).__name__})")
    return Reply(found.outcome, found.detail, time.monotonic() - began)


def _generated(path: str, body: Any) -> Reply:
    """One token counts when the engine's own figures say that it was generated."""
    if isinstance(body, dict):
        usage = body.get("usage") or {}
        if body.get("choices") and usage.get("completion_tokens", 1) >= 1:
            return Reply("ok", "generated a token")
        if body.get("done") and body.get("eval_count", 1) >= 1:
            return Reply("ok", "generated a token")
        data = body.get("data")
        if (
            isinstance(data, list)
            and data
            and isinstance(data[0], dict)
            and data[0].get("embedding")
        ):
            return Reply("ok", "made an embedding")
    return Reply("error", f"{path} answered without a generated token")


def scrape(client: httpx.Client, counters: Counters | None) -> tuple[Sample | None, bool]:
    """The engine's counters now, None when it does not tell them; and whether time ran out."""
    import httpx

    if counters is None:
        return None, False
    try:
        answer = client.get(counters.path, timeout=SCRAPE_SECONDS)
    except httpx.HTTPError as error:
        return None, isinstance(error, httpx.TimeoutException)
    if not answer.is_success:
        return None, False
    return read_sample(answer.text, counters, time.monotonic()), False


def read_sample(text: str, counters: Counters, at: float) -> Sample | None:
    """The counters in Prometheus' text format; values of several label sets are added up.

    None when none of them is there: such a text proves nothing.
    """
    values: dict[str, float] = {}
    wanted = {*counters.progress, *counters.running, *filter(None, [counters.tokens])}
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match and match[1] in wanted:
            try:
                values[match[1]] = values.get(match[1], 0.0) + float(match[2])
            except ValueError:
                continue
    running = [values[name] for name in counters.running if name in values]
    names = dict.fromkeys((counters.tokens, *counters.progress))
    grows = [name for name in names if name in values]
    if not grows:
        return None
    return Sample(
        at=at,
        tokens=values.get(counters.tokens) if counters.tokens else None,
        progress=sum(values[name] for name in grows if name),
        running=sum(running) if running else None,
        meanwhile=any(name in values for name in counters.progress),
    )
