"""Aliases: a directory of links to a model's files, with a few files of its own."""

from __future__ import annotations

import json
import posixpath
from hashlib import sha256

from inferfleet.errors import FleetError
from inferfleet.models.need import ModelNeed
from inferfleet.models.needs import single_file
from inferfleet.models.store import Store

# Names of what inferbase has put into an alias directory, as a JSON list; nothing else there
# is ever touched.
OWN = ".inferbase-alias"


def ensure_alias(store: Store, need: ModelNeed) -> bool:
    """Make the alias lead to the model's files; True when something changed.

    Every link and file is replaced in one step, so a reader never finds one missing.
    Raises FleetError when a file that inferbase did not put there is in the way.
    """
    if need.alias is None:
        return False
    real = need.directory or need.source.name
    names = store.names(real)
    if names is None:
        raise FleetError(
            f"{store.machine}: {real} does not exist, so its alias {need.alias} cannot be made"
        )
    base = posixpath.dirname(real) if single_file(need.source) and not need.directory else real
    before = _owned(store, need.alias)
    links = [name for name in names if name not in need.extra]
    # Written first, so that an interrupted run knows afterwards what is its own.
    wanted = sorted([*links, *need.extra])
    _record(store, need.alias, sorted({*before, *wanted}))
    changed = False
    for name in links:
        target = f"{base}/{name}"
        if need.directory:
            target = posixpath.relpath(target, need.alias)
        done = store.link(need.alias, name, target, name in before)
        if done is None:
            raise _in_the_way(store, f"{need.alias}/{name}")
        changed = changed or done
    for name, text in need.extra.items():
        data = text.encode()
        present = store.sha256(f"{need.alias}/{name}")
        if present == sha256(data).hexdigest():
            continue
        if present and name not in before:
            raise _in_the_way(store, f"{need.alias}/{name}")
        store.write(need.alias, name, data)
        changed = True
    for name in sorted(set(before) - set(wanted)):
        store.unlink(f"{need.alias}/{name}")
        changed = True
    _record(store, need.alias, wanted)
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
