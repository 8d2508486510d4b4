"""Models of a running Ollama: pulled and created through its HTTP API."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from inferfleet.errors import USAGE, FleetError
from inferfleet.hosts.host import Host
from inferfleet.models.need import ModelNeed
from inferfleet.models.observe import ModelState
from inferfleet.models.progress import Progress
from inferfleet.models.sources.source import source_text
from inferfleet.models.stamp import Stamp, StampFile

if TYPE_CHECKING:
    import httpx

# Ollama says nothing while it checks the digest of a big layer.
_SILENCE_SECONDS = 900
# From the start of its process until it listens; a cold disk takes some seconds.
_START_SECONDS = 20.0
_POLL_SECONDS = 0.1
# Parameters that the API takes as a list only; a Modelfile repeats the line instead.
_LISTS = frozenset({"stop"})
_LOOPBACK = "127.0.0.1"
_DEFAULT_REGISTRY = "registry.ollama.ai/"


def ensure_ollama(
    host: Host,
    need: ModelNeed,
    port: int,
    modelfile: Mapping[str, Any] | None,
    served_name: str | None,
    progress: Progress,
    *,
    update: bool = False,
    address: str = _LOOPBACK,
) -> bool:
    """Make a running Ollama have the model; True when something changed there.

    port, address: where Ollama listens on the machine. modelfile: parameters, system and template
    laid over the model under the name served_name. A model that is there is not asked for
    again unless update is true. Raises FleetError with Ollama's own words.
    """
    name = full_name(need.source.name)
    laid = {key: value for key, value in (modelfile or {}).items() if value}
    if laid and (served_name is None or full_name(served_name) == name):
        raise FleetError(
            f"{need.service}: a modelfile needs a served-name of its own",
            f"add served-name, a name other than {need.source.name}",
            code=USAGE,
        )
    with _client(host, need, port, address) as client:
        _await(client)
        before = _models(client, need)
        if update or name not in before:
            _pull(client, need, progress)
        if served_name is not None and full_name(served_name) != name:
            _create(client, need, laid, served_name)
        after = _models(client, need)
    watched = [name, full_name(served_name)] if served_name else [name]
    missing = [each for each in watched if each not in after]
    if missing:
        raise FleetError(f"{host.name}: Ollama does not list {missing[0]} after making it")
    return any(before.get(each) != after[each] for each in watched)


def ollama_state(host: Host, need: ModelNeed, port: int, address: str = _LOOPBACK) -> ModelState:
    """What a running Ollama has of the model, as observe tells it of other models."""
    name = full_name(need.source.name)
    with _client(host, need, port, address) as client:
        digest, size = _models(client, need).get(name, ("", 0))
    if not digest:
        return ModelState(need.key, False, None, 0, True)
    file = StampFile(name, size, digest)
    stamp = Stamp(source_text(need.source), digest, "", (file,), "")
    return ModelState(need.key, True, stamp, size, True)


def full_name(name: str) -> str:
    """The name as Ollama lists it: with a tag, without the parts it takes for granted."""
    name = name.removeprefix(_DEFAULT_REGISTRY).removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


@contextmanager
def _client(host: Host, need: ModelNeed, port: int, address: str) -> Iterator[httpx.Client]:
    import httpx

    with host.forward(port, address=address) as local:
        timeout = httpx.Timeout(_SILENCE_SECONDS, connect=10)
        try:
            # An HTTP proxy of this machine's user must not get what goes to loopback.
            with httpx.Client(
                base_url=f"http://127.0.0.1:{local}", timeout=timeout, trust_env=False
            ) as client:
                yield client
        except httpx.HTTPError as error:
            raise FleetError(
                f"{host.name}: lost Ollama on port {port} while it had to provide "
                f"{need.source.name}: {error or type(error).__name__}",
                "look at the logs of the service and run the same command again; "
                "Ollama continues where it stopped",
            ) from None


def _await(client: httpx.Client) -> None:
    """Wait until a server that was just started listens; then its errors are errors."""
    import httpx

    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            client.get("/api/version", timeout=5)
            return
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)


def _models(client: httpx.Client, need: ModelNeed) -> dict[str, tuple[str, int]]:
    response = client.get("/api/tags")
    if response.status_code != 200:
        raise _refused(need, "list its models", _words(response))
    try:
        models = response.json()["models"] or []
        return {
            full_name(str(model["name"])): (str(model["digest"]), int(model.get("size") or 0))
            for model in models
        }
    except (ValueError, KeyError, TypeError):
        raise _refused(need, "list its models", "it does not speak Ollama's API") from None


def _pull(client: httpx.Client, need: ModelNeed, progress: Progress) -> None:
    done: dict[str, int] = {}
    total: dict[str, int] = {}
    body = {"model": need.source.name, "stream": True}
    for news in _stream(client, need, "pull", "/api/pull", body):
        digest = news.get("digest")
        if digest and isinstance(news.get("total"), int):
            total[digest] = news["total"]
            done[digest] = int(news.get("completed") or 0)
            progress.advance(need.key, sum(done.values()), sum(total.values()))


def _create(
    client: httpx.Client, need: ModelNeed, laid: Mapping[str, Any], served_name: str
) -> None:
    # Creating from the same parts again writes the same manifest, so this repeats harmlessly.
    body = {"model": served_name, "from": need.source.name, "stream": True, **laid}
    if "parameters" in laid:
        body["parameters"] = {
            key: [value] if key in _LISTS and not isinstance(value, list) else value
            for key, value in laid["parameters"].items()
        }
    for _ in _stream(client, need, f"create {served_name}", "/api/create", body):
        pass


def _stream(
    client: httpx.Client, need: ModelNeed, what: str, path: str, body: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of an answer; FleetError unless its last status is success."""
    last = ""
    with client.stream("POST", path, json=body) as response:
        if response.status_code != 200:
            response.read()
            raise _refused(need, what, _words(response))
        for line in response.iter_lines():
            if not line.strip():
                continue
            try:
                news = json.loads(line)
            except ValueError:
                raise _refused(need, what, "it does not speak Ollama's API") from None
            if "error" in news:
                raise _refused(need, what, str(news["error"]))
            last = str(news.get("status") or last)
            yield news
    if last != "success":
        raise _refused(need, what, f"it stopped at: {last or 'nothing'}")


def _words(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}"


def _refused(need: ModelNeed, what: str, words: str) -> FleetError:
    hint = "look at the logs of the service"
    if "file does not exist" in words or "not found" in words:
        hint = f"check the spelling of {need.source.name} at the library of Ollama"
    elif "no space left" in words:
        hint = "make room on the disk of Ollama's store and run the same command again"
    elif what == "pull":
        hint = "run the same command again; Ollama continues where it stopped"
    return FleetError(f"{need.service}: Ollama cannot {what}: {words}", hint)
