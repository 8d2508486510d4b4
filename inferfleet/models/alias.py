"""Aliases: a directory of links to a model's files, with a few files of its own."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from hashlib import sha256

from inferfleet.errors import FleetError
from inferfleet.models.need import ModelNeed
from inferfleet.models.needs import single_file
from inferfleet.models.transfer.store import Store

# Names of what inferbase has put into an alias directory, as a JSON list; nothing else there
# is ever touched.
OWN = ".inferbase-alias"


def ensure_aliases(store: Store, need: ModelNeed) -> bool:
    """Make every alias lead to the model's files; True when something changed.

    Every link and file is replaced in one step, so a reader never finds one missing.
    Raises FleetError when a file that inferbase did not put there is in the way.
    """
    changed = False
    for alias, own in need.aliases.items():
        changed = _ensure(store, need, alias, own) or changed
    return changed


def remove_alias(store: Store, alias: str) -> None:
    """Remove what inferbase has put into an alias directory, and the directory if that was all.

    alias: below the models directory.
    """
    directory = f"{store.need.models_dir}/{alias}"
    for name in _owned(store, directory):
        store.unlink(f"{directory}/{name}")
    store.unlink(f"{directory}/{OWN}")
    store.remove_empty(alias)


def _ensure(store: Store, need: ModelNeed, alias: str, own: Mapping[str, str]) -> bool:
    real = need.directory or need.source.name
    names = store.names(real)
    if names is None:
        raise FleetError(
            f"{store.machine}: {real} does not exist, so its alias {alias} cannot be made"
        )
    base = posixpath.dirname(real) if single_file(need.source) and not need.directory else real
    before = _owned(store, alias)
    links = [name for name in names if name not in own]
    # Written first, so that an interrupted run knows afterwards what is its own.
    wanted = sorted([*links, *own])
    _record(store, alias, sorted({*before, *wanted}))
    changed = False
    for name in links:
        target = f"{base}/{name}"
        if need.directory:
            target = posixpath.relpath(target, alias)
        done = store.link(alias, name, target, name in before)
        if done is None:
            raise _in_the_way(store, f"{alias}/{name}")
        changed = changed or done
    for name, text in own.items():
        data = text.encode()
        present = store.sha256(f"{alias}/{name}")
        if present == sha256(data).hexdigest():
            continue
        if present and name not in before:
            raise _in_the_way(store, f"{alias}/{name}")
        store.write(alias, name, data)
        changed = True
    for name in sorted(set(before) - set(wanted)):
        store.unlink(f"{alias}/{name}")
        changed = True
    _record(store, alias, wanted)
    return changed


def _owned(store: Store, alias: str) -> list[str]:
    try:
        names = json.loads(store.text(f"{alias}/{OWN}") or "[]")
    except ValueError:
        return []
    return [name for name in names if isinstance(name, str) and name and "/" not in name]


def _record(store: Store, alias: str, names: list[str]) -> None:
    if _owned(store, alias) != names:
        store.write(alias, OWN, json.dumps(names).encode() + b"\n")


def _in_the_way(store: Store, path: str) -> FleetError:
    return FleetError(
        f"{store.machine}: {path} is not from inferbase and in the way of an alias",
        "move it away, or choose another alias",
    )
