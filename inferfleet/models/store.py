"""The operator's side of store.sh: one conversation in which a model gets onto a machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files

from inferfleet.errors import LOCKED, FleetError
from inferfleet.host import Conversation, Host
from inferfleet.models.need import ModelNeed

# curl's exit status for a failed write; its text does not always name the reason.
CURL_WRITE_ERROR = 23
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


class Store:
    """Verbs of store.sh; all paths are relative to the directory chosen by use().

    Every method raises FleetError when the machine refuses, with the machine's own words.
    """

    def __init__(self, host: Host, conversation: Conversation, need: ModelNeed) -> None:
        self._conversation = conversation
        self.machine = host.name
        self.need = need
        self.tool = "none"

    def start(self) -> None:
        """Take the model's lock; FleetError (code LOCKED) names the run that holds it."""
        self._send(self.need.models_dir, self.need.key, self.need.directory)
        _, kind, rest = self._answer()
        if kind == "no":
            pid, _, machine = rest.partition(" ")
            raise FleetError(
                f"{self.machine}: another run (process {pid} on {machine}) is at work on the "
                f"model {self.need.key}",
                f"wait for it, or end process {pid} on {machine} if it hangs",
                code=LOCKED,
            )
        self.tool = rest

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
        while True:
            line = self._line()
            if line.startswith("p "):
                advance(int(line[2:]))
                continue
            kind, _, rest = line.partition(" ")
            if kind == "ok":
                return int(rest)
            status, http, words = (rest + "  ").split(" ", 2)
            if "No space left" in words or (
                int(status) == CURL_WRITE_ERROR and self.free() < _FULL
            ):
                raise self._full()
            raise FetchFailedError(int(status), int(http) if http.isdigit() else 0, words)

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
        """Take path from the model's present directory, as a hard link; False if it cannot."""
        return self._ask("reuse", path, old)[1] == "ok"

    def switch(self) -> bool:
        """Make the chosen directory the model's; False when a foreign directory is there."""
        return self._ask("switch")[1] == "ok"

    def prune(self) -> None:
        """Remove the model's other directories, left by an update or an interrupted run."""
        self._ask("prune")

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

    def _ask(self, *lines: str) -> tuple[list[str], str, str]:
        self._send(*lines)
        return self._answer()

    def _answer(self) -> tuple[list[str], str, str]:
        lines: list[str] = []
        while True:
            line = self._line()
            kind, _, rest = line.partition(" ")
            if kind in ("ok", "no"):
                return lines, kind, rest
            if kind == "fail":
                raise self._refused(rest.partition(" ")[2])
            lines.append(line)

    def _send(self, *lines: str) -> None:
        for line in lines:
            if "\n" in line:
                raise FleetError(f"{self.machine}: {line!r} cannot be written in one line")
        self._conversation.send("".join(f"{line}\n" for line in lines).encode())

    def _send_data(self, lines: list[str], data: bytes) -> str:
        try:
            self._send(*lines, str(len(data)))
            self._conversation.send(data)
        except (FleetError, OSError):
            # The machine gives up on a failed write and says why before it closes.
            _, _, rest = self._answer()
            return rest
        return self._answer()[2]

    def _line(self) -> str:
        line = self._conversation.readline()
        if line is None:
            result = self._conversation.finish(10)
            words = result.err.strip().rpartition("\n")[2] or f"exit status {result.exit}"
            raise FleetError(
                f"{self.machine}: fetching the model {self.need.key} was cut off: {words}",
                "run the same command again; it continues where this one stopped",
            )
        return line

    def _refused(self, words: str) -> FleetError:
        if "No space left" in words:
            return self._full()
        hint = ""
        if "Permission denied" in words:
            hint = (
                f"give the user write access to {self.need.models_dir}, choose another "
                "models directory, or set sudo: true in the machine file"
            )
        return FleetError(f"{self.machine}: model {self.need.key}: {words}", hint)

    def _full(self) -> FleetError:
        return FleetError(
            f"{self.machine}: the disk of {self.need.models_dir} is full; "
            f"the model {self.need.key} is not complete",
            "make room and run the same command again; it continues where this one stopped",
        )


def _sizes(lines: list[str]) -> dict[str, int]:
    sizes = {}
    for line in lines:
        _, size, path = line.split(" ", 2)
        sizes[path.removeprefix("./")] = int(size)
    return sizes


@contextmanager
def open_store(host: Host, need: ModelNeed, *, sudo: bool = False) -> Iterator[Store]:
    """Talk to the machine about one model, alone: a lock is held until the block ends."""
    script = files("inferfleet.models").joinpath("store.sh").read_text(encoding="ascii")
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
