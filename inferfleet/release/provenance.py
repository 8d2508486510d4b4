"""Which checkouts a release came from: what history and generations say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

SHORT = 12


@dataclass(frozen=True)
class Checkout:
    """A folder under git. revision: of what is checked out, "" when that cannot be told; dirty:
    whether files differ from it, None when that was not asked or cannot be told."""

    path: str
    revision: str = ""
    dirty: bool | None = None

    def __str__(self) -> str:
        if not self.revision:
            return self.path
        changed = " with changes" if self.dirty else ""
        return f"{self.path} at {self.revision[:SHORT]}{changed}"


@dataclass(frozen=True)
class Provenance:
    """who: user@host of the run. project: the consumer's checkout, or ours without one; engine:
    the mount in it, None when that is the same checkout."""

    who: str
    project: Checkout
    engine: Checkout | None = None

    def __str__(self) -> str:
        """One line without tabs."""
        engine = f", engine {self.engine}" if self.engine else ""
        line = " ".join(f"{self.project}{engine}".split())
        return line.encode("utf-8", "replace").decode()  # a folder's name may be any bytes

    def elsewhere(self, other: Provenance) -> bool:
        """Whether the other run was of another person or in another place."""
        return (self.who, self.project.path) != (other.who, other.project.path)

    def data(self) -> dict[str, Any]:
        """For JSON; `parse` reads it back."""
        return asdict(self)


def parse(found: object) -> Provenance | None:
    """What `data` gave, None for anything else."""
    try:
        assert isinstance(found, Mapping)
        engine = found.get("engine")
        return Provenance(
            str(found["who"]),
            Checkout(**found["project"]),
            Checkout(**engine) if engine is not None else None,
        )
    except (AssertionError, KeyError, TypeError):
        return None
