"""Models that only a running Ollama can fetch: found through its unit, filled in after the start."""

from __future__ import annotations

from inferfleet.host import Host
from inferfleet.models.need import ModelNeed
from inferfleet.models.progress import Progress
from inferfleet.ready import reachable
from inferfleet.release import Release
