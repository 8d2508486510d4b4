"""A release before any secret is known: what one machine file comes to; holds no secrets.

A draft can be kept on disk and used again; `fill` makes the release of it in this process only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from inferfleet.errors import USAGE, FleetError
from inferfleet.release.release import File, Release

if TYPE_CHECKING:
    from inferfleet.secrets import Secret

# Sent to a service that asks for no key: clients do not accept an empty one.
NO_KEY = "none"


@dataclass(frozen=True)
class SecretLine:
    """One variable of a file with secrets.

    names: secrets of the machine; None stands for NO_KEY. separator: between several of them.
    hashed: the SHA-256 of each value, in hexadecimal, stands for it.
    """

    variable: str
    names: tuple[str | None, ...]
    separator: str = ""
    hashed: bool = False


@dataclass(frozen=True)
class SecretFile:
    """A file that holds nothing but secrets.

    spelling: how its one reader wants them: env-file (docker compose), shell (assignments that
    sh reads), raw (the one value alone).
    """

    service: str
    spelling: str
    lines: tuple[SecretLine, ...]


@dataclass(frozen=True)
class Draft:
    """release: complete but for the files with secrets and for the digests of their units."""

    release: Release
    secret_files: Mapping[str, SecretFile]

    @property
    def used(self) -> frozenset[str]:
        """The secrets that its files hold or its services are asked with; others are for models."""
        lines = [line for file in self.secret_files.values() for line in file.lines]
        keys = [unit.probe.key for unit in self.release.units.values() if unit.probe]
        return frozenset(name for line in lines for name in line.names if name) | {
            key for key in keys if key
        }


def fill(draft: Draft, secrets: Mapping[str, Secret]) -> Release:
    """The release with its secrets in place.

    Raises FleetError (code USAGE) for a secret that is not there or cannot stand where it must.
    """
    if not draft.secret_files:
        return draft.release
    release = draft.release
    files = dict(release.files)
    units = dict(release.units)
    for path, wanted in draft.secret_files.items():
        text = _text(release.machine, wanted, secrets)
        files[path] = File(encoded(release.machine, path, text), 0o600, secret=True)
        unit = units[wanted.service]
        units[wanted.service] = replace(unit, digest=unit_digest(unit.digest, [files[path]]))
    return replace(release, files=files, units=units)


def unit_digest(text: str, files: Iterable[File]) -> str:
    """What stands for the text that starts a unit and the files it reads."""
    total = hashlib.sha256(text.encode())
    for file in files:
        total.update(f"\0{file.mode:o}{file.sha256}".encode())
    return total.hexdigest()[:32]


def encoded(machine: str, path: str, text: str) -> bytes:
    """The content of a file. Raises FleetError (code USAGE) for what is not text."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise FleetError(
            f"{machine}: {path} would hold half of a surrogate pair, which is not text",
            "look for a broken escape such as \\ud800 in the machine file",
            code=USAGE,
        ) from None


def _text(machine: str, wanted: SecretFile, secrets: Mapping[str, Secret]) -> str:
    from inferfleet.escape import env_file, sh_env

    spell: Mapping[str, Callable[[str, str], str]] = {
        "env-file": env_file,
        "shell": sh_env,
        "raw": lambda _, value: value,
    }
    values = ((line.variable, _value(machine, wanted, line, secrets)) for line in wanted.lines)
    return "".join(spell[wanted.spelling](*pair) for pair in values)


def _value(
    machine: str, wanted: SecretFile, line: SecretLine, secrets: Mapping[str, Secret]
) -> str:
    values = []
    for name in line.names:
        if name is not None and name not in secrets:
            raise FleetError(
                f"{machine}: {wanted.service} needs the secret {name}, and the machine has none",
                f"add it under secrets, such as {name}: {{env: {name}}}",
                code=USAGE,
            )
        value = NO_KEY if name is None else secrets[name].reveal()
        values.append(hashlib.sha256(value.encode()).hexdigest() if line.hashed else value)
        # A run that only looks has no value for what it could not get.
        if line.hashed and value and (first := values.index(values[-1])) < len(values) - 1:
            raise FleetError(
                f"{machine}: {wanted.service}: the keys {line.names[first]} and {name} have the "
                "same value",
                "whose request it is shows in the key alone: give each a value of its own",
                code=USAGE,
            )
    if line.separator and any(line.separator in value for value in values):
        raise FleetError(
            f"{wanted.service}: an API key it should send holds {line.separator!r}, which "
            "separates keys there",
            "choose another key",
            code=USAGE,
        )
    return line.separator.join(values)
