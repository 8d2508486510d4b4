"""What sources say of several models, asked all at once and not waited for long."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping

from inferfleet.capacity.facts import Known, as_before, from_source
from inferfleet.models.need import ModelNeed
from inferfleet.models.progress import Revealing


class Lookups:
    """Begins to ask for these models. Raises nothing: what is not known in time is unknown.

    seconds: from now until `known` waits no longer, for all of them together.
    """

    def __init__(
        self, needs: Iterable[ModelNeed], secrets: Mapping[str, Revealing], seconds: float
    ) -> None:
        self._secrets = secrets
        self._end = time.monotonic() + seconds
        self._found: dict[str, Known] = {}
        self._threads: dict[str, threading.Thread] = {}
        for need in needs:
            thread = threading.Thread(target=self._ask, args=(need,), daemon=True)
            self._threads[need.service] = thread
            thread.start()

    def known(self, need: ModelNeed) -> Known:
        """What its source has said by the deadline, else what was read of it before."""
        self._threads[need.service].join(max(self._end - time.monotonic(), 0))
        found = self._found.get(need.service)
        return found or as_before(need, "its source has not answered yet")

    def _ask(self, need: ModelNeed) -> None:
        try:
            known = from_source(need, self._secrets)
        except Exception as error:  # a start is not refused because its model cannot be read
            known = as_before(need, f"its source cannot be read: {type(error).__name__}")
        self._found[need.service] = known
