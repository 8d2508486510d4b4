"""A service's model in huge pages of its machine: models.pin and models.unpin.

The file is copied into a hugetlbfs of its size and bound over its own path, so that every
runtime finds it where the machine file says and nothing that is rendered changes. A start of
the machine takes all of it back: the engine then reads the disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from inferfleet.errors import LOCKED, FleetError
from inferfleet.events import Event, Listener
from inferfleet.models.observe import PAGE
from inferfleet.observe.journal import Lock
from inferfleet.remote import program

if TYPE_CHECKING:
    from inferfleet.run.session import Session

LOOK_SECONDS = 60.0
COPY_SECONDS = 3600.0
FINISH_SECONDS = 30.0
# Of the memory, what is left to everything else after the pages are taken.
MARGIN = 20


@dataclass(frozen=True)
class Kept:
    """What an earlier pin wrote down: real path, bytes and modification time of the file, and
    the pages that it added to the pool."""

    real: str
    size: int
    time: str
    added: int


@dataclass(frozen=True)
class Pinned:
    """What was found of one model. facts: as remote/pages.sh names them; size: bytes of the
    file that lies there now; bound: that file is in huge pages."""

    facts: Mapping[str, str]
    size: int
    bound: bool
    kept: Kept | None

    def number(self, name: str) -> int:
        """A fact that is a number, 0 when it is not there."""
        text = self.facts.get(name, "")
        return int(text) if text.isdigit() else 0

    @property
    def pages(self) -> int:
        """Pages of 2 MiB that the file takes."""
        return -(-self.size // PAGE)

    @property
    def whole(self) -> bool:
        """Whether the model that is there now is in huge pages."""
        kept = self.kept
        return kept is not None and self.bound and kept.real == self.facts.get("real")

    @property
    def missing(self) -> int:
        """Pages by which the pool must grow."""
        free = self.number("free_hugepages") - self.number("resv_hugepages")
        return max(0, self.pages - free)


def parse_pinned(text: str) -> Pinned:
    """Read what `look` of remote/pages.sh prints. Raises FleetError when it is cut short."""
    facts: dict[str, str] = {}
    size, kept = 0, None
    lines = text.splitlines()
    for line in lines:
        kind, *fields = line.split("\t")
        if kind == "fact" and len(fields) == 2:
            facts[fields[0]] = fields[1]
        elif kind == "stat" and fields[0].isdigit():
            size = int(fields[0])
        elif kind == "kept" and len(fields) >= 4 and fields[1].isdigit() and fields[3].isdigit():
            kept = Kept(fields[0], int(fields[1]), fields[2], int(fields[3]))
    if "end" not in lines:
        raise FleetError("looking at the model was cut short", hint="run it again")
    return Pinned(facts, size, facts.get("bound") == "yes", kept)


def pin_plan(machine: str, service: str, found: Pinned) -> list[str]:
    """What pinning would do, a line each; nothing when it is done already.

    Raises FleetError for what stands against it.
    """
    real = found.facts.get("real", "")
    if found.whole:
        return []
    _refuse(machine, service, found)
    add, total = found.missing, found.number("nr_hugepages")
    lines = [f"vm.nr_hugepages: {total} -> {total + add} ({mib(add)} more)"] if add else []
    return [
        *lines,
        f"copy {real} into {found.pages} huge pages ({mib(found.pages)})",
        f"bind the copy over {real}",
    ]


def unpin_plan(found: Pinned) -> list[str]:
    """What unpinning would do, a line each; nothing when nothing is pinned."""
    if found.kept is None:
        return []
    total = found.number("nr_hugepages")
    lines = [f"take the copy away from {found.kept.real}, which lies on its disk unchanged"]
    if found.kept.added and found.facts.get("mounted"):
        left = max(0, total - found.kept.added)
        lines.append(f"vm.nr_hugepages: {total} -> {left} ({mib(found.kept.added)} given back)")
    return lines


def _refuse(machine: str, service: str, found: Pinned) -> None:
    facts, real = found.facts, found.facts.get("real", "")
    if facts.get("root") != "yes":
        raise FleetError(
            f"{machine}: huge pages need root, and this is {facts.get('user')}",
            hint="set `sudo: true` in the machine file",
        )
    if facts.get("kind") == "directory":
        raise FleetError(
            f"{machine}: the model of {service} is the directory {real}",
            hint="only a model of one file is put into huge pages, such as a GGUF file",
        )
    if facts.get("kind") != "file" or not found.size:
        raise FleetError(
            f"{machine}: the model of {service} is not there",
            hint="`invoke update-models` fetches it",
        )
    if any(char.isspace() or char == "\\" for char in real):
        raise FleetError(f"{machine}: {real} has white space in its path", hint="rename it")
    if "nr_hugepages" not in facts:
        raise FleetError(
            f"{machine}: its kernel has no huge pages of 2 MiB", hint="leave the model on its disk"
        )
    if facts.get("copier") == "none":
        raise FleetError(
            f"{machine}: neither perl nor python3 is there, and hugetlbfs takes no plain write",
            hint="install perl-base (Debian, Ubuntu) or python3; sh and coreutils cannot do it",
        )
    available = found.number("MemAvailable") << 10
    margin = (found.number("MemTotal") << 10) // MARGIN
    if found.missing * PAGE > available - margin:
        raise FleetError(
            f"{machine}: {mib(found.missing)} more are needed in huge pages, and "
            f"{available >> 20} MiB are available ({margin >> 20} MiB of them stay for the rest)",
            hint="stop another service first, or leave the model on its disk",
        )


class Pages:
    """The model of one service of a session. Raises FleetError for what the user must know."""

    def __init__(self, session: Session, service: str) -> None:
        need = next((n for n in session.release.models if n.service == service), None)
        if need is None or not need.path.startswith("/"):
            raise FleetError(
                f"{session.host.name}: {service} has no model file of its own",
                hint="only services that load a file, such as llama-cpp, can be pinned",
            )
        self._session, self._service = session, service
        self._values = {"key": f"{session.release.project}-{service}", "path": need.path}

    def look(self) -> Pinned:
        """One round trip: what is there now; nothing changes."""
        script = program("pages", **self._values) + "look\n"
        result = self._session.host.run(script, sudo=self._session.sudo, timeout=LOOK_SECONDS)
        return parse_pinned(result.out)

    def pin(self, found: Pinned, listener: Listener) -> None:
        """Put it into huge pages, or leave the machine as it was."""
        self._act("pin", listener, need=found.pages)

    def unpin(self, listener: Listener) -> None:
        """Give the pages back; a process that still reads them keeps them until it ends."""
        self._act("unpin", listener)

    def _act(self, verb: str, listener: Listener, **numbers: int) -> None:
        from inferfleet.apply.apply import operator

        when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        values: dict[str, str | int] = {**self._values, **numbers}
        values |= {"who": operator(), "when": when, "what": f"models.{verb}"}
        script = program("lock", "pages", **values) + f"{verb}\n"
        machine = self._session.host.name
        talk = self._session.host.converse(script, sudo=self._session.sudo)
        while True:
            try:
                line = talk.readline(COPY_SECONDS)
            except TimeoutError:
                line = None
            kind, *fields = (line or "").split("\t")
            if kind == "step":
                listener(Event(machine, "note", fields[0]))
            elif kind == "done":
                talk.finish(FINISH_SECONDS)
                return
            elif kind == "error":
                talk.finish(FINISH_SECONDS)
                raise refusal(machine, fields)
            elif line is None:
                words = talk.finish(FINISH_SECONDS).err.strip()[:300]
                raise FleetError(
                    f"{machine}: models.{verb} ended early{f': {words}' if words else ''}",
                    hint=f"run it again, or `invoke models.unpin --service {self._service}`",
                )


def refusal(machine: str, fields: list[str]) -> FleetError:
    """The error that a record of remote/pages.sh speaks of."""
    kind, detail = (*fields, "", "")[:2]
    if kind == "locked":
        lock = Lock.parse(detail, alive=True)
        return FleetError(
            f"{machine}: its huge pages are locked by {lock}",
            hint="wait until that run ends",
            code=LOCKED,
        )
    if kind == "short":
        had, wanted = (int(word) for word in detail.split())
        return FleetError(
            f"{machine}: {had} of {wanted} huge pages could be had, {mib(wanted - had)} are "
            "missing, and those were given back",
            hint="memory is in small pieces: stop services, or pin right after a start of the "
            "machine (hostprep: {hugepages: {2M: N}} takes them even earlier)",
        )
    if kind == "moved":
        return FleetError(f"{machine}: {detail} has changed in the meantime", hint="run it again")
    return FleetError(f"{machine}: {detail}", hint="nothing was changed")


def mib(pages: int) -> str:
    """The size of so many pages, for people."""
    return f"{pages * PAGE >> 20} MiB"


def service_words(verb: str, service: str, up: bool) -> str:
    """The last line of a plan: what becomes of the service."""
    if up:
        return f"restart {service}, wait until it answers"
    return f"{service} does not run: it reads {'the copy' if verb == 'pin' else 'the disk'} then"
