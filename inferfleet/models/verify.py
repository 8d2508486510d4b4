"""models.verify: the checksums of a machine's models, computed there again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from inferfleet.errors import FleetError
from inferfleet.events import Event, Listener
from inferfleet.hosts.host import Host
from inferfleet.models.need import ModelNeed
from inferfleet.models.observe import ModelState, fits
from inferfleet.models.sources.source import source_text
from inferfleet.remote import program

# A file of a terabyte on a slow disk.
FILE_SECONDS = 4 * 3600.0
COLUMNS = ["machine", "services", "model", "verdict", "files", "detail"]


@dataclass(frozen=True)
class _Asked:
    """A file to read: absolute path, its bytes and the checksum it must have."""

    path: str
    size: int
    sha256: str


def verify(
    host: Host,
    needs: Iterable[tuple[ModelNeed, tuple[str, ...], ModelState | None]],
    listener: Listener,
    *,
    sudo: bool,
) -> list[dict[str, Any]]:
    """A row per model: right, wrong, missing, or unchecked (not fetched by inferbase).

    needs: each with its services and what was found of it. Raises FleetError when the machine
    is lost on the way.
    """
    rows = []
    for need, services, state in needs:
        row = {"machine": host.name, "services": list(services),
               "model": need.declared or source_text(need.source)}  # fmt: skip
        rows.append(row | _checked(host, need, state, listener, sudo))
    return rows


def _checked(
    host: Host, need: ModelNeed, state: ModelState | None, listener: Listener, sudo: bool
) -> dict[str, Any]:
    if not need.directory:
        why = "Ollama checks its own store" if need.source.scheme == "ollama" else "not fetched"
        return {"verdict": "unchecked", "files": 0, "detail": why}
    if state is None or state.stamp is None:
        foreign = state is not None and state.present
        detail = "not from inferbase" if foreign else "fetch it with `invoke update-models`"
        return {"verdict": "unchecked" if foreign else "missing", "files": 0, "detail": detail}
    stamp = state.stamp
    asked = [_Asked(f"{need.directory}/{f.path}", f.size, f.sha256) for f in stamp.files]
    wrong = list(_wrong(host, need, asked, listener, sudo))
    if not fits(need, stamp):
        wrong.append("its file says other checksums than it was fetched with")
    if not state.alias_ok:
        wrong.append("an alias does not lead to the files, or its own files are others")
    detail = "; ".join(wrong)
    if wrong and any(text.startswith("/") for text in wrong):
        detail += "; remove those files, then `invoke update-models` fetches them again"
    return {"verdict": "wrong" if wrong else "right", "files": len(asked), "detail": detail}


def _wrong(
    host: Host, need: ModelNeed, asked: list[_Asked], listener: Listener, sudo: bool
) -> Iterable[str]:
    """What is wrong with each file that is; the machine reads one after the other."""
    talk = host.converse(program("verify"), sudo=sudo)
    total, done = sum(file.size for file in asked), 0
    for file in asked:
        talk.send(f"{file.size}\n{file.path}\n".encode())
        try:
            line = talk.readline(FILE_SECONDS)
        except TimeoutError:
            raise FleetError(f"{host.name}: {file.path} cannot be read to its end") from None
        if line is None:
            words = talk.finish(10).err.strip()
            raise FleetError(f"{host.name}: checking was cut off: {words or 'no message'}")
        kind, _, rest = line.partition(" ")
        if kind != "ok":
            yield f"{file.path}: {rest}"
        elif rest != file.sha256:
            yield f"{file.path}: expected {file.sha256}, found {rest}"
        done += file.size
        said = Event(host.name, "fetch", need.title, done=done, total=total, doing="checking")
        listener(said)
    talk.finish(10)
