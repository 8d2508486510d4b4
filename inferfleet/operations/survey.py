"""What the models of one machine are now, what their sources have, and what an update costs."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from inferfleet.errors import FleetError
from inferfleet.models.need import ModelNeed
from inferfleet.models.needs import pinned
from inferfleet.models.observe import ModelState, parse_observed
from inferfleet.models.progress import Revealing
from inferfleet.models.shelf import Shelf, read_shelf
from inferfleet.models.sources.source import source_text
from inferfleet.models.sources.sources import token_of
from inferfleet.models.stale import Latest, latest, staleness
from inferfleet.models.transfer.fetch import store_name
from inferfleet.models.transfer.kept import kept_contents
from inferfleet.models.transfer.peer import Holder
from inferfleet.models.transfer.room import check_space
from inferfleet.models.transfer.store import Kept
from inferfleet.plan.models import outdated

if TYPE_CHECKING:
    from inferfleet.observe.observed import Observed
    from inferfleet.run.session import Session

WANTING = frozenset({"missing", "partial", "stale"})


@dataclass(frozen=True)
class Want:
    """A model on one machine, whatever number of services use it.

    verdict: current, missing, partial, stale, unmanaged, unknown (the source cannot be asked),
    stopped (an Ollama that does not run) or no-room. fetch: bytes that must come; 0 when nothing
    has to, None when the source does not say. left: free bytes of the disk after it. detail: what
    is in the way. asked: False where the source should have been asked and could not be, so that
    only another machine can give what is wanting. outdated: services that run with other files
    than those in place, unless others are to come.
    """

    need: ModelNeed
    services: tuple[str, ...]
    state: ModelState | None
    newest: Latest | None
    verdict: str
    detail: str = ""
    fetch: int | None = 0
    left: int | None = None
    asked: bool = True
    outdated: tuple[str, ...] = ()

    @property
    def wanting(self) -> bool:
        return self.verdict in WANTING


@dataclass(frozen=True)
class Survey:
    """One machine. shelf: None where no service has files of its own there."""

    session: Session
    observed: Observed
    shelf: Shelf | None
    wants: tuple[Want, ...]

    def holder(self, want: Want, address: str) -> Holder | None:
        """This machine as a place to copy a model from, None unless it has it as it should be."""
        state = want.state
        if want.verdict != "current" or state is None or state.stamp is None:
            return None
        if not want.need.directory:
            return None
        parent = want.need.directory.rpartition("/")[0]
        directory = f"{parent}/{state.stamp.store}"
        return Holder(self.session.host, directory, state.stamp, self.session.sudo, address)


_Answer = tuple[threading.Event, list[Latest | FleetError]]


class Sources:
    """Asks each source once, however many machines want the same."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: dict[tuple[object, ...], _Answer] = {}

    def latest(self, need: ModelNeed, secrets: Mapping[str, Revealing]) -> Latest:
        """As stale.latest; its error is raised for everybody who asks."""
        sums = tuple(sorted(need.checksums.items()))
        token = token_of(secrets) if need.source.scheme == "hf" else ""
        key = (need.key, need.sha256, sums, token)
        with self._lock:
            mine = key not in self._asked
            done, found = self._asked.setdefault(key, (threading.Event(), []))
        if mine:
            try:
                found.append(latest(need, secrets))
            except FleetError as error:
                found.append(error)
            finally:
                done.set()
        done.wait()
        if not found:
            raise FleetError(f"{source_text(need.source)} could not be asked")
        if isinstance(found[0], FleetError):
            raise found[0]
        return found[0]


def survey(
    session: Session,
    services: frozenset[str] | None,
    models: frozenset[str],
    sources: Sources,
    directory: str,
) -> Survey:
    """Look at one machine and ask the sources; nothing changes.

    services, models: only these (all: None, empty). directory: the models directory.
    """
    observed = session.observe()
    wanted = merged(session.release.models, services, models)
    shelf = None
    if any(need.directory for need, _ in wanted):
        shelf = read_shelf(session.host, directory, session.release.root, sudo=session.sudo)
    states = parse_observed(observed.model_lines)
    due = outdated(session.release, observed, states)
    keys = {need.service: need.key for need in session.release.models}
    left = shelf.free if shelf else 0
    found: list[Want] = []
    for need, used in wanted:
        want = _want(session, need, used, observed, states, sources, shelf)
        if shelf and need.directory:
            want, left = _cost(session.host.name, want, shelf, directory, left)
        if not want.wanting:
            want = replace(want, outdated=tuple(s for s in due if keys[s] == need.key))
        found.append(want)
    return Survey(session, observed, shelf, tuple(found))


