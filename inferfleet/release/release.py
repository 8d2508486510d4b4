"""What rendering produces: everything one machine should have, without asking the machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from inferfleet.models.need import ModelNeed
from inferfleet.release.failure import Failure
from inferfleet.release.provenance import Provenance


@dataclass(frozen=True)
class File:
    """A file of a release. secret: its content is never shown, in diffs only as changed.

    known_sha256 stands for a content that stayed on the machine and was not read. loose: the
    service that a difference in this file alone is no reason to touch while it runs.
    """

    content: bytes = field(repr=False)
    mode: int = 0o644
    secret: bool = False
    known_sha256: str | None = None
    loose: str = ""

    @cached_property
    def sha256(self) -> str:
        return self.known_sha256 or hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class Counters:
    """What an engine counts itself, as Prometheus text at a path of its port.

    tokens: counter of generated tokens, None when there is none. progress: figures that change
    while it works on a request, not only at its end. running: gauges of the requests that it
    works on or has queued.
    """

    path: str
    tokens: str | None = None
    progress: tuple[str, ...] = ()
    running: tuple[str, ...] = ()


@dataclass(frozen=True)
class Probe:
    """How to find out that a service is ready, asked on address:port of the machine.

    health: path that answers 2xx when healthy; loading: statuses that mean "not yet".
    request: which real request proves readiness (openai-chat, openai-completion,
    ollama-generate, http). model: the name to ask for. key: name of the machine secret
    that holds the API key, None when the service wants none.
    timeout: seconds from start to ready before the start counts as failed. deadline: seconds in
    which a service that was ready has to generate one token. page: another path that must answer
    2xx, asked with the key. health_timeout: seconds that its health URL may take, if it says so.
    """

    health: str
    loading: tuple[int, ...]
    request: str
    model: str | None
    key: str | None
    timeout: int
    deadline: int = 30
    page: str | None = None
    counters: Counters | None = None
    health_timeout: int = 0


@dataclass(frozen=True)
class Unit:
    """One running thing of a release.

    digest changes exactly when the running thing must be replaced.
    address: where it listens on the machine, as (ip, port); None when it has no port.
    name: what the runtime calls it (container, systemd unit, process directory).
    api: what it speaks (openai, ollama, web, http); model: the name clients ask for.
    metrics: path of its metrics, on metrics_port of the machine where that is another port.
    """

    service: str
    kind: str
    runtime: str
    name: str
    digest: str
    address: tuple[str, int] | None
    api: str
    model: str | None
    probe: Probe | None
    metrics: str | None
    autostart: bool
    gpu: bool
    metrics_port: int | None = None


@dataclass(frozen=True)
class Release:
    """Everything rendered for one machine.

    files: path relative to the release directory -> content. On the machine they lie in
    ROOT/.inferbase/generations/N/ and are reached through the link ROOT/current.
    links: absolute path on the machine -> path relative to the release directory.
    units: by service name, in start order (a unit comes after the units it needs).
    models: what the units need to be there before they start (ollama: models: after).
    failures: by service, what lines of its log say why it does not start; not part of it.
    notices: by service, what its kind has everybody told who starts it; not part of it.
    by: who applies it and from where; not part of it.
    """

    machine: str
    project: str
    root: str
    files: Mapping[str, File]
    links: Mapping[str, str]
    units: Mapping[str, Unit]
    models: tuple[ModelNeed, ...]
    failures: Mapping[str, tuple[Failure, ...]] = field(default_factory=dict)
    notices: Mapping[str, str] = field(default_factory=dict)
    by: Provenance | None = None

    @cached_property
    def digest(self) -> str:
        """Of everything above; two releases with the same digest are the same."""
        total = hashlib.sha256()
        for path, file in sorted(self.files.items()):
            total.update(f"{path}\0{file.mode:o}\0{file.sha256}\n".encode())
        for path, target in sorted(self.links.items()):
            total.update(f"{path}\0{target}\n".encode())
        for unit in self.units.values():
            total.update(f"{unit.service}\0{unit.runtime}\0{unit.digest}\n".encode())
        return total.hexdigest()
