"""models.list: every model that lies on a machine, with what it takes and who uses it; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from inferfleet.models.need import ModelNeed
from inferfleet.models.observe import ModelState
from inferfleet.models.shelf import Shelf
from inferfleet.models.sources.source import source_text

COLUMNS = ["machine", "model", "revision", "state", "size", "used_by", "pages", "place"]


def list_rows(
    machine: str,
    needs: Iterable[ModelNeed],
    shelf: Shelf,
    directory: str,
    ollama: Mapping[str, ModelState | str],
) -> list[dict[str, Any]]:
    """A row for each revision and each model that a service names.

    state: current, old (kept until models.prune), unused (no service names it), partial,
    missing, there (a path), ollama's own (served), or why it cannot be told. bytes: of the
    files; what old revisions share with the current one counts for each. ollama: by service,
    what a running Ollama has, or why it cannot be asked.
    """
    wanted = list(needs)
    found = [_revision(machine, store, wanted, shelf, directory) for store in sorted(shelf.stores)]
    placed = {f"{directory}/{shelf.link_of(store)}" for store in shelf.stores}
    for need in wanted:
        if need.source.scheme == "ollama":
            found.append(_served(machine, need, ollama.get(need.service)))
        elif not need.directory:
            kib = shelf.paths.get(need.source.name)
            state = "missing" if kib is None else "there"
            found.append(_row(machine, source_text(need.source), state, (kib or 0) << 10,
                              [need.service], place=need.source.name))  # fmt: skip
        elif need.directory not in placed:
            found.append(_row(machine, _title(need), "missing", 0, [need.service],
                              place=need.directory))  # fmt: skip
    return _merged(found)


def _revision(
    machine: str, store: str, needs: list[ModelNeed], shelf: Shelf, directory: str
) -> dict[str, Any]:
    link, record, current = shelf.link_of(store), shelf.record(store), shelf.current(store)
    users = [need for need in needs if need.directory == f"{directory}/{link}"]
    state = "old" if record else "partial"
    if current:
        state = "current" if users else "unused"
    elif not users and not record:
        state = "partial"
    names = [need.service for need in users] if current else []
    generations = {
        f"generation {use.generation}" for use in shelf.users(link) if current and not users
    }
    title = _title(users[0]) if users else record[1].source if record else link
    return _row(
        machine,
        title,
        state,
        sum(file.size for file in shelf.stores[store]),
        [*names, *sorted(generations)],
        revision=record[1].revision if record else None,
        place=f"{directory}/{store}",
        pages=store.rpartition("/")[2] in shelf.pages,
    )


def _served(machine: str, need: ModelNeed, state: ModelState | str | None) -> dict[str, Any]:
    title = _title(need)
    if state is None or isinstance(state, str):
        return _row(machine, title, state or "unknown", 0, [need.service])
    if not state.present:
        return _row(machine, title, "missing", 0, [need.service])
    revision = state.stamp.revision if state.stamp else None
    return _row(machine, title, "current", state.bytes, [need.service], revision=revision)


def _title(need: ModelNeed) -> str:
    return need.declared or source_text(need.source)


def _row(
    machine: str,
    model: str,
    state: str,
    count: int,
    users: list[str],
    revision: str | None = None,
    place: str | None = None,
    pages: bool = False,
) -> dict[str, Any]:
    return {
        "machine": machine, "model": model, "revision": revision, "state": state,
        "bytes": count, "used_by": users, "pages": pages, "place": place,
    }  # fmt: skip


def _merged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Paths and missing models that several services name, once each."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        key = (row["model"], row["state"], str(row["place"]))
        if key in found and row["place"] is not None:
            found[key]["used_by"] += row["used_by"]
        else:
            found[(*key, str(len(found))) if row["place"] is None else key] = row
    return list(found.values())
