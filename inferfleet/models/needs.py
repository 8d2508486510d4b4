"""A service's model setting to a ModelNeed: where the files will be and what is loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from inferfleet.errors import USAGE, FleetError
from inferfleet.models.declared import Wanted, refuse, wanted
from inferfleet.models.need import ModelNeed, Source
from inferfleet.models.sources.source import source_text, web_file

if TYPE_CHECKING:
    from inferfleet.schema.machine import ModelSpec
    from inferfleet.schema.model import DeclaredModel

_FILE_SUFFIXES = (".gguf", ".safetensors", ".bin")
_COMMIT = re.compile("[0-9a-f]{40}")
_RESERVED = (["hf"], ["https"], ["file"], ["pypi"])


def model_need(
    service: str,
    spec: str | ModelSpec | None,
    default_scheme: str | None,
    models_dir: str,
    declared: Mapping[str, DeclaredModel] | None = None,
) -> ModelNeed | None:
    """What a service needs of its model; None when it has no model.

    declared: the model files by name. Everything lies three levels below models_dir, an absolute
    path on the machine: hf/ORG--NAME/REVISION, pypi/NAME/VERSION, https/HOST/FILE and file/NAME,
    with a short hash where two models would share a directory. Raises FleetError (code USAGE).
    """
    if spec is None:
        return None
    found = wanted(spec, default_scheme, declared)
    source, files = found.source, found.files
    _check(found)
    if not models_dir.startswith("/"):
        raise FleetError(f"models directory {models_dir!r} is not an absolute path", code=USAGE)
    models_dir = models_dir.rstrip("/")
    below, path = _place(source, files)
    directory = f"{models_dir}/{below}" if below else ""
    path = f"{directory}/{path}".rstrip("/") if directory else path
    if found.loads is not None:
        alias = f"{models_dir}/{found.loads}"
        path = f"{alias}/{_inside(source, path[len(directory) :])}".rstrip("/")
    return ModelNeed(
        service,
        model_key(source, files),
        source,
        directory,
        path,
        found.sha256,
        files,
        found.checksums,
        {f"{models_dir}/{alias}": own for alias, own in found.aliases.items()},
        models_dir,
        found.declared,
        found.served_name,
        found.shape,
    )


def pinned(need: ModelNeed) -> bool:
    """True when the user fixed what the model is, so that nothing newer can exist: by a whole
    commit of the hub, whose branches and tags move; by a wheel's version; by a checksum."""
    source = need.source
    fixed = _COMMIT.fullmatch(source.revision) if source.scheme == "hf" else source.revision
    return bool(fixed or need.sha256)


def single_file(source: Source) -> bool:
    """True when the source is one file and not a directory or a repository."""
    if source.scheme == "file":
        return not source.name.endswith("/")
    if source.scheme == "path":
        return source.name.endswith(_FILE_SUFFIXES)
    return source.scheme == "https" or bool(source.member)


def _check(found: Wanted) -> None:
    source, text = found.source, source_text(found.source)
    repository = source.scheme == "hf" and not source.member
    if found.files and not repository:
        raise refuse(source, "files", "is for a whole repository of the hub (hf:ORG/NAME)")
    if found.sha256 and (source.scheme in ("path", "ollama") or not single_file(source)):
        raise refuse(source, "sha256", "is for a source that is one fetched file")
    if found.checksums and not repository and (source.scheme != "file" or single_file(source)):
        raise refuse(source, "checksums", "is for a repository of the hub or a directory (file:)")
    for alias in found.aliases:
        if source.scheme == "ollama":
            raise refuse(source, "alias", "is not for Ollama, which keeps its own store")
        parts = alias.split("/")
        hidden = any(not part or part.startswith(".") for part in parts)
        if hidden or parts[:1] in _RESERVED:
            what = f"model {text}: alias {alias!r} cannot be used"
            hint = "name a directory such as chat or team/language/chat"
            raise FleetError(what, hint, code=USAGE)


@lru_cache(maxsize=1024)
def _place(source: Source, files: tuple[str, ...]) -> tuple[str, str]:
    """(directory below the models directory, what is loaded below that directory)."""
    if source.scheme == "hf":
        revision = source.revision or "main"
        chosen = source.member or files
        tail = f"+{_hash(source.member, *files)}" if chosen else ""
        return f"hf/{source.name.replace('/', '--')}/{revision}{tail}", source.member
    if source.scheme == "pypi":
        name = re.sub(r"[-_.]+", "-", source.name).lower()
        member = PurePosixPath(source.member).name
        below = f"pypi/{name}/{source.revision}+{_hash(source.member)}"
        return below, member
    if source.scheme == "https":
        host = (urlsplit(source.name).netloc or "").lower().replace(":", "-").strip("[]")
        host = re.sub(r"[^a-z0-9.-]", "-", host)
        name = web_file(source.name)
        return f"https/{host}/{name}+{_hash(source.name)}", name
    if source.scheme == "file":
        name = PurePosixPath(source.name).name
        loaded = name if single_file(source) else ""
        return f"file/{_slug(name)}/{_hash(source.name)}", loaded
    return "", source.name


def _inside(source: Source, below: str) -> str:
    """What is loaded, as seen from the alias directory."""
    if source.scheme == "path":
        return PurePosixPath(source.name).name if single_file(source) else ""
    return below.lstrip("/")


@lru_cache(maxsize=1024)
def model_key(source: Source, files: tuple[str, ...]) -> str:
    """The file-system safe identity of a source and the files chosen of it."""
    text = source_text(source)
    return f"{_slug(text)[:80]}-{_hash(text, *files)}"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+]+", "-", text).strip("-.") or "model"


def _hash(*texts: str) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:10]
