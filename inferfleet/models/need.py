"""What a service needs of a model, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Source:
    """A parsed model source; parse_source makes it.

    scheme: hf, https, file, pypi, ollama or path (already on the machine, never fetched).
    name: repository, URL, path, distribution or Ollama name, by scheme; the name of a file:
    source ends in "/" when it is a directory.
    revision: hub revision or distribution version; "" when the user pinned none.
    member: the file inside a repository or wheel; "" for all files of a repository.
    """

    scheme: str
    name: str
    revision: str = ""
    member: str = ""


@dataclass(frozen=True)
class ModelNeed:
    """A model that a service needs on its machine; model_need makes it.

    key: stable, file-system safe identity of (source, revision, files); the stamp's name.
    directory: absolute path on the machine under which exactly this model's files are found
    (a link to the directory that holds them, switched when they change); "" when nothing is
    fetched into the file system (path, ollama).
    path: what the engine is told to load, an absolute path on the machine or a name; inside
    the alias when there is one.
    sha256: of the single file, or None; checksums: SHA-256 by path, of files of a repository or
    directory. files: glob patterns of an hf: repository, or ().
    aliases: absolute directory of links to the files -> its own files, text by name.
    models_dir: the machine's models directory; the stamp is models_dir/.inferbase/KEY.json.
    declared: name of its model file, or ""; served_name: what that file calls it for clients;
    shape: its config and weights as that file has them, for arithmetic alone.
    """

    service: str
    key: str
    source: Source
    directory: str
    path: str
    sha256: str | None = None
    files: tuple[str, ...] = ()
    checksums: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    models_dir: str = ""
    declared: str = ""
    served_name: str | None = None
    shape: Mapping[str, Any] | None = None

    @property
    def title(self) -> str:
        """What messages call it: the name of its model file, else the service."""
        return self.declared or self.service
