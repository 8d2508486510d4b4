"""A service's model repository: its rendered files, and what is mounted beside them; pure."""

from __future__ import annotations

from collections.abc import Iterator

from inferfleet.services.pbtxt import message
from inferfleet.services.resolve import Resolved

CONFIG = "config.pbtxt"


def repository_files(view: Resolved) -> Iterator[tuple[str, str]]:
    """(path in the release, text) of every file that a repository has beside its versions."""
    for name, model in sorted(view.service.repository.items()):
        folder = f"repository/{view.name}/{name}"
        if isinstance(model.config, str):
            text = model.config if model.config.endswith("\n") else f"{model.config}\n"
        else:
            where = f"{view.name}: repository.{name}.config"
            text = message({"name": name, **model.config}, where)
        yield f"{folder}/{CONFIG}", text
        for file, content in sorted(model.extra.items()):
            yield f"{folder}/{file}", content


def repository_mounts(view: Resolved, at: str) -> Iterator[tuple[str, str]]:
    """(path in the container, path on the machine or ./ in the release)."""
    prefix = f"repository/{view.name}/"
    for path, _ in repository_files(view):
        yield f"{at}/{path.removeprefix(prefix)}", f"./{path}"
    for name, model in sorted(view.service.repository.items()):
        for version, directory in sorted(model.versions.items()):
            yield f"{at}/{name}/{version}", directory
