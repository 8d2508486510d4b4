"""models.prune: what of a models directory nobody needs any more, and removing it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from inferfleet.errors import FleetError
from inferfleet.hosts.host import Host
from inferfleet.models.alias import remove_alias
from inferfleet.models.need import ModelNeed, Source
from inferfleet.models.shelf import Shelf
from inferfleet.models.sources.source import parse_source
from inferfleet.models.transfer.store import open_store

META = ".inferbase"
BUSY = "another run is at work on a model"


@dataclass(frozen=True)
class Removal:
    """Something that could go. what: old, unused, unfinished or alias. key and directory: of
    the model, for its lock. paths: below the models directory, in the order they go; of an
    alias only what is ours goes. files: inode, bytes and path of each. keep: why it stays, ""
    when it goes; frees: bytes, of all that goes together counted once. Two are equal when the
    same would go."""

    what: str
    model: str
    revision: str
    place: str
    key: str
    directory: str
    paths: tuple[str, ...]
    files: frozenset[tuple[int, int, str]] = frozenset()
    keep: str = ""
    frees: int = field(default=0, compare=False)


def removals(
    shelf: Shelf,
    needs: Iterable[ModelNeed],
    directory: str,
    *,
    all_generations: bool = False,
    held: str = "",
) -> list[Removal]:
    """Everything that could go, with why it stays where it does; pure.

    needs: of every machine of the inventory whose models directory has this path, because a
    disk may be shared. all_generations: what only kept generations of this machine use may go;
    what a generation in force uses, or a process or huge pages hold, never does. held: the key
    whose lock the caller has itself.
    """
    shelf = replace(shelf, busy=shelf.busy - {held})
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


def prune(
    host: Host,
    directory: str,
    removal: Removal,
    look: Callable[[str], Iterable[Removal]],
    *,
    sudo: bool,
) -> str:
    """Remove it under its model's lock: "", or why it stays after all. Raises FleetError.

    look: everything that could go now, given the key whose lock is held. Only what is still
    as it was when it was listed goes.
    """
    need = ModelNeed(
        "", removal.key, Source("path", removal.model), removal.directory, "",
        models_dir=directory,
    )  # fmt: skip
    with open_store(host, need, sudo=sudo) as store:
        now = next((found for found in look(removal.key) if found.place == removal.place), None)
        if now != removal:
            return (now and now.keep) or "changed, or in use, since it was listed"
        if removal.what == "alias":
            remove_alias(store, removal.place)
        else:
            store.remove(*removal.paths)
    return ""


def about(removal: Removal, asked: ModelNeed) -> bool:
    """Whether something is of the model that was asked for: at every revision, unless the user
    wrote one in a source. asked: of a model file, by its name, or of a source alone."""
    if asked.source.scheme != "hf":
        return removal.directory == asked.directory
    place, wanted = removal.directory.rpartition("/"), asked.directory.rpartition("/")
    # REVISION, and behind a plus which files of the repository; see needs.model_need.
    same = place[0] == wanted[0] and place[2].partition("+")[2] == wanted[2].partition("+")[2]
    if asked.declared:
        return same
    revision = asked.source.revision
    if revision and revision not in {removal.revision, place[2].partition("+")[0]}:
        return False
    return same or _source(removal) == replace(asked.source, revision="")


def _source(removal: Removal) -> Source | None:
    """What was fetched, without its revision; None where no record tells."""
    try:
        return replace(parse_source(removal.model, None), revision="")
    except FleetError:
        return None


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
        frozenset((file.inode, file.size, file.path) for file in shelf.stores[store]),
        keep=_kept(shelf, link, name, what, all_generations),
    )


def _kept(shelf: Shelf, link: str, name: str, what: str, all_generations: bool) -> str:
    if name in shelf.pages:
        return "in huge pages (models.unpin)"
    if name in shelf.held:
        return "a process reads it"
    if what == "unused":
        return _generation(shelf, link, all_generations)
    # Which model a run fetches cannot be told from the names of the directories.
    return BUSY if shelf.busy else _elsewhere(shelf)


def _generation(shelf: Shelf, place: str, all_generations: bool) -> str:
    for use in sorted(shelf.users(place), key=lambda use: (not use.current, -use.generation)):
        if use.current:
            return f"generation {use.generation} of {use.root} runs with it"
        if not all_generations:
            return f"generation {use.generation} of {use.root} uses it"
    return _elsewhere(shelf)


def _elsewhere(shelf: Shelf) -> str:
    """What machines and roots use, whose processes and generations cannot be seen from here,
    may be anything: an engine there reads an old revision until it is started again."""
    return f"{', '.join(shelf.elsewhere)} uses this disk, too" if shelf.elsewhere else ""


def _alias(shelf: Shelf, alias: str, directory: str, all_generations: bool) -> Removal:
    target = shelf.aliases[alias]
    keep = BUSY if shelf.busy else _generation(shelf, alias, all_generations)
    return Removal(
        "alias", target, "", alias, f"alias-{alias.replace('/', '-')}", f"{directory}/{target}",
        (alias,), keep=keep,
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
