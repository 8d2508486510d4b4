"""models.prune: what of a models directory nobody needs any more, and removing it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from inferfleet.host import Host
from inferfleet.models.alias import remove_alias
from inferfleet.models.need import ModelNeed, Source
from inferfleet.models.shelf import Shelf
from inferfleet.models.store import open_store

META = ".inferbase"


@dataclass(frozen=True)
class Removal:
    """Something that could go. what: old, unused, unfinished or alias. key and directory: of
    the model, for its lock. paths: below the models directory, in the order they go; of an
    alias only what is ours goes. keep: why it stays, "" when it goes; frees: bytes, of
    all that goes together counted once."""

    what: str
    model: str
    revision: str
    place: str
    key: str
    directory: str
    paths: tuple[str, ...]
    keep: str = ""
    frees: int = 0


def removals(
    shelf: Shelf,
    needs: Iterable[ModelNeed],
    directory: str,
    *,
    all_generations: bool = False,
) -> list[Removal]:
    """Everything that could go, with why it stays where it does; pure.

    needs: of every machine of the inventory whose models directory has this path, because a
    disk may be shared. all_generations: what only kept generations use may go; what the
    generation in force uses, or a process or huge pages hold, never does.
    """
    wanted = list(needs)
    named = {need.directory for need in wanted}
    found = [
        removal
        for store in sorted(shelf.stores)
        if (removal := _store(shelf, store, named, directory, all_generations))
    ]
    claimed = {alias for need in wanted for alias in need.aliases}
    found += [
        _alias(shelf, alias, directory, all_generations)
        for alias in sorted(shelf.aliases)
        if f"{directory}/{alias}" not in claimed
    ]
    return _priced(shelf, found)


def prune(host: Host, directory: str, going: Iterable[Removal], *, sudo: bool) -> None:
    """Remove them, each under its model's lock. Raises FleetError."""
    for removal in going:
        need = ModelNeed(
            "", removal.key, Source("path", removal.model), removal.directory, "",
            models_dir=directory,
        )  # fmt: skip
        with open_store(host, need, sudo=sudo) as store:
            if removal.what == "alias":
                remove_alias(store, removal.place)
            else:
                store.remove(*removal.paths)


def _store(
    shelf: Shelf, store: str, named: set[str], directory: str, all_generations: bool
) -> Removal | None:
    link, record, current = shelf.link_of(store), shelf.record(store), shelf.current(store)
    name = store.rpartition("/")[2]
    if f"{directory}/{link}" in named and (current or record is None):
        # In use, or what an interrupted run left for the next one to go on with.
        return None
    what = "unused" if current else "old" if record else "unfinished"
    paths = [link, store] if current else [store]
    key = link.replace("/", "-")
    if record:
        key = record[0].removesuffix(name)
        records = [key_ for key_, stamp in shelf.stamps.items() if stamp.store == name]
        paths = [paths[0], *(f"{META}/{each}.json" for each in records), *paths[1:]]
    return Removal(
        what,
        record[1].source if record else link,
        record[1].revision if record else "",
        store,
        key,
        f"{directory}/{link}",
        tuple(paths),
        keep=_kept(shelf, link, name, what, all_generations),
    )


def _kept(shelf: Shelf, link: str, name: str, what: str, all_generations: bool) -> str:
    if name in shelf.pages:
        return "in huge pages (models.unpin)"
    if name in shelf.held:
        return "a process reads it"
    if what == "unfinished" and shelf.busy:
        return "another run is at work on a model"
    if what == "unused":
        return _generation(shelf, link, all_generations)
    return ""


def _generation(shelf: Shelf, place: str, all_generations: bool) -> str:
    for use in sorted(shelf.users(place), key=lambda use: (not use.current, -use.generation)):
        if use.current:
            return f"generation {use.generation} of {use.root} runs with it"
        if not all_generations:
            return f"generation {use.generation} of {use.root} uses it"
    if shelf.elsewhere and not all_generations:
        return f"{', '.join(shelf.elsewhere)} uses this disk, too"
    return ""


def _alias(shelf: Shelf, alias: str, directory: str, all_generations: bool) -> Removal:
    target = shelf.aliases[alias]
    return Removal(
        "alias", target, "", alias, f"alias-{alias.replace('/', '-')}", f"{directory}/{target}",
        (alias,), keep=_generation(shelf, alias, all_generations),
    )  # fmt: skip


def _priced(shelf: Shelf, found: list[Removal]) -> list[Removal]:
    """Each with the bytes it frees: a file goes with the last of its links."""
    links: dict[int, int] = {}
    priced = []
    for removal in found:
        frees = 0
        for file in () if removal.keep else shelf.stores.get(removal.place, ()):
            links[file.inode] = links.get(file.inode, 0) + 1
            if links[file.inode] == file.links:
                frees += file.size
        priced.append(replace(removal, frees=frees))
    return priced
