"""Files of a model that can be read in pieces, wherever they lie: on a machine, here, at a hub."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from inferfleet.capacity.held import ModelFile
from inferfleet.capacity.shape.gguf import Reader
from inferfleet.errors import FleetError
from inferfleet.hosts.host import Host
from inferfleet.models.need import ModelNeed
from inferfleet.models.ollama import full_name
from inferfleet.models.progress import Revealing
from inferfleet.models.sources.origin import Origin, WantedFile
from inferfleet.models.sources.source import loopback
from inferfleet.models.sources.sources import contents_now
from inferfleet.models.sources.web import UnreachableError, Web
from inferfleet.remote import program

SECONDS = 120.0
# Asked for at once at least, so that the small pieces of a header cost one round trip together.
AHEAD = 256 << 10
OLLAMA = "registry.ollama.ai"
MODEL_LAYER = "application/vnd.ollama.image.model"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
LONGEST_MANIFEST = 4 << 20


@dataclass(frozen=True)
class Part:
    """One file: its name below the model's directory, bytes (None unknown), and how to read it."""

    name: str
    size: int | None
    read: Reader


@dataclass(frozen=True)
class Parts:
    """The files of a model. identity: changes with their content; where: for the reader."""

    files: tuple[Part, ...]
    identity: str
    where: str


def machine_parts(host: Host, sudo: bool, files: Sequence[ModelFile]) -> Parts:
    """Files on a machine, as memory.sh has listed them. Reading raises FleetError."""
    marks = [(file.path, file.size, file.time) for file in files]
    parts = tuple(
        Part(file.path.rpartition("/")[2], file.size, _ahead(_MachineFile(host, sudo, file)))
        for file in files
    )
    return Parts(parts, json.dumps([host.name, marks]), f"on {host.name}")


def source_parts(need: ModelNeed, secrets: Mapping[str, Revealing]) -> Parts:
    """Files at a model's source. Raises FleetError with what stands in the way."""
    scheme = need.source.scheme
    if scheme == "ollama":
        return _ollama_parts(need.source.name)
    if scheme == "path":
        raise FleetError("it lies on the machine, which was not asked", hint="--live asks it")
    if scheme == "pypi":
        raise FleetError(
            "it lies packed in a wheel until it is on the machine", hint="--live asks the machine"
        )
    contents = contents_now(need, secrets)
    parts = tuple(Part(f.path, f.size, _ahead(_reader(f))) for f in contents.files)
    where = {"hf": "at the hub", "https": "at its server"}.get(scheme, "on this machine")
    return Parts(parts, json.dumps([need.key, contents.revision]), where)


class _MachineFile:
    def __init__(self, host: Host, sudo: bool, file: ModelFile) -> None:
        self._host, self._sudo, self._file = host, sudo, file

    def __call__(self, offset: int, length: int) -> bytes:
        path = self._file.path
        script = program("bytes", path=path, offset=offset, length=length)
        out = self._host.run(script, sudo=self._sudo, timeout=SECONDS).out
        body, _, end = out.rstrip("\n").rpartition("\n")
        try:
            if end == "end":
                return base64.b64decode(body)
        except binascii.Error:
            pass
        raise FleetError(f"{self._host.name}: reading {path} was cut short", hint="run it again")


def _reader(file: WantedFile) -> Reader:
    origin = file.origin
    return origin.part if isinstance(origin, Web) else _streamed(origin)


def _streamed(origin: Origin) -> Reader:
    def read(offset: int, length: int) -> bytes:
        found = b""
        with origin.open(offset) as opened:
            skip = offset - opened.offset
            for chunk in opened.chunks:
                found += chunk
                if len(found) >= skip + length:
                    break
        return found[skip : skip + length]

    return read


def _ahead(read: Reader) -> Reader:
    """The same reader, which asks for more than it must and keeps the last piece."""
    kept: list[tuple[int, bytes]] = []

    def reader(offset: int, length: int) -> bytes:
        for start, piece in kept:
            if start <= offset and offset + length <= start + len(piece):
                return piece[offset - start : offset - start + length]
        try:
            piece = read(offset, max(length, AHEAD))
        except UnreachableError as error:
            raise FleetError(str(error), hint="check the network of this machine") from None
        kept[:] = [(offset, piece)]
        return piece[:length]

    return reader


def _ollama_parts(name: str) -> Parts:
    """The GGUF that a registry has under a name of Ollama's, through its manifest."""
    base, tag = _registry(name)
    subject = f"ollama:{name}"
    try:
        text = Web(f"{base}/manifests/{tag}", subject, accept=MANIFEST).part(0, LONGEST_MANIFEST)
    except UnreachableError as error:
        raise FleetError(str(error), hint="check the network of this machine") from None
    try:
        layers = json.loads(text)["layers"]
        found = [
            (str(one["digest"]), int(one["size"]))
            for one in layers
            if one["mediaType"] == MODEL_LAYER
        ]
    except (ValueError, KeyError, TypeError):
        raise FleetError(f"model {subject}: {base} answers no manifest") from None
    if not found:
        raise FleetError(f"model {subject}: its manifest names no GGUF file")
    parts = tuple(
        Part(f"{digest}.gguf", size, _ahead(Web(f"{base}/blobs/{digest}", subject).part))
        for digest, size in found
    )
    return Parts(parts, json.dumps([name, found]), f"at {urlsplit(base).hostname}")


def _registry(name: str) -> tuple[str, str]:
    """('https://HOST/v2/NAMESPACE/MODEL', tag) of a model's name."""
    path, _, tag = full_name(name).rpartition(":")
    first, slash, rest = path.partition("/")
    host, path = (first, rest) if slash and ("." in first or ":" in first) else (OLLAMA, path)
    if "/" not in path:
        path = f"library/{path}"
    plain = loopback(host.partition(":")[0])
    return f"{'http' if plain else 'https'}://{host}/v2/{path}", tag
