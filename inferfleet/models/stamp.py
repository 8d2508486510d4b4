"""The stamp: the small JSON file that says which model lies complete on a machine."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class StampFile:
    """A file of a model as it was when it was put in place; size in bytes."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Stamp:
    """Written last, so that a model with a stamp is whole.

    source: as source_text writes it. revision: what the source resolved to, "" when it has
    no revisions. store: name of the directory that holds the files. when: UTC, ISO 8601.
    """

    source: str
    revision: str
    store: str
    files: tuple[StampFile, ...]
    when: str

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)

    def to_json(self) -> str:
        """One line of JSON, so that a shell reads it in one go."""
        files = [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in self.files]
        data = {
            "source": self.source,
            "revision": self.revision,
            "store": self.store,
            "files": files,
            "when": self.when,
        }
        return json.dumps(data, separators=(",", ":"))


def parse_stamp(text: str) -> Stamp | None:
    """The stamp in a line of JSON; None when it is not one, so that the model is checked anew."""
    try:
        data = json.loads(text)
        files = tuple(
            StampFile(str(f["path"]), int(f["size"]), str(f["sha256"])) for f in data["files"]
        )
        fields = [str(data[name]) for name in ("source", "revision", "store")]
        return Stamp(fields[0], fields[1], fields[2], files, str(data["when"]))
    except (ValueError, KeyError, TypeError):
        return None
