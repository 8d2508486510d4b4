"""The operator's side of store.sh: one conversation in which a model gets onto a machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files

from inferfleet.errors import FleetError
from inferfleet.hosts.host import Host
from inferfleet.models.need import ModelNeed
from inferfleet.models.stamp import Stamp, parse_stamp
from inferfleet.models.transfer.talk import Talk

# curl's exit status for a failed write; its text does not always name the reason.
CURL_WRITE_ERROR = 23
# ssh's for every failure of its own, writing what it received included.
SSH_ERROR = 255
# Less free space than this after a failed write means the disk is full.
_FULL = 1 << 20
# For the machine to let go of the lock after success, and after an interruption.
_END_SECONDS = 30
_GRACE_SECONDS = 0.5


class FetchFailedError(Exception):
    """The machine's own download failed: the tool's exit status, HTTP status (0: none), words."""

    def __init__(self, status: int, http: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.http = http
        self.words = words


@dataclass(frozen=True)
class Kept:
    """A model that lies on the machine, whole: name of its record, directory of its files below
    the models directory, and the record."""

    name: str
    place: str
    stamp: Stamp


class Store(Talk):
    """Verbs of store.sh; all paths are relative to the directory chosen by use()."""

    def text(self, path: str) -> str:
        """First line of a file on the machine, "" when there is none."""
        lines, _, _ = self._ask("text", path)
        return lines[0][2:] if lines else ""

    def placed(self) -> tuple[dict[str, int], str]:
        """(size by path of the files in the model's directory, name of what it links to)."""
        lines, _, link = self._ask("list")
        return _sizes(lines), link

    def is_real(self) -> bool:
        """True when the model's directory is a directory that inferbase did not make."""
        return self._ask("real")[1] == "ok"

    def use(self, name: str) -> dict[str, int]:
        """Choose (and make) the directory that the files go to; sizes of what is there."""
        self._ask("store", name)
        return _sizes(self._ask("stored")[0])

    def free(self) -> int:
        """Free bytes of the disk that holds the models directory."""
        return int(self._ask("free")[2])

    def get(self, path: str, url: str, header: str, advance: Callable[[int], None]) -> int:
        """Let the machine download into path.part, going on where it ends; its size then.

        header: one header line or "" (redirects are followed only without one). Raises
        FetchFailedError when the download fails for any reason but a full disk.
        """
        quoted = [text.replace("\\", "\\\\").replace('"', '\\"') for text in (url, header)]
        self._send("get", path, self.tool, *quoted)
        return self._awaited(advance)

    def _awaited(self, advance: Callable[[int], None]) -> int:
        """Size of a file that the machine fetches by itself, at the end."""
        while True:
            line = self._line()
            if line.startswith("p "):
                advance(int(line[2:]))
                continue
            kind, _, rest = line.partition(" ")
            if kind == "ok":
                return int(rest)
            status, http, words = (rest + "  ").split(" ", 2)
            full = int(status) in (CURL_WRITE_ERROR, SSH_ERROR) and self.free() < _FULL
            if full or "No space left" in words:
                raise self._full()
            raise FetchFailedError(int(status), int(http) if http.isdigit() else 0, words)

    def copy_key(self) -> str:
        """Make a key pair for copying from another machine: its public key, "" without ssh."""
        return self._ask("copy_key")[2]

    def copy_from(self, host: str, port: int, user: str, host_key: str) -> None:
        """Where copies come from, and the one host key that is trusted there."""
        self._ask("copy_from", host, str(port), user, host_key)

    def copy(self, path: str, number: int, advance: Callable[[int], None]) -> int:
        """Let the machine copy a file of the other one, as get() downloads."""
        self._send("copy", path, str(number))
        return self._awaited(advance)

    def put(self, path: str, data: bytes) -> int:
        """Append to path.part; its size then."""
        return int(self._send_data(["put", path], data))

    def digests(self, path: str, git: bool) -> tuple[str, str]:
        """(SHA-256, git blob id or "") of path.part as the machine reads it back."""
        _, _, rest = self._ask("digest" if git else "digest_plain", path)
        sha256, _, blob = rest.partition(" ")
        return sha256, blob

    def part_size(self, path: str) -> int:
        """Bytes of path.part, 0 when there is none."""
        return int(self._ask("part_size", path)[2])

    def sha256_kept(self, path: str) -> str:
        """SHA-256 of a file that has its name already."""
        return self._ask("digest_kept", path)[2]

    def keep(self, path: str) -> None:
        """path.part is right: flush it to the disk and give it its name."""
        self._ask("keep", path)

    def drop(self, path: str) -> None:
        """Remove path.part."""
        self._ask("drop", path)

    def reuse(self, path: str, old: str) -> bool:
        """Take path from old, below the models directory, as a hard link; False if it cannot."""
        return self._ask("reuse", path, old)[1] == "ok"

    def known(self) -> list[Kept]:
        """Every model that lies whole in the models directory, old revisions included."""
        found = []
        for line in self._ask("known")[0]:
            name, place, text = line[2:].split("\t", 2)
            if stamp := parse_stamp(text):
                found.append(Kept(name, place, stamp))
        return found

    def remember(self) -> None:
        """Keep the record of the model's present files beside that of the ones to come."""
        self._ask("remember")

    def switch(self) -> bool:
        """Make the chosen directory the model's; False when a foreign directory is there."""
        return self._ask("switch")[1] == "ok"

    def sweep(self) -> None:
        """Remove what interrupted runs have left of the model; whole revisions stay."""
        self._ask("sweep")

    def tidy(self) -> None:
        """Remove the chosen directory if nothing has got into it."""
        self._ask("tidy")

    def serve_root(self, root: str) -> None:
        """Write down that the inferbase below root uses this models directory."""
        self._ask("root", root)

    def remove(self, *paths: str) -> None:
        """Remove directories, links and records, all below the models directory."""
        for path in paths:
            self._ask("remove", path)

    def remove_empty(self, path: str) -> None:
        """Remove a directory below the models directory, and those above it, if empty."""
        self._ask("empty", path)

    def write(self, directory: str, name: str, data: bytes) -> None:
        """Replace a small file in one step; makes its directory."""
        self._send_data(["put_small", directory, name], data)

    def names(self, path: str) -> list[str] | None:
        """Entries of a directory, or the name of a file; None when nothing is there."""
        lines, kind, _ = self._ask("names", path)
        return None if kind == "no" else [line[2:] for line in lines]

    def sha256(self, path: str) -> str:
        """SHA-256 of a small file on the machine, "" when it is not there."""
        return self._ask("show", path)[2]

    def link(self, directory: str, name: str, target: str, ours: bool) -> bool | None:
        """Make a symbolic link; True when it changed, None when a foreign file is there."""
        _, kind, rest = self._ask("mklink", directory, name, target, "1" if ours else "0")
        return None if kind == "no" else rest == "changed"

    def unlink(self, path: str) -> None:
        """Remove a file or a link."""
        self._ask("unlink", path)


def _sizes(lines: list[str]) -> dict[str, int]:
    sizes = {}
    for line in lines:
        _, size, path = line.split(" ", 2)
        sizes[path.removeprefix("./")] = int(size)
    return sizes


@contextmanager
def open_store(host: Host, need: ModelNeed, *, sudo: bool = False) -> Iterator[Store]:
    """Talk to the machine about one model, alone: a lock is held until the block ends."""
    script = files("inferfleet.models.transfer").joinpath("store.sh").read_text(encoding="ascii")
    conversation = host.converse(script, sudo=sudo)
    try:
        store = Store(host, conversation, need)
        store.start()
        yield store
    except BaseException:
        # A download of the machine's own ends with the connection, at the latest.
        with suppress(FleetError):
            conversation.finish(_GRACE_SECONDS)
        raise
    conversation.finish(_END_SECONDS)
