"""update-models: what is stale on a machine, and bringing it up to date."""

from __future__ import annotations

from typing import Any

from inferfleet.errors import FleetError
from inferfleet.events import Listener
from inferfleet.models.need import ModelNeed
from inferfleet.models.observe import ModelState, parse_observed
from inferfleet.models.source import source_text
from inferfleet.models.stale import Latest, latest, staleness
from inferfleet.observed import Observed
from inferfleet.session import FetchProgress, Session


def model_rows(
    session: Session, services: frozenset[str] | None, listener: Listener
) -> list[dict[str, Any]]:
    """A row per model of the chosen services; a source that cannot be asked is said, not raised."""
    observed = session.observe()
    return [_row(session, need, observed) for need in _needs(session, services)]


def update(
    session: Session, services: frozenset[str] | None, listener: Listener
) -> list[dict[str, Any]]:
    """Fetch what is missing, partial or stale; services are not restarted.

    One model that fails does not stop the others; its row has the verdict failed.
    """
    observed = session.observe()
    rows = []
    for need in _needs(session, services):
        row = _row(session, need, observed)
        if row["verdict"] in {"missing", "partial", "stale"}:
            row |= _fetch(session, need, observed, listener)
        rows.append(row)
    return rows


def _fetch(
    session: Session, need: ModelNeed, observed: Observed, listener: Listener
) -> dict[str, Any]:
    from inferfleet.models.fetch import ensure

    progress = FetchProgress(session.host.name, listener, need)
    try:
        if need.source.scheme == "ollama":
            changed = session.ensure_served(need, progress, update=True)
        else:
            changed = ensure(
                session.host, need, progress=progress, secrets=session.secrets, update=True,
                sudo=session.sudo,
            )  # fmt: skip
    except FleetError as error:
        return {"verdict": "failed", "detail": str(error)}
    if not changed:
        return {"verdict": "current", "detail": ""}
    running = need.service in observed.units and observed.units[need.service].up
    restart = running and need.source.scheme != "ollama"
    return {"verdict": "updated", "detail": "restart the service to use it" if restart else ""}


def _needs(session: Session, services: frozenset[str] | None) -> list[ModelNeed]:
    return [n for n in session.release.models if services is None or n.service in services]


def _row(session: Session, need: ModelNeed, observed: Observed) -> dict[str, Any]:
    detail = ""
    newest: Latest | None = None
    state: ModelState | None = None
    try:
        state = _state(session, need, observed)
        newest = latest(need, session.secrets)
    except FleetError as error:
        detail = error.what
    verdict: str = staleness(need, state, newest)
    if detail and verdict == "current":
        verdict = "unknown"
    return {
        "machine": session.host.name,
        "service": need.service,
        "model": source_text(need.source),
        "verdict": verdict,
        "installed": state.stamp.revision if state and state.stamp else None,
        "latest": newest.revision if newest and newest.revision else None,
        "detail": detail,
    }


def _state(session: Session, need: ModelNeed, observed: Observed) -> ModelState | None:
    if need.source.scheme == "ollama":
        from inferfleet.models.ollama import ollama_state

        unit = session.release.units[need.service]
        found = observed.units.get(need.service)
        if unit.address is None or found is None or not found.up:
            raise FleetError("Ollama does not run, so its models cannot be listed")
        return ollama_state(session.host, need, unit.address[1])
    return parse_observed(observed.model_lines).get(need.key)
