"""A model from another machine of the site: copied from there directly, or through here.

Directly means: the machine that wants the files logs in at the one that has them, with a key
that is made for this copy on the wanting machine, never leaves it, and is forgotten after it.
What the key may do there is one thing, see serve.sh; which host key is right there is what was
verified on our own connection.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib.resources import files

from inferfleet.errors import FleetError
from inferfleet.hosts.config import Target
from inferfleet.hosts.host import Host
from inferfleet.hosts.local import LocalHost
from inferfleet.hosts.ssh import SshHost, Whereabouts
from inferfleet.models.observe import fits
from inferfleet.models.progress import Progress
from inferfleet.models.sources.origin import Contents, Neighbour, Opened, WantedFile
from inferfleet.models.sources.web import CHUNK
from inferfleet.models.stamp import Stamp, StampFile
from inferfleet.models.transfer.fetch import Supply
from inferfleet.models.transfer.store import Store

_DOOR_SECONDS = 60.0
_CLOSE_SECONDS = 15.0
_REACH_SECONDS = 40.0


@dataclass(frozen=True)
class Holder:
    """A machine that has a model whole. directory: of the files, absolute, not a link. sudo: how
    it is read from here. address: for machines of its site, "" for the one we use ourselves."""

    host: Host
    directory: str
    stamp: Stamp
    sudo: bool = False
    address: str = ""


@dataclass(frozen=True)
class Copied:
    """The origin of a file on another machine. number: the file's there; direct: whether the
    machine that wants it may ask for it by that number."""

    holder: Holder
    file: StampFile
    number: int
    direct: bool

    def link(self) -> Neighbour | None:
        """The file's number, None when it has to go through here."""
        return Neighbour(self.number) if self.direct else None

    @contextmanager
    def open(self, offset: int) -> Iterator[Opened]:
        """Read it over our own connection to the other machine."""
        path = shlex.quote(f"{self.holder.directory}/{self.file.path}")
        script = (
            f"[ -r {path} ] || {{ echo {path} is gone >&2; exit 1; }}\n"
            f"tail -c +{offset + 1} {path} | head -c {self.file.size - offset}\n"
        )
        yield Opened(offset, _pieces(self.holder.host.read(script, sudo=self.holder.sudo)))


def copy_of(holder: Holder, host: Host, progress: Progress, closed: str = "") -> Supply:
    """The holder's files for a machine, as bring() takes them.

    closed: why the two cannot copy directly, where that is known already.
    """

    def supply(store: Store) -> AbstractContextManager[Contents]:
        return _copied(holder, host, store, progress, closed)

    return supply


def reach(source: Host, address: str, host: Host) -> str:
    """Why a machine cannot copy from another one directly; "" when it seems to be able to.

    address: of the source for its site, "" for the one we use. Asked before anything is copied,
    so that the way and its cost can be shown. The machine opens a connection and verifies the
    host key; it has no key to log in with yet.
    """
    where = _whereabouts(source, address, host)
    if isinstance(where, str):
        return where
    from inferfleet.remote import program

    script = program(
        "reach", address=where.host, port=where.port, user=where.user, key=where.host_key
    )
    result = host.run(script, timeout=_REACH_SECONDS)
    line = result.out.strip().rpartition("\n")[2]
    if line == "ok":
        return ""
    return line.removeprefix("no ") or result.err.strip() or "ssh there failed"


@contextmanager
def _copied(
    holder: Holder, host: Host, store: Store, progress: Progress, closed: str
) -> Iterator[Contents]:
    if not fits(store.need, holder.stamp):
        raise FleetError(
            f"{host.name} wants other checksums of the model {store.need.title} than those of "
            f"{holder.host.name}",
            "declare the model once, in inventory/models, for both",
        )
    with nullcontext(closed) if closed else _door(holder, host, store) as why:
        if why:
            progress.note(f"{why}: the files go through this machine, in and out again")
        wanted = tuple(
            WantedFile(file.path, Copied(holder, file, number, not why), file.size, file.sha256)
            for number, file in enumerate(holder.stamp.files, 1)
        )
        yield Contents(holder.stamp.revision, wanted, holder.stamp.store)


@contextmanager
def _door(holder: Holder, host: Host, store: Store) -> Iterator[str]:
    """Let the machine of the store read the holder's files; yields why it cannot, or ""."""
    where = _whereabouts(holder.host, holder.address, host)
    key = "" if isinstance(where, str) else store.copy_key()
    if isinstance(where, str) or not key:
        yield where if isinstance(where, str) else f"{host.name} has no ssh client"
        return
    script = files("inferfleet.models.transfer").joinpath("serve.sh").read_text(encoding="ascii")
    talk = holder.host.converse(script)
    try:
        names = [f"{file.size} {file.path}" for file in holder.stamp.files]
        lines = [holder.directory, key, str(len(names)), *names]
        talk.send("".join(f"{line}\n" for line in lines).encode())
        try:
            answer = talk.readline(_DOOR_SECONDS)
        except TimeoutError:
            answer = "no it does not answer"
        if answer == "ok":
            store.copy_from(where.host, where.port, where.user, where.host_key)
            yield ""
        else:
            why = (answer or "no it ended").removeprefix("no ")
            yield f"{holder.host.name} lets nobody copy: {why}"
    finally:
        with suppress(FleetError):
            talk.finish(_CLOSE_SECONDS)


def _whereabouts(source: Host, address: str, host: Host) -> Whereabouts | str:
    """Where the machine finds the source; or why it has to go through here."""
    if isinstance(host, LocalHost) or not isinstance(source, SshHost):
        return "one of the two is this machine"
    where = source.whereabouts()
    if not address:
        return where
    target = Target.parse(address)
    return Whereabouts(target.alias, target.port or where.port, where.user, where.host_key)


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of CHUNK: each piece costs a round trip to where it goes."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        if len(held) >= CHUNK:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)