def merged(
    needs: Iterable[ModelNeed], services: frozenset[str] | None, models: frozenset[str]
) -> list[tuple[ModelNeed, tuple[str, ...]]]:
    """Each chosen model once, with every alias and service; in the order of their keys, which
    all machines share, so that they never wait for each other in a circle.

    services, models (names or sources): only these (all: None, empty).
    """
    found: dict[str, tuple[ModelNeed, tuple[str, ...]]] = {}
    for need in needs:
        if services is not None and need.service not in services:
            continue
        if models and not models & {need.declared, source_text(need.source)}:
            continue
        # Each Ollama has its own store, so there the same model is another one for each service.
        key = need.key if need.source.scheme != "ollama" else f"{need.key} {need.service}"
        if key in found:
            first, used = found[key]
            aliases = {**first.aliases, **need.aliases}
            found[key] = (replace(first, aliases=aliases), (*used, need.service))
        else:
            found[key] = (need, (need.service,))
    return [found[key] for key in sorted(found)]


def _want(
    session: Session,
    need: ModelNeed,
    services: tuple[str, ...],
    observed: Observed,
    states: Mapping[str, ModelState],
    sources: Sources,
    shelf: Shelf | None,
) -> Want:
    stopped = need.source.scheme == "ollama" and not _runs(need, observed)
    if stopped:
        detail = "Ollama does not run, so its models cannot be listed"
        return Want(need, services, None, None, "stopped", detail)
    state: ModelState | None = None
    newest: Latest | None = None
    detail = ""
    try:
        state = _state(session, need, states)
        if not (pinned(need) and staleness(need, state, None) == "current"):
            newest = _kept(need, shelf) or sources.latest(need, session.secrets)
    except FleetError as error:
        detail = error.line
    verdict: str = staleness(need, state, newest)
    if detail and verdict == "current":
        verdict = "unknown"
    # Ollama asks its registry by itself, and may reach it where this machine cannot.
    asked = not detail or need.source.scheme == "ollama"
    want = Want(need, services, state, newest, verdict, detail, asked=asked)
    if want.wanting:
        want = replace(want, fetch=newest.bytes if newest else None)
    return want


def _kept(need: ModelNeed, shelf: Shelf | None) -> Latest | None:
    """A pinned revision that the machine has kept whole, for which no source is asked."""
    if shelf is None:
        return None
    records = [Kept(name, "", stamp) for name, stamp in shelf.stamps.items()]
    found = kept_contents(records, need)
    if found is None or shelf.to_fetch(found, "", ""):
        return None
    return Latest(found.revision, found.bytes, found)


def _runs(need: ModelNeed, observed: Observed) -> bool:
    found = observed.units.get(need.service)
    return found is not None and found.up


def _state(
    session: Session, need: ModelNeed, states: Mapping[str, ModelState]
) -> ModelState | None:
    if need.source.scheme == "ollama":
        from inferfleet.health.ready import reachable
        from inferfleet.models.ollama import ollama_state

        unit = session.release.units[need.service]
        assert unit.address is not None
        at = reachable(unit.address[0])
        return ollama_state(session.host, need, unit.address[1], at)
    return states.get(need.key)


def _cost(machine: str, want: Want, shelf: Shelf, directory: str, left: int) -> tuple[Want, int]:
    """The want with its price, and what is free on the disk after it."""
    need = want.need
    if not want.wanting:
        return replace(want, left=left), left
    contents = want.newest.contents if want.newest else None
    if contents is None:
        return replace(want, fetch=None), left
    below = need.directory.removeprefix(f"{directory}/")
    fetch = shelf.to_fetch(contents, below, store_name(need, contents))
    try:
        check_space(machine, directory, source_text(need.source), left, fetch, 0)
    except FleetError as error:
        detail = f"{error.what}; {error.hint}"
        return replace(want, verdict="no-room", detail=detail, fetch=fetch, left=left), left
    left -= fetch or 0
    return replace(want, fetch=fetch, left=left), left
