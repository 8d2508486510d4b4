"""Whether a machine's model is the one its source has now."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from inferfleet.errors import FleetError
from inferfleet.models.need import ModelNeed
from inferfleet.models.needs import pinned
from inferfleet.models.observe import ModelState, fits
from inferfleet.models.progress import Revealing
from inferfleet.models.sources.origin import Contents
from inferfleet.models.sources.source import loopback, source_text
from inferfleet.models.sources.sources import contents_now

Staleness = Literal["current", "missing", "stale", "partial", "unmanaged"]

_OLLAMA_REGISTRY = "registry.ollama.ai"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass(frozen=True)
class Latest:
    """What a source has now; revision "", bytes and contents None where it does not say.

    contents: its files, with their checksums as far as the source tells them.
    """

    revision: str
    bytes: int | None
    contents: Contents | None = field(default=None, compare=False, repr=False)


def latest(need: ModelNeed, secrets: Mapping[str, Revealing]) -> Latest:
    """Ask the source, without downloading; FleetError when it cannot be asked.

    Sources that cannot change (pypi, a path on the machine) are not asked.
    """
    source = need.source
    if source.scheme in ("pypi", "path"):
        return Latest(source.revision, None)
    if source.scheme == "ollama":
        return _ollama(need)
    contents = contents_now(need, secrets)
    return Latest(contents.revision, contents.bytes, contents)


def staleness(need: ModelNeed, state: ModelState | None, latest: Latest | None) -> Staleness:
    """One word for a model on a machine; latest may be None for a pinned one.

    partial: an interrupted transfer or a damaged alias, which a run completes. unmanaged:
    something is there that inferbase did not put there and leaves alone. A pinned model is
    stale only when the machine has another one than the machine file now says.
    """
    if state is None or (not state.present and not state.partial):
        return "missing"
    if not state.present:
        return "partial"
    if state.stamp is None:
        if not state.alias_ok:
            return "partial"
        return "current" if need.source.scheme == "path" else "unmanaged"
    if not state.alias_ok:
        return "partial"
    if not fits(need, state.stamp):
        return "stale"
    if pinned(need) or latest is None or not latest.revision:
        return "current"
    return "current" if state.stamp.revision == latest.revision else "stale"


def _ollama(need: ModelNeed) -> Latest:
    """The manifest's digest, which is what Ollama lists as the digest of a model."""
    import httpx

    host, path, tag = _registry(need.source.name)
    scheme = "http" if loopback(urlsplit(f"//{host}").hostname or "") else "https"
    url = f"{scheme}://{host}/v2/{path}/manifests/{tag}"
    try:
        response = httpx.get(url, headers={"Accept": _MANIFEST}, timeout=30)
    except httpx.HTTPError as error:
        raise FleetError(
            f"the registry {host} cannot be reached: {error or type(error).__name__}",
            "check the network of this machine",
        ) from None
    if response.status_code == 404:
        raise FleetError(f"model {source_text(need.source)} does not exist", "check the spelling")
    try:
        response.raise_for_status()
        manifest = response.json()
        layers = [*manifest["layers"], manifest["config"]]
        size = sum(int(layer["size"]) for layer in layers)
    except (httpx.HTTPStatusError, ValueError, KeyError, TypeError):
        raise FleetError(
            f"the registry {host} answers {response.status_code} for {need.source.name}"
        ) from None
    return Latest(hashlib.sha256(response.content).hexdigest(), size)


def _registry(name: str) -> tuple[str, str, str]:
    """(host, namespace/name, tag) of a model name of Ollama."""
    first, slash, rest = name.partition("/")
    host = _OLLAMA_REGISTRY
    if slash and ("." in first or ":" in first or first == "localhost"):
        host, name = first, rest
    path, colon, tag = name.rpartition(":")
    if not colon:
        path, tag = name, "latest"
    return host, path if "/" in path else f"library/{path}", tag
