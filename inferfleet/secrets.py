"""Secrets: a type that does not show itself, where values come from, and hiding them in text."""

from __future__ import annotations

import hmac
import json
import os
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from inferfleet.errors import FleetError, FleetErrors

HIDDEN = "***"
MAX_BYTES = 64 * 1024
# Long enough for a person to unlock a password store, short enough to notice one that hangs.
COMMAND_TIMEOUT_S = 60.0
# Shorter values would blank out ordinary words of a message.
MIN_REDACTED = 4


class Secret:
    """A value that only reveal() gives away; text, formats, copies and pickles do not hold it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({HIDDEN})"

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, spec: str) -> str:
        return format(HIDDEN, spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(
            self._value.encode("utf-8", "surrogatepass"),
            other._value.encode("utf-8", "surrogatepass"),
        )

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")


@dataclass(frozen=True)
class Origin:
    """Where a secret comes from: exactly one of these is not None."""

    env: str | None = None
    file: str | None = None
    command: tuple[str, ...] | None = None


def resolve(
    origins: Mapping[str, Origin],
    names: Iterable[str] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    timeout: float = COMMAND_TIMEOUT_S,
) -> dict[str, Secret]:
    """A machine's secrets by name (all of them, or those named), fetched on this machine.

    Raises FleetErrors with every one that is missing, empty or unreadable; never with a value.
    """
    found: dict[str, Secret] = {}
    errors: list[FleetError] = []
    wanted = origins if names is None else dict.fromkeys(names)
    for name in wanted:
        try:
            if name not in origins:
                raise FleetError("the machine names no such secret")
            value = _fetch(origins[name], environ, timeout)
            if not value:
                raise FleetError("is empty")
            if "\0" in value:
                raise FleetError("holds a NUL character")
            found[name] = Secret(value)
        except FleetError as error:
            errors.append(FleetError(f"secret {name}: {error.what}", error.hint))
    if errors:
        raise FleetErrors(errors)
    return found


class Vault(Mapping[str, Secret]):
    """A machine's secrets, each fetched when it is first asked for: a run needs few of them.

    lenient: one that cannot be had counts as not there; else asking for it raises FleetErrors.
    hide: is told of every one that was fetched. Threads may share it.
    """

    def __init__(
        self,
        origins: Mapping[str, Origin],
        hide: Callable[[Iterable[Secret]], None],
        lenient: bool = False,
    ) -> None:
        self._origins, self._hide, self._lenient = origins, hide, lenient
        self._found: dict[str, Secret] = {}
        self._failed: dict[str, FleetErrors] = {}
        self._lock = threading.RLock()

    def fetch(self, names: Iterable[str]) -> None:
        """Have these ready. Raises FleetErrors with every one that cannot be had, if strict."""
        errors: list[FleetError] = []
        with self._lock:
            for name in names:
                if name not in self._origins or name in self._found:
                    continue
                # Once a run: a program may take its time, or ask a person.
                if name not in self._failed:
                    try:
                        self._keep(resolve(self._origins, [name]))
                    except FleetErrors as error:
                        self._failed[name] = error
                errors += self._failed[name].errors if name in self._failed else []
        if errors and not self._lenient:
            raise FleetErrors(errors)

    def _keep(self, found: Mapping[str, Secret]) -> None:
        self._found.update(found)
        self._hide(found.values())

    def __getitem__(self, name: str) -> Secret:
        if name in self._origins:
            self.fetch([name])
        return self._found[name]

    def __contains__(self, name: object) -> bool:
        if self._lenient and isinstance(name, str):
            self.fetch([name])
            return name in self._found
        return name in self._origins

    def __iter__(self) -> Iterator[str]:
        return iter(name for name in self._origins if name in self)

    def __len__(self) -> int:
        return len(list(iter(self)))


def _fetch(ref: Origin, environ: Mapping[str, str], timeout: float) -> str:
    if ref.env is not None:
        if ref.env not in environ:
            what = f"the environment variable {ref.env} is not set"
            raise FleetError(what, f"run: read -rs {ref.env} && export {ref.env}")
        return environ[ref.env]
    if ref.file is not None:
        return _read(Path(ref.file).expanduser())
    return _run(ref.command or (), timeout)


def _read(path: Path) -> str:
    try:
        if not path.is_file():
            raise FleetError(f"there is no file {path}")
        with path.open("rb") as file:
            return _text(file.read(MAX_BYTES + 1), f"the file {path}")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise FleetError(f"the file {path} cannot be read: {reason}") from None


def _run(command: tuple[str, ...], timeout: float) -> str:
    # The words after the program, its output and its complaints may all hold secrets.
    program = command[0]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        what = f"the command {program} gave no answer within {timeout:g} s"
        raise FleetError(what, "run it by hand; it may be waiting for an answer") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise FleetError(f"the command {program} cannot be started: {reason}") from None
    if done.returncode:
        what = f"the command {program} failed with exit status {done.returncode}"
        raise FleetError(what, "run it by hand to see why")
    return _text(done.stdout, f"the output of {program}")


def _text(data: bytes, what: str) -> str:
    if len(data) > MAX_BYTES:
        raise FleetError(f"{what} is larger than {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise FleetError(f"{what} is not UTF-8 text") from None
    return text.removesuffix("\n").removesuffix("\r")


class Redactor:
    """Replaces secret values in text that is about to be shown.

    Besides a value itself it finds the value as JSON, shell and URL text write it, and each
    line of a value of several lines. Values shorter than MIN_REDACTED are left alone.
    """

    def __init__(self, secrets: Iterable[Secret]) -> None:
        spellings: set[str] = set()
        for secret in secrets:
            value = secret.reveal()
            for part in {value, *value.splitlines()}:
                spellings.update(_spellings(part))
        self._spellings = sorted(part for part in spellings if len(part) >= MIN_REDACTED)

    def __repr__(self) -> str:
        return f"Redactor({len(self._spellings)})"

    def __call__(self, text: str) -> str:
        """The text with every value replaced; values that overlap vanish as a whole."""
        spans = sorted(span for part in self._spellings for span in _spans(text, part))
        pieces: list[str] = []
        done = 0
        for start, end in spans:
            if start >= done:
                pieces += [text[done:start], HIDDEN]
            done = max(done, end)
        return "".join([*pieces, text[done:]])


def _spellings(value: str) -> set[str]:
    return {
        value,
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        shlex.quote(value),
        quote(value, safe="", errors="surrogatepass"),
    }


def _spans(text: str, part: str) -> Iterable[tuple[int, int]]:
    start = text.find(part)
    while start >= 0:
        yield start, start + len(part)
        start = text.find(part, start + 1)
