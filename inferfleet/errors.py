"""The one exception type of inferbase and its three-part message: where, what, hint."""

from __future__ import annotations

from dataclasses import dataclass

OK = 0
FAILED = 1
CHANGES = 2
NO_FIT = 2
NOT_HEALTHY = 3
LOCKED = 4
USAGE = 64


@dataclass(frozen=True, order=True)
class Where:
    """A place in a file; line and column count from 1, 0 means unknown."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return self.file
        return f"{self.file}:{self.line}:{self.column}"


class FleetError(Exception):
    """Something the user can understand and act on.

    what: one sentence, no trailing full stop; never holds a secret.
    hint: what to do about it, or "".
    where: the place in a file, if there is one.
    code: the process exit code this error stands for.
    """

    def __init__(
        self, what: str, hint: str = "", where: Where | None = None, code: int = FAILED
    ) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.where = where
        self.code = code

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\nhint: {self.hint}" if self.hint else head


class FleetErrors(FleetError):
    """Several errors found in one pass, printed in file order."""

    def __init__(self, errors: list[FleetError]) -> None:
        ordered = sorted(errors, key=lambda e: (e.where or Where(""), e.what))
        super().__init__(f"{len(ordered)} errors", code=max(e.code for e in ordered))
        self.errors = ordered

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)
