"""A service's model setting to a ModelNeed: where the files will be and what is loaded."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from inferfleet.errors import USAGE, FleetError
from inferfleet.models.need import ModelNeed, Source
from inferfleet.models.source import parse_source, source_text, web_file

if TYPE_CHECKING:
    from inferfleet.schema.machine import ModelSpec

_FILE_SUFFIXES = (".gguf", ".safetensors", ".bin")
_RESERVED = (["hf"], ["https"], ["file"], ["pypi"])


def model_need(
    service: str, spec: str | ModelSpec | None, default_scheme: str | None, models_dir: str
) -> ModelNeed | None:
    """What a service needs of its model; None when it has no model.

    Everything lies three levels below models_dir, an absolute path on the machine:
    hf/ORG--NAME/REVISION, pypi/NAME/VERSION, https/HOST/FILE and file/NAME, with a short
    hash where two models would share a directory. Raises FleetError (code USAGE).
    """
    if spec is None:
        return None
    if isinstance(spec, str):
        source = parse_source(spec, default_scheme)
        sha256, alias, extra = None, None, {}
        files: tuple[str, ...] = ()
    else:
        source = parse_source(spec.source, default_scheme)
        sha256, alias, extra = spec.sha256, spec.alias, dict(spec.extra)
        files = tuple(spec.files or ())
    _check(source, sha256, files, alias, extra)
    if not models_dir.startswith("/"):
        raise FleetError(f"models directory {models_dir!r} is not an absolute path", code=USAGE)
    models_dir = models_dir.rstrip("/")
    below, path = _place(source, files)
    directory = f"{models_dir}/{below}" if below else ""
    path = f"{directory}/{path}".rstrip("/") if directory else path
    if alias is not None:
        alias = f"{models_dir}/{alias}"
        path = f"{alias}/{_inside(source, path[len(directory) :])}".rstrip("/")
    key = _key(source, files)
    return ModelNeed(service, key, source, directory, path, sha256, files, alias, extra, models_dir)


def pinned(need: ModelNeed) -> bool:
    """True when the user fixed what the model is, so that nothing newer can exist."""
    return bool(need.source.revision or need.sha256)


def single_file(source: Source) -> bool:
    """True when the source is one file and not a directory or a repository."""
    if source.scheme == "file":
        return not source.name.endswith("/")
    if source.scheme == "path":
        return source.name.endswith(_FILE_SUFFIXES)
    return source.scheme == "https" or bool(source.member)


def _check(
    source: Source,
    sha256: str | None,
    files: tuple[str, ...],
    alias: str | None,
    extra: dict[str, str],
) -> None:
    text = source_text(source)
    if files and (source.scheme != "hf" or source.member):
        raise _refuse(text, "files", "is for a whole repository of the hub (hf:ORG/NAME)")
    if sha256 and (source.scheme in ("path", "ollama") or not single_file(source)):
        raise _refuse(text, "sha256", "is for a source that is one fetched file")
    if alias and source.scheme == "ollama":
        raise _refuse(text, "alias", "is not for Ollama, which keeps its own store")
    if extra and not alias:
        raise _refuse(text, "extra", "needs an alias, the directory these files stand in")
    parts = alias.split("/") if alias else []
    hidden = any(not part or part.startswith(".") for part in parts)
    if hidden or parts[:1] in _RESERVED:
        what = f"model {text}: alias {alias!r} cannot be used"
        raise FleetError(what, "name a directory such as chat or team/language/chat", code=USAGE)


def _refuse(text: str, key: str, why: str) -> FleetError:
    return FleetError(f"model {text}: {key} {why}", f"remove {key}", code=USAGE)


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


def _key(source: Source, files: tuple[str, ...]) -> str:
    text = source_text(source)
    return f"{_slug(text)[:80]}-{_hash(text, *files)}"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+]+", "-", text).strip("-.") or "model"


def _hash(*texts: str) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:10]
