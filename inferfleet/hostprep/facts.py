"""One look at a machine: which files and programs are asked, and their answers."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from inferfleet.errors import FleetError
from inferfleet.remote import program

# Outside the file names that grep prints in front of each line.
_START, _END = "\x01", "\x02"
# The last line of an answer: no program that is asked prints it.
LAST_LINE = "\x03"
_UNREAD = re.compile(r"grep: (/.*): (?!No such file or directory$)[^:]+")
# What sh may take for more than a character of a path pattern.
_SPECIAL = re.compile(r"[^A-Za-z0-9_./:@+,=*?\[\]-]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Look:
    """What to ask. paths: absolute, of small text files, with * ? [...] as in sh. probes: name
    -> program and arguments; it is run when the program exists, its output kept. Everything in
    a look only reads. stats: paths, of anything, whose kind, mode and owner are wanted."""

    paths: tuple[str, ...] = ()
    probes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    stats: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What a program said: exit status, or None when there is no such program; output and
    errors mixed, without the last line break."""

    exit: int | None
    out: str

    @property
    def good(self) -> bool:
        return self.exit == 0


@dataclass(frozen=True)
class Stat:
    """What is at a path: kind (directory, regular file, block special file, ...), octal mode,
    owner and group by name, device number of the file system it lies on."""

    kind: str
    mode: str
    owner: str
    group: str
    device: str


@dataclass(frozen=True)
class Facts:
    """The answers. files: path -> text, of those that could be read (a text that is not empty
    ends with a line break, whether the file does or not). closed: paths that are there and
    could not be read."""

    files: Mapping[str, str] = field(default_factory=dict)
    closed: frozenset[str] = frozenset()
    probes: Mapping[str, Answer] = field(default_factory=dict)
    stats: Mapping[str, Stat] = field(default_factory=dict)

    def text(self, path: str) -> str | None:
        """The text of a file; None when it is absent or closed."""
        return self.files.get(path)

    def value(self, path: str) -> str | None:
        """The text without white space around it, as /proc and /sys hold values."""
        text = self.files.get(path)
        return None if text is None else text.strip()

    def matching(self, pattern: str) -> dict[str, str]:
        """The files that a pattern of a look has found, in the order of their paths."""
        return {path: self.files[path] for path in sorted(self.files) if matches(path, pattern)}

    def probe(self, name: str) -> Answer:
        """What a program said; an Answer with exit None when it was not there."""
        return self.probes.get(name, Answer(None, ""))


def matches(path: str, pattern: str) -> bool:
    """Whether sh would have found this path for the pattern: * and ? stop at slashes."""
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def join(looks: Iterable[Look]) -> Look:
    """Several looks as one. Probes of one name must be the same."""
    paths: dict[str, None] = {}
    probes: dict[str, tuple[str, ...]] = {}
    stats: dict[str, None] = {}
    for look in looks:
        paths |= dict.fromkeys(look.paths)
        stats |= dict.fromkeys(look.stats)
        for name, argv in look.probes.items():
            if probes.setdefault(name, argv) != argv:
                raise ValueError(f"two probes are called {name}")
    return Look(tuple(paths), probes, tuple(stats))


def look_script(look: Look) -> str:
    """The shell program that answers; nothing in it changes anything."""
    probes = [
        f"probe {shlex.quote(name)} {shlex.join(argv)}"
        for name, argv in sorted(look.probes.items())
    ]
    return "\n".join(
        [
            program("look"),
            f"files {' '.join(map(_word, look.paths))}" if look.paths else ":",
            f"stats {' '.join(map(_word, look.stats))}" if look.stats else ":",
            *probes,
            "printf '\\003\\n'",
            "",
        ]
    )


def parse_facts(text: str) -> Facts:
    """Read the output of look_script. Raises FleetError when it is cut short."""
    cut_short = FleetError("looking at the machine was cut short", hint="run it again")
    if text.rstrip("\n").rpartition("\n")[2] != LAST_LINE:
        raise cut_short
    files: dict[str, list[str]] = {}
    closed: set[str] = set()
    probes: dict[str, Answer] = {}
    stats: dict[str, Stat] = {}
    inside: list[str] | None = None
    name = ""
    for line in text.split("\n"):
        if inside is not None:
            head, mark, status = line.rpartition(_END)
            if mark and status.lstrip("-").isdigit():
                lines = [*inside, head] if head else inside
                code = None if status == "-1" else int(status)
                probes[name] = Answer(code, "\n".join(lines))
                inside = None
            else:
                inside.append(line)
        elif line.startswith(_START):
            name, inside = line[1:], []
        elif "\0" in line:
            path, _, content = line.partition("\0")
            files.setdefault(path, []).append(content)
        elif unread := _UNREAD.fullmatch(line):
            # It may be opened and not be read, as what can only be written in /proc and /sys.
            if not files.get(unread[1]):
                files.pop(unread[1], None)
                closed.add(unread[1])
        else:
            kind, *fields = line.split("\t")
            if kind == "there" and fields:
                files.setdefault(fields[0], [])
            elif kind == "closed" and fields:
                closed.add(fields[0])
            elif kind == "stat" and len(fields) == 6:
                stats[fields[0]] = Stat(*fields[1:])
    if inside is not None:
        raise cut_short
    return Facts(
        {path: "".join(f"{line}\n" for line in lines) for path, lines in files.items()},
        frozenset(closed),
        probes,
        stats,
    )


def literal(path: str) -> str:
    """The pattern that finds this very path and no other."""
    return re.sub(r"[*?\[]", r"[\g<0>]", path)


def _word(pattern: str) -> str:
    """A path pattern as a word of sh, in which nothing but * ? [...] means more than itself.

    Raises ValueError for a path that is not absolute or has control characters.
    """
    if not pattern.startswith("/") or _CONTROL.search(pattern):
        raise ValueError(f"{pattern!r} is not a path pattern")
    return _SPECIAL.sub(r"\\\g<0>", pattern)
