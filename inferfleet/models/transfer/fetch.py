"""Getting a model onto a machine: complete, checked, switched in one step, or not at all."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from inferfleet.errors import FleetError
from inferfleet.hosts.host import Host
from inferfleet.models.alias import ensure_aliases
from inferfleet.models.need import ModelNeed
from inferfleet.models.observe import complete, fits, stamp_path
from inferfleet.models.progress import Progress, Revealing
from inferfleet.models.sources.origin import Contents, WantedFile
from inferfleet.models.sources.source import source_text
from inferfleet.models.sources.sources import source_contents
from inferfleet.models.stamp import Stamp, StampFile, parse_stamp
from inferfleet.models.transfer.kept import DamagedError, kept_contents, reuse
from inferfleet.models.transfer.room import bytes_there, check_space
from inferfleet.models.transfer.store import Store, open_store
from inferfleet.models.transfer.transfer import Transfer

Supply = Callable[[Store], AbstractContextManager[Contents]]


@dataclass(frozen=True)
class Brought:
    """What bringing a model did. changed: its files or aliases are others than before. stamp:
    the record of what is in place now; before: of the revision that was, and is kept."""

    changed: bool
    stamp: Stamp | None = None
    before: Stamp | None = None


@dataclass(frozen=True)
class _Order:
    """One model to bring. update: look for a newer revision; supply: where the files come from
    instead of the source, like: the directory that these would lie in."""

    need: ModelNeed
    progress: Progress
    secrets: Mapping[str, Revealing]
    update: bool = False
    supply: Supply | None = None
    like: str = ""


def bring(
    host: Host,
    need: ModelNeed,
    *,
    progress: Progress,
    secrets: Mapping[str, Revealing],
    update: bool = False,
    sudo: bool = False,
    root: str = "",
    supply: Supply | None = None,
    like: str = "",
    taken: Callable[[str], None] = lambda _: None,
) -> Brought:
    """Make the model be on the machine.

    A complete model is left as it is and its source not asked, unless update is true.
    Interrupted at any point the machine has the old model or the new one; what was
    transferred is kept and the next run goes on there. The revision that was in place stays
    until it is pruned. supply: the files and where they come from, instead of the source; like:
    the name of their directory, so that nobody is asked where the machine has exactly these.
    root: of the inferbase that uses the model, written down beside the models. taken: told who
    holds the model's lock, as soon as this call does. Models of Ollama are left to
    ensure_ollama. Raises FleetError; LockedError when another run is at work on this model.
    """
    if need.source.scheme == "ollama":
        return Brought(False)
    if need.source.scheme == "path" and not need.aliases:
        _check_path(host, need, sudo)
        return Brought(False)
    with open_store(host, need, sudo=sudo) as store:
        taken(store.owner)
        if root:
            store.serve_root(root)
        order = _Order(need, progress, secrets, update, supply, like)
        brought = _ensure_files(store, order) if need.directory else Brought(False)
        changed = ensure_aliases(store, need)
        return replace(brought, changed=brought.changed or changed)


def put_back(host: Host, need: ModelNeed, stamp: Stamp, *, sudo: bool = False) -> None:
    """Make a kept revision the model's again, as Brought.before names it.

    Raises FleetError, with nothing switched, when its files are not whole any more.
    """
    with open_store(host, need, sudo=sudo) as store:
        if not complete(stamp, stamp.store, store.use(stamp.store)):
            store.tidy()
            raise FleetError(
                f"{store.machine}: the files that {need.directory} had before are gone or changed",
                f"the new ones stay; revision {stamp.revision or stamp.store} can be fetched again",
            )
        store.remember()
        if not store.switch():
            raise FleetError(f"{store.machine}: {need.directory} was made by another program")
        _write_stamp(store, need, stamp)
        ensure_aliases(store, need)


def _ensure_files(store: Store, order: _Order) -> Brought:
    need = order.need
    present = parse_stamp(store.text(stamp_path(need)))
    sizes, link = store.placed()
    whole = complete(present, link, sizes) and (present is None or fits(need, present))
    if whole and (not order.update or (present and present.store == order.like)):
        return Brought(False, present)
    if store.is_real():
        raise FleetError(
            f"{store.machine}: {need.directory} is there but not from inferbase",
            f"move it away, or write model: {need.path} to use it as it is",
        )
    known = store.known()
    kept = kept_contents(known, need)
    old = present if whole else None
    if kept is not None and _linked(store, need, kept):
        try:
            return _settle(store, order, kept, old)
        except DamagedError as error:
            order.progress.note(f"{error.what}: fetched anew")
    supply = order.supply or (lambda _: source_contents(need, order.secrets, order.progress))
    with supply(store) as contents:
        return _settle(store, order, contents, old)


def _linked(store: Store, need: ModelNeed, kept: Contents) -> bool:
    """Whether all files of a kept revision could be linked to where they are wanted."""
    sizes = store.use(store_name(need, kept))
    reuse(store, kept, store.known(), sizes)
    return all(sizes.get(file.path) == file.size for file in kept.files)


def _settle(store: Store, order: _Order, contents: Contents, old: Stamp | None) -> Brought:
    """Put contents in place unless they are what is there; old: the whole model in place."""
    need, name = order.need, contents.store or store_name(order.need, contents)
    if old and old.store == name:
        return Brought(False, old)
    if old and _same_files(old, contents):
        noted = replace(old, revision=contents.revision)
        _write_stamp(store, need, noted)
        return Brought(False, noted)
    sizes = store.use(name)
    try:
        reuse(store, contents, store.known(), sizes)
        there = bytes_there(contents, sizes)
        text = source_text(need.source)
        check_space(store.machine, need.models_dir, text, store.free(), contents.bytes, there)
        transfer = Transfer(store, order.progress, contents, sizes)
        files = [_stamped(transfer, file) for file in contents.files]
    except FleetError:
        with suppress(FleetError):
            store.tidy()
        raise
    if old:
        store.remember()
    if not store.switch():
        raise FleetError(f"{store.machine}: {need.directory} was made by another program")
    # Before the stamp: a model without one is looked at again, so nothing is left for good.
    store.sweep()
    when = datetime.now(UTC).isoformat(timespec="seconds")
    stamp = Stamp(source_text(need.source), contents.revision, name, tuple(files), when)
    _write_stamp(store, need, stamp)
    return Brought(True, stamp, old)


def _same_files(stamp: Stamp, contents: Contents) -> bool:
    """True when a new revision has the same bytes, as far as its checksums are known."""
    have = {file.path: file.sha256 for file in stamp.files}
    return have == {file.path: file.sha256 for file in contents.files}


def store_name(need: ModelNeed, contents: Contents) -> str:
    """The same name for the same content, so that an interrupted transfer is found again."""
    files = [[file.path, file.size, file.sha256 or file.git] for file in contents.files]
    text = json.dumps([source_text(need.source), contents.revision, files])
    base = need.directory.rpartition("/")[2]
    return f".{base}@{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _write_stamp(store: Store, need: ModelNeed, stamp: Stamp) -> None:
    directory, _, name = stamp_path(need).rpartition("/")
    store.write(directory, name, stamp.to_json().encode() + b"\n")


def _stamped(transfer: Transfer, file: WantedFile) -> StampFile:
    count, sha256 = transfer.bring(file)
    return StampFile(file.path, count, sha256)


def _check_path(host: Host, need: ModelNeed, sudo: bool) -> None:
    if host.run(f"test -e {shlex.quote(need.source.name)}", sudo=sudo).exit:
        raise FleetError(
            f"{host.name}: the model {need.source.name} does not exist there",
            "a model given as a path is never fetched: put it there, or name a source",
        )
