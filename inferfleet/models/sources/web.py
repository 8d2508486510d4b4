"""Files behind a URL: what a server says of them, and reading them from any offset."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from inferfleet.errors import FleetError
from inferfleet.models.need import ModelNeed
from inferfleet.models.sources.origin import Contents, Link, Opened, WantedFile
from inferfleet.models.sources.source import loopback, web_file

if TYPE_CHECKING:
    import httpx

CHUNK = 4 << 20
_MAX_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)
# A server that answers none of these to HEAD does not offer HEAD; GET then tells the size.
_NO_HEAD = (403, 405, 501)


class AccessError(FleetError):
    """The hub lets nobody have a model, or nobody without another token."""


class UnreachableError(OSError):
    """No usable answer from a server; the text says which server and why. status, headers: of
    the answer, 0 and none where there was none."""

    def __init__(self, why: str, status: int = 0, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(why)
        self.status = status
        self.headers = headers or {}


@dataclass(frozen=True)
class Web:
    """The origin of a file behind a URL.

    token goes to the URL's own scheme, host and port only, never along a redirect.
    subject: what an error calls the model; hub: whether it is the model hub that answers.
    accept: the type of answer that is asked for, where the server has several.
    """

    url: str
    subject: str
    token: str = ""
    hub: bool = False
    accept: str = ""

    def link(self) -> Link | None:
        """The URL that needs no token once the server has redirected to its storage."""
        if not self.token:
            return Link(self.url)
        with _client() as client:
            url = self.url
            for _ in range(_MAX_REDIRECTS):
                response = _send(client, "HEAD", url, self._headers(url))
                target = _redirect(response, url)
                if target is None:
                    _check(self, response)
                    return Link(url, f"Authorization: Bearer {self.token}")
                if _origin(target) != _origin(self.url):
                    return Link(target)
                url = target
        raise _too_many(self)

    @contextmanager
    def open(self, offset: int) -> Iterator[Opened]:
        """Read here; raises UnreachableError when the server is gone or the transfer is cut."""
        import httpx

        extra = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            with _client() as client:
                response = self._follow(client, extra)
                try:
                    start = offset if response.status_code == 206 else 0
                    yield Opened(start, _chunks(response))
                finally:
                    response.close()
        except httpx.HTTPError as error:
            raise UnreachableError(_reason(self.url, error)) from None

    def head(self) -> httpx.Response:
        """The answer after all redirects, without its body."""
        with _client() as client:
            response = self._follow(client, {}, "HEAD")
            if response.status_code in _NO_HEAD:
                response = self._follow(client, {})
                response.close()
            _check(self, response)
            return response

    def part(self, offset: int, length: int) -> bytes:
        """Some bytes of the file; fewer only at its end.

        Raises UnreachableError, and for a server that has no ranges FleetError.
        """
        import httpx

        found = bytearray()
        try:
            with _client() as client:
                wanted = {"Range": f"bytes={offset}-{offset + length - 1}"}
                wanted |= {"Accept": self.accept} if self.accept else {}
                response = self._follow(client, wanted)
                try:
                    if response.status_code == 416:
                        return b""
                    if response.status_code != 206 and offset:
                        raise FleetError(f"model {self.subject}: its server sends no file in parts")
                    for piece in response.iter_raw(1 << 16):
                        found += piece
                        if len(found) >= length:
                            break
                finally:
                    response.close()
        except httpx.HTTPError as error:
            raise UnreachableError(_reason(self.url, error)) from None
        return bytes(found[:length])

    def _headers(self, url: str) -> dict[str, str]:
        if self.token and _origin(url) == _origin(self.url):
            return {"Authorization": f"Bearer {self.token}"}
        return {}

    def _follow(
        self, client: httpx.Client, extra: dict[str, str], method: str = "GET"
    ) -> httpx.Response:
        url = self.url
        for _ in range(_MAX_REDIRECTS):
            response = _send(client, method, url, self._headers(url) | extra)
            target = _redirect(response, url)
            if target is None:
                if method == "GET":
                    _check(self, response)
                return response
            response.close()
            url = target
        raise _too_many(self)


def https_contents(need: ModelNeed) -> Contents:
    """The one file of an https: source; its ETag or date is its revision.

    A server that does not answer here may still answer the machine: then nothing is known.
    """
    url = need.source.name
    origin = Web(url, url)
    try:
        headers = origin.head().headers
    except UnreachableError:
        return Contents("", (WantedFile(web_file(url), origin, sha256=need.sha256),))
    length = headers.get("Content-Length", "")
    size = int(length) if length.isdigit() and "Content-Encoding" not in headers else None
    revision = headers.get("ETag") or headers.get("Last-Modified") or ""
    return Contents(revision, (WantedFile(web_file(url), origin, size, need.sha256),))


def _client() -> httpx.Client:
    import httpx

    timeout = httpx.Timeout(60, connect=20)
    return httpx.Client(timeout=timeout, headers={"Accept-Encoding": "identity"})


def _send(client: httpx.Client, method: str, url: str, headers: dict[str, str]) -> httpx.Response:
    import httpx

    try:
        request = client.build_request(method, url, headers=headers)
        return client.send(request, stream=method == "GET")
    except httpx.HTTPError as error:
        raise UnreachableError(_reason(url, error)) from None


def _chunks(response: httpx.Response) -> Iterator[bytes]:
    """The body in pieces of CHUNK or one second; what came before a cut is not lost."""
    import httpx

    held, since = bytearray(), time.monotonic()
    try:
        for piece in response.iter_raw():
            held += piece
            if len(held) >= CHUNK or time.monotonic() - since > 1:
                yield bytes(held)
                held.clear()
                since = time.monotonic()
    except httpx.HTTPError as error:
        if held:
            yield bytes(held)
        raise UnreachableError(_reason(str(response.url), error)) from None
    if held:
        yield bytes(held)


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    default = {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or default


def _redirect(response: httpx.Response, url: str) -> str | None:
    location: str | None = response.headers.get("Location")
    if response.status_code not in _REDIRECTS or not location:
        return None
    target: str = urljoin(url, location)
    parts = urlsplit(target)
    safe = parts.scheme == "https" or (
        parts.scheme == "http" and loopback(parts.hostname or "") and url.startswith("http:")
    )
    if not safe or any(char in target for char in '\r\n"\\ '):
        raise FleetError(
            f"{urlsplit(url).hostname} redirects to an address that is not https",
            "use another URL of the file",
        )
    return target


def _reason(url: str, error: Exception) -> str:
    text = str(error) or type(error).__name__
    return f"{urlsplit(url).netloc.rpartition('@')[2]}: {text}"


def _too_many(origin: Web) -> FleetError:
    return FleetError(f"model {origin.subject}: the server redirects in circles")


def _check(origin: Web, response: httpx.Response) -> None:
    status = response.status_code
    if status < 300 or status == 416:
        return
    response.close()
    if status >= 500 or status == 429:
        host = urlsplit(origin.url).hostname
        raise UnreachableError(f"{host} answers {status}", status, response.headers)
    raise status_error(origin, status, response.headers.get("X-Error-Code", ""))


def status_error(origin: Web, status: int, code: str = "") -> FleetError:
    """The error for an HTTP status that trying again will not change."""
    subject = origin.subject
    if status in (401, 403) and origin.hub:
        return access_error(subject, bool(origin.token), gated=code == "GatedRepo")
    if status in (401, 403):
        return FleetError(
            f"model {subject}: the server refuses access (HTTP {status})",
            "inferbase sends no password to https: sources; use a file: or hf: source",
        )
    if status in (404, 410):
        return FleetError(f"model {subject} does not exist (HTTP {status})", "check the spelling")
    return FleetError(f"model {subject}: the server answers HTTP {status}")


def access_error(subject: str, token: bool, *, gated: bool) -> AccessError:
    """The hub's refusal, told apart by what the user can do about it."""
    name = subject.removeprefix("hf:").partition("@")[0]
    repository = "/".join(name.split("/")[:2])
    add = "add HF_TOKEN to the secrets of the machine file, such as HF_TOKEN: {env: HF_TOKEN}"
    if gated and not token:
        hint = f"accept its terms on the page of {repository} at the hub, then {add}"
        return AccessError(f"model {subject} is gated and there is no token for it", hint)
    if gated:
        hint = f"accept its terms on the page of {repository} with the account of HF_TOKEN"
        return AccessError(f"model {subject} is gated and HF_TOKEN has no access to it", hint)
    if token:
        hint = "check that HF_TOKEN is valid and may read this repository"
        return AccessError(f"model {subject}: the hub refuses HF_TOKEN", hint)
    return AccessError(
        f"model {subject} does not exist or is private", f"check the spelling, or {add}"
    )
