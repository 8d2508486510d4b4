"""The one exception type of inferbase and its three-part message: where, what, hint."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Any

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
    machine: whose error it is, "" for that of the whole run; text names it, `what` need not.
    """

    machine = ""

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
        if self.machine and not re.search(rf"(?<![\w.-]){re.escape(self.machine)}(?![\w-])", head):
            head = f"{self.machine}: {head}"
        return f"{head}\nhint: {self.hint}" if self.hint else head

    @property
    def line(self) -> str:
        """What and hint on one line."""
        return "; ".join(filter(None, [self.what, self.hint]))

    @property
    def data(self) -> dict[str, Any]:
        """For programs."""
        where = str(self.where) if self.where else None
        return {"what": self.what, "hint": self.hint, "where": where, "code": self.code}

    def of(self, machine: str) -> FleetError:
        """The same error as that of a machine."""
        same = copy.copy(self)
        same.machine = machine
        return same

    def __copy__(self) -> FleetError:
        same = type(self).__new__(type(self), *self.args)
        same.__dict__.update(self.__dict__)
        return same


class FleetErrors(FleetError):
    """Several errors found in one pass, printed in file order."""

    def __init__(self, errors: list[FleetError]) -> None:
        ordered = sorted(errors, key=lambda e: (e.where or Where(""), e.what))
        first = ordered[0]
        one = len(ordered) == 1
        place = f"{first.where}: " if first.where else ""
        what = f"{place}{first.what}" if one else f"{len(ordered)} errors"
        super().__init__(what, first.hint if one else "", code=max(e.code for e in ordered))
        self.errors = ordered

    @property
    def data(self) -> dict[str, Any]:
        """For programs."""
        return {**super().data, "errors": [error.data for error in self.errors]}

    def of(self, machine: str) -> FleetError:
        """The same errors as those of a machine."""
        return FleetErrors([error.of(machine) for error in self.errors])

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)
