"""How often a service that ends by itself is started again, as machine files say it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from inferfleet.schema.fields import Duration, Model


class Restart(Model):
    """How a service that ends by itself is started again; what is not said is the default."""

    max: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None,
        description="How often, before it stays stopped; default 3. Containers without this key "
        "are restarted by Docker without a bound, but those on a GPU that shares the CPU's memory.",
    )
    window: Duration | None = Field(
        default=None,
        description="Time in which that many restarts are too many; default: long enough for "
        "all attempts to use up their start-timeout. Docker knows none and counts from the start.",
    )
    backoff: Duration | None = Field(
        default=None,
        description="Pause before a restart; the process runtime doubles it for each restart "
        "within the window. Default 2s, 60s on a GPU that shares the CPU's memory. Docker has its "
        "own, from 0.1s up to 1m.",
    )
