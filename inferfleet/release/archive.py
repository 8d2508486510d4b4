"""A release as one tar archive, the same bytes for the same release."""

from __future__ import annotations

import io
import tarfile

from inferfleet.models.watched import watch_lines
from inferfleet.release.manifest import dump_manifest
from inferfleet.release.release import File, Release


def own_files(release: Release) -> dict[str, File]:
    """The files inferbase adds for itself: file list, checksums, units, what of their models
    is noted, manifest, and a mark that goes when the generation has been seen ready."""
    paths = sorted(release.files)
    sums = "".join(f"{release.files[path].sha256}  {path}\n" for path in paths)
    units = "".join(
        f"{unit.service} {unit.runtime} {unit.name} {unit.digest} "
        f"{'gpu' if unit.gpu else 'cpu'} {'boot' if unit.autostart else 'manual'}\n"
        for unit in release.units.values()
    )
    return {
        ".files": File("".join(f"{path}\n" for path in paths).encode()),
        ".sha256": File(sums.encode(), mode=0o600),
        ".units": File(units.encode()),
        ".models": File(watch_lines(release.models).encode()),
        ".unconfirmed": File(b""),
        ".manifest": File(dump_manifest(release).encode(), mode=0o600),
    }


def pack(release: Release) -> bytes:
    """The archive: directories, the root of them too, 0755, files with their mode, times and
    owners zero."""
    files = {**release.files, **own_files(release)}
    directories = {
        "/".join(path.split("/")[:depth])
        for path in files
        for depth in range(1, path.count("/") + 1)
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in [".", *sorted(directories)]:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for path, file in sorted(files.items()):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(file.content), file.mode
            archive.addfile(entry, io.BytesIO(file.content))
    return buffer.getvalue()
