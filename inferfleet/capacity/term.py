"""The words of capacity: terms with their arithmetic, a machine's memory, a service's claim."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

How = Literal["exact", "estimated", "declared", "measured"]
Unit = Literal["bytes", "bytes/token", "tokens", "tokens/s", "requests"]


@dataclass(frozen=True)
class Term:
    """One line of the arithmetic: what, how much, and how it was reached."""

    name: str
    amount: float
    unit: Unit
    formula: str = ""
    how: How = "exact"


@dataclass(frozen=True)
class Vram:
    """One GPU's memory in bytes; free: now, None when nobody asked."""

    total: int
    free: int | None = None


@dataclass(frozen=True)
class Memory:
    """What a machine offers, in bytes; bandwidth in bytes per second.

    `device` is the total of one GPU as the driver shows it, 0 without a GPU, of several the
    smallest; `gpus` is how many of them the service has. On a machine with unified memory device
    equals host, and `reserve` is the host's own share. `free` is what is free now, of several GPUs
    where least is, None when nobody asked the machine. cards: each GPU, () where they are alike;
    ordered: they are as the service names them.
    """

    host: int
    device: int = 0
    gpus: int = 0
    unified: bool = False
    reserve: int = 0
    bandwidth: float | None = None
    free: int | None = None
    cards: tuple[Vram, ...] = ()
    ordered: bool = True

    @property
    def places(self) -> tuple[Vram, ...]:
        """Each GPU by itself; one where they share the machine's memory."""
        if not self.device:
            return ()
        alike = (Vram(self.device, self.free),)
        return alike if self.unified else self.cards or alike * max(self.gpus, 1)


@dataclass(frozen=True)
class Laid:
    """How a claim lies on several GPUs, in bytes by GPU.

    amounts: what it takes of each, as far as that can be told. least: of it what is certain.
    where: `each`: those very parts; `all`: the engine divides it by what is free at its start, so
    that the sum of `least` has to be there on all of them together; `one`: the sum has to be there
    on one of them, and nobody here can know on which.
    """

    amounts: tuple[int, ...]
    least: tuple[int, ...]
    where: Literal["each", "all", "one"] = "all"


@dataclass(frozen=True)
class Claim:
    """What one service takes of one pool of memory, per GPU of it or of the host.

    amount is in bytes; None when it cannot be known, which never refuses anything. `limits` are
    reasons why the service cannot even start alone, as sentences; none is drawn from estimates.

    least: of the amount, what it cannot start without and what does not depend on estimates; None:
    all of it. fills: it takes what is free above that. ask: what must be free before it starts or
    the engine refuses, whatever it takes of it then. unknown: why the amount is a lower bound.
    laid: how it lies on its GPUs where not alike on each; amount and least are the largest parts.
    """

    service: str
    pool: Literal["device", "host"]
    amount: int | None
    host: int = 0
    terms: tuple[Term, ...] = ()
    limits: tuple[str, ...] = field(default=())
    least: int | None = None
    fills: bool = False
    ask: int = 0
    unknown: str = ""
    laid: Laid | None = None
