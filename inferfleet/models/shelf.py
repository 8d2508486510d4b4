"""What lies in a machine's models directory, and who uses it; as remote/shelf.sh tells it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from inferfleet.errors import FleetError
from inferfleet.hosts.host import Host
from inferfleet.models.sources.origin import Contents
from inferfleet.models.stamp import Stamp, parse_stamp
from inferfleet.remote import program

LOOK_SECONDS = 120.0


@dataclass(frozen=True)
class OnDisk:
    """A file of a model: inode, number of its links, bytes and path below the store."""

    inode: int
    links: int
    size: int
    path: str


@dataclass(frozen=True)
class Use:
    """A generation that names a model's directory or an alias, below the models directory."""

    root: str
    generation: int
    current: bool
    place: str


@dataclass(frozen=True)
class Shelf:
    """All paths are below the models directory.

    free, total: bytes of its disk. links: a model's directory -> name of the store it leads to.
    stores: directories with the files of one revision. stamps: records of whole revisions by
    name. aliases: directory -> the model's directory. elsewhere: machines that use the same
    disk, and roots whose generations cannot be read. held: names of stores that a process reads,
    or an old one that a service was started with;
    pages: that have files in huge pages. paths: KiB by path, of models that are not ours. busy:
    keys of models that a run is at work on. here: what the machine calls itself, as elsewhere
    would have it.
    """

    free: int
    total: int
    links: Mapping[str, str] = field(default_factory=dict)
    stores: Mapping[str, tuple[OnDisk, ...]] = field(default_factory=dict)
    stamps: Mapping[str, Stamp] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    uses: tuple[Use, ...] = ()
    elsewhere: tuple[str, ...] = ()
    held: frozenset[str] = frozenset()
    pages: frozenset[str] = frozenset()
    paths: Mapping[str, int] = field(default_factory=dict)
    busy: frozenset[str] = frozenset()
    here: str = ""

    def same_disk(self, other: Shelf) -> bool:
        """Whether both machines see the very same files here."""
        return bool(self.stores) and self.stores == other.stores

    def joined(self, others: Sequence[Shelf]) -> Shelf:
        """This shelf, with what other machines that see the same disk know of its users; what
        these use is no longer unknown."""
        every = (self, *others)
        seen = {shelf.here for shelf in every}
        return replace(
            self,
            uses=tuple(dict.fromkeys(use for shelf in every for use in shelf.uses)),
            elsewhere=tuple(sorted({e for shelf in every for e in shelf.elsewhere} - seen)),
            held=frozenset().union(*(shelf.held for shelf in every)),
            pages=frozenset().union(*(shelf.pages for shelf in every)),
            busy=frozenset().union(*(shelf.busy for shelf in every)),
        )

    def record(self, store: str) -> tuple[str, Stamp] | None:
        """(name, record) of the revision in a store; the one in force comes first."""
        name = store.rpartition("/")[2]
        found = [(key, stamp) for key, stamp in self.stamps.items() if stamp.store == name]
        return min(found, key=lambda item: len(item[0]), default=None)

    def link_of(self, store: str) -> str:
        """The model's directory that leads, or led, to a store."""
        parent, _, name = store.rpartition("/")
        return f"{parent}/{name[1:].rpartition('@')[0]}"

    def current(self, store: str) -> bool:
        """Whether the model's directory leads to this store now."""
        return self.links.get(self.link_of(store)) == store.rpartition("/")[2]

    def users(self, place: str) -> list[Use]:
        """Generations that use a model's directory, by its own name or by an alias."""
        names = {place, *(alias for alias, target in self.aliases.items() if target == place)}
        return [use for use in self.uses if use.place in names]

    def to_fetch(self, contents: Contents, directory: str, store: str) -> int | None:
        """Bytes that must come to have these files; None where the source tells no size.

        directory and store: where they will lie; files with a known checksum that still lie in
        a revision on record are linked, and what an interrupted run left is used.
        """
        have = self._checksums()
        place = f"{directory.rpartition('/')[0]}/{store}"
        sizes = {file.path: file.size for file in self.stores.get(place, ())}
        total = 0
        for file in contents.files:
            if file.sha256 is not None and file.sha256 in have:
                continue
            if file.size is None:
                return None
            there = sizes.get(file.path) or sizes.get(f"{file.path}.part", 0)
            total += max(0, file.size - there)
        return total

    def _checksums(self) -> set[str]:
        """Of all files on record that are there as long as they should be."""
        there = {
            (place.rpartition("/")[2], file.path): file.size
            for place, files in self.stores.items()
            for file in files
        }
        return {
            file.sha256
            for stamp in self.stamps.values()
            for file in stamp.files
            if there.get((stamp.store, file.path)) == file.size
        }


def read_shelf(
    host: Host, models: str, root: str, *, sudo: bool, paths: Iterable[str] = ()
) -> Shelf:
    """One round trip; nothing changes. Raises FleetError when it is cut short."""
    script = program("shelf", models=models, root=root, paths="\n".join(sorted(set(paths))))
    result = host.run(script, sudo=sudo, timeout=LOOK_SECONDS)
    if not result.out.endswith("end\n"):
        words = result.err.strip()[:300]
        raise FleetError(f"{host.name}: looking at {models} failed: {words or 'cut short'}")
    return parse_shelf(result.out)


def parse_shelf(text: str) -> Shelf:
    """Read the output of remote/shelf.sh."""
    records: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        kind, *fields = line.split("\t")
        records.setdefault(kind, []).append(fields)

    def all_of(kind: str, count: int) -> list[list[str]]:
        return [f for f in records.get(kind, []) if len(f) >= count]

    stores: dict[str, list[OnDisk]] = {fields[0]: [] for fields in all_of("store", 1)}
    for store, text_ in ((f[0], "\t".join(f[1:])) for f in all_of("file", 2)):
        inode, links, size, path = text_.split(" ", 3)
        entry = OnDisk(int(inode), int(links), int(size), path.removeprefix("./"))
        stores.setdefault(store, []).append(entry)
    stamps = {f[0]: parse_stamp("\t".join(f[1:])) for f in all_of("stamp", 2)}
    uses = []
    for root, number, place in (f[:3] for f in all_of("use", 3)):
        digits, _, current = number.partition(" ")
        uses.append(Use(root, int(digits), current == "current", place.lstrip("/")))
    led = {f[0]: f[1] for f in all_of("link", 2)}
    # Of the revision in force the generations tell more.
    started = {f[0].strip("/") for f in all_of("started", 1)} - {*led.values()}
    disk = (all_of("disk", 2) or [["0", "0"]])[0]
    return Shelf(
        free=int(disk[0]),
        total=int(disk[1]),
        links=led,
        stores={name: tuple(sorted(files, key=_path)) for name, files in stores.items()},
        stamps={name: stamp for name, stamp in stamps.items() if stamp is not None},
        aliases={f[0]: f[1] for f in all_of("alias", 2)},
        uses=tuple(uses),
        elsewhere=tuple(sorted({f[0] for f in all_of("elsewhere", 1)})),
        held=frozenset(f[0].strip("/") for f in all_of("held", 1)) | started,
        pages=frozenset(f[0].strip("/") for f in all_of("pages", 1)),
        paths={f[0]: int(f[1]) for f in all_of("path", 2) if f[1].isdigit()},
        busy=frozenset(f[0] for f in all_of("lock", 1)),
        here=(all_of("here", 1) or [[""]])[0][0],
    )


def _path(file: OnDisk) -> str:
    return file.path
