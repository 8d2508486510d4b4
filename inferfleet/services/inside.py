"""Paths of the machine as a service's program sees them, in its container or not; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import PurePosixPath

from inferfleet.amounts import cpuset_cpus
from inferfleet.errors import USAGE, FleetError
from inferfleet.models.need import ModelNeed
from inferfleet.schema.fields import Option
from inferfleet.schema.kind import Kind
from inferfleet.schema.machine import Service

# Only a model that lies outside the models directory is mounted here.
OUTSIDE_MODEL = "/model"
FILES = "/etc/inferbase/files"
OWN_FILE = "files/"
BESIDE_MODEL = "./"
_MODEL_FILES = (".gguf", ".safetensors", ".bin")


@dataclass
class Inside:
    """How one service sees the machine.

    container: its own file system, else the machine's. models: the machine's models directory,
    models_at: where that appears. files: the directory of its own files. mounts: path inside ->
    path on the machine, of what `path` was asked for and lies nowhere else. targets: where volumes
    appear.
    """

    name: str
    service: Service
    need: ModelNeed | None
    models: str
    models_at: str | None
    files: str
    known_files: frozenset[str]
    container: bool
    targets: frozenset[str] = frozenset()
    sees_models: bool = False
    mounts: dict[str, str] = field(default_factory=dict)

    def path(self, path: str) -> str:
        """An absolute path of the machine; what it lies in is going to be mounted."""
        if not self.container:
            self.mounts[path] = path
            return path
        if self.models_at is not None and below(path, self.models):
            self.sees_models = True
            return self.models_at + path[len(self.models) :]
        for volume in self.service.volumes:
            if volume.source.startswith("/") and below(path, volume.source):
                return volume.target + path[len(volume.source) :]
        # Who knows the container may say where it is inside.
        if self.models_at is not None and below(path, self.models_at):
            self.sees_models = True
            return path
        if any(below(path, target) for target in self.targets):
            return path
        if self.need is not None and below(path, outside(self.need)):
            return OUTSIDE_MODEL + path[len(outside(self.need)) :]
        self.mounts[path] = path
        return path

    def named(self, text: str) -> str:
        """A path as options say it. Raises FleetError for a file that the service has not."""
        if text.startswith(OWN_FILE):
            name = text[len(OWN_FILE) :]
            if name not in self.known_files:
                raise FleetError(
                    f"{self.name}: {text} is not one of its files",
                    f"write its text under files: {{{name}: ...}}",
                    code=USAGE,
                )
            return f"{self.files}/{name}"
        if text.startswith(BESIDE_MODEL):
            if self.need is None or not self.need.path.startswith("/"):
                raise FleetError(
                    f"{self.name}: {text} lies beside its model, and that is no file here",
                    "write an absolute path",
                    code=USAGE,
                )
            return self.path(f"{outside(self.need)}/{text[len(BESIDE_MODEL) :]}")
        return self.path(text) if text.startswith("/") else text

    def words(self, text: str) -> str:
        """As `named`, for PATH and for NAME=PATH."""
        name, equals, path = text.partition("=")
        if equals and path.startswith(("/", OWN_FILE, BESIDE_MODEL)) and "/" not in name:
            return f"{name}={self.named(path)}"
        return self.named(text)


def inside_of(
    name: str,
    service: Service,
    kind: Kind,
    runtime: str,
    need: ModelNeed | None,
    root: str,
    models: str,
) -> Inside:
    """How a service with this runtime sees the machine."""
    container = kind.compose if runtime == "compose" else None
    return Inside(
        name=name,
        service=service,
        need=need,
        models=models,
        models_at=container.models if container else None,
        files=FILES if container else f"{root}/current/files/{name}",
        known_files=frozenset(kind.files) | frozenset(service.files),
        container=container is not None,
        targets=frozenset(container.volumes.values() if container else ())
        | {volume.target for volume in service.volumes},
    )


def placed(options: Mapping[str, Option], kind: Kind, inside: Inside) -> dict[str, Option]:
    """The options with the kind's paths as the program sees them, and its number of CPUs."""
    result = dict(options)
    cpus = _cpus(inside.service)
    if kind.options.cpus is not None and kind.options.cpus not in inside.service.options:
        result.setdefault(kind.options.cpus, cpus)
    for name in kind.options.paths:
        if name in result:
            result[name] = _each(result[name], inside.words)
    return {name: result[name] for name in sorted(result) if result[name] is not None}


def _each(value: Option, change: Callable[[str], str]) -> Option:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [change(item) if isinstance(item, str) else item for item in value]
    if isinstance(value, dict):
        return {
            key: change(item) if key == "path" and isinstance(item, str) else item
            for key, item in value.items()
        }
    return value


def _cpus(service: Service) -> int | None:
    if service.cpuset is not None:
        return len(cpuset_cpus(service.cpuset))
    return ceil(service.cpus) if service.cpus is not None else None


def outside(need: ModelNeed) -> str:
    """What to mount of a model outside the models directory: a file's directory, else itself."""
    path = PurePosixPath(need.path)
    return str(path.parent) if path.suffix in _MODEL_FILES else str(path)


def below(path: str, directory: str) -> bool:
    """Whether a path is a directory or lies in it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")
