"""hf: sources: the files of a repository of the Hugging Face hub."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from inferfleet.errors import FleetError
from inferfleet.models.need import ModelNeed
from inferfleet.models.sources.origin import Contents, Origin, WantedFile
from inferfleet.models.sources.source import check_member, check_names, source_text
from inferfleet.models.sources.web import UnreachableError, Web, access_error

# llama.cpp opens the first part of a split GGUF and finds the others beside it.
_SPLIT = re.compile(r"(.*)-\d{5}-of-(\d{5}\.gguf)")
_NOT_MODEL = (".gitattributes", ".gitignore")
_ANSWER_SECONDS = 30.0
_HUB = "https://huggingface.co"


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT, as huggingface_hub has it, or the public hub."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or _HUB


def hub_contents(need: ModelNeed, token: str) -> Contents:
    """The files that need asks for at the revision they have now.

    Raises FleetError when the repository, revision or file does not exist, when access is
    refused, and when the hub cannot be reached.
    """
    info = _info(need, token)
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
    subject, commit = source_text(need.source), str(info.sha or "")
    files = []
    for name in _chosen(need, sorted(siblings)):
        try:
            check_member(name)
        except ValueError as error:
            raise FleetError(
                f"model {subject}: the repository has an unusable file name: {error}",
                "choose files that leave it out, or another repository",
            ) from None
        sibling = siblings[name]
        sha256 = _agreed(need, name, sibling.lfs.sha256 if sibling.lfs else None)
        git = None if sibling.lfs else sibling.blob_id
        origin = Web(_url(need, name, commit), subject, token, hub=True)
        files.append(WantedFile(name, origin, sibling.size, sha256, git))
    check_names(need, (file.path for file in files))
    if getattr(info, "gated", False) and files:
        # The file list of a gated repository is public; whether its files may be had is asked
        # before anything is made on the machine.
        _ask(need, files[0].origin)
    return Contents(commit, tuple(files))


def _ask(need: ModelNeed, origin: Origin) -> None:
    try:
        if isinstance(origin, Web):
            origin.head()
    except UnreachableError as error:
        if error.status:
            raise _answered(need, error.status, error.headers) from None
        raise _down(str(error)) from None


def _agreed(need: ModelNeed, name: str, sha256: str | None) -> str | None:
    """The checksum of a file: the hub's and ours, which must be one."""
    ours = need.sha256 if name == need.source.member else need.checksums.get(name)
    if ours and sha256 and ours != sha256:
        raise FleetError(
            f"model {source_text(need.source)}: the hub has sha256 {sha256} of {name}, "
            f"the file of the model or machine says {ours}",
            "correct sha256, or pin the revision that it belongs to",
        )
    return ours or sha256


def _url(need: ModelNeed, name: str, commit: str) -> str:
    from huggingface_hub import hf_hub_url

    revision = commit or need.source.revision or "main"
    url = hf_hub_url(need.source.name, name, revision=revision, endpoint=endpoint())
    # A custom endpoint must be obeyed by every release of huggingface_hub.
    return url if url.startswith(endpoint()) else f"{endpoint()}/{url.split('/', 3)[3]}"


def _info(need: ModelNeed, token: str) -> Any:
    from huggingface_hub import HfApi, errors

    subject = source_text(need.source)
    revision = need.source.revision or None
    # The HTTP library differs between its releases: httpx below 2, httpx2 from there on.
    transport: type[Exception] = getattr(errors, "HTTPError", OSError)
    try:
        return HfApi(endpoint=endpoint(), token=token or False).model_info(
            need.source.name, revision=revision, files_metadata=True, timeout=_ANSWER_SECONDS
        )
    except errors.RevisionNotFoundError:
        raise FleetError(
            f"model {subject}: the repository has no revision {need.source.revision}",
            f"name a branch, a tag or a commit of the repository{_whole(need)}",
        ) from None
    except errors.GatedRepoError:
        raise access_error(subject, bool(token), gated=True) from None
    except errors.RepositoryNotFoundError as error:
        if token and error.response.status_code == 404:
            raise FleetError(
                f"model {subject} does not exist, or HF_TOKEN may not see it",
                "check the spelling of the repository",
            ) from None
        raise access_error(subject, bool(token), gated=False) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise access_error(subject, bool(token), gated=False) from None
        raise _answered(need, status, error.response.headers) from None
    except (transport, OSError) as error:
        raise _down(str(error) or type(error).__name__) from None


def _answered(need: ModelNeed, status: int, headers: Mapping[str, str]) -> FleetError:
    """The error for an HTTP status that says nothing of the model's access."""
    said = f"the hub {endpoint()} answers HTTP {status}"
    if status in (404, 410):
        what = "repository or no such revision" if need.source.revision else "repository"
        mirror = "; a mirror (HF_ENDPOINT) may lack what the hub has" if endpoint() != _HUB else ""
        return FleetError(
            f"model {source_text(need.source)}: the hub {endpoint()} has no such {what} "
            f"(HTTP {status})",
            f"check the spelling{_whole(need)}{mirror}",
        )
    wait = _wait(headers)
    later = f"run the same command again {f'in {wait} s' if wait else 'later'}"
    if status == 429:
        return FleetError(
            f"{said}: too many requests from here",
            f"{later}; with HF_TOKEN in the secrets of the machine file the hub allows more",
        )
    if status >= 500:
        return FleetError(
            f"{said}: it is out of order itself", f"{later}, or set HF_ENDPOINT to a mirror"
        )
    return FleetError(f"{said} for {source_text(need.source)}", "check HF_ENDPOINT, if it is set")


def _wait(headers: Mapping[str, str]) -> int | None:
    """Seconds that the hub asks to wait: Retry-After, or the t of its own RateLimit."""
    found = re.fullmatch(r"\d{1,6}", headers.get("Retry-After", "").strip())
    found = found or re.search(r"(?<=;t=)\d{1,6}\b", headers.get("RateLimit", "").replace(" ", ""))
    return int(found[0]) if found else None


def _whole(need: ModelNeed) -> str:
    """What to know of a revision that looks like the beginning of a commit."""
    short = re.fullmatch("[0-9a-f]{7,39}", need.source.revision)
    return "; a commit is written with all its 40 digits, as models.list shows it" if short else ""


def _down(why: str) -> FleetError:
    return FleetError(
        f"the hub {endpoint()} cannot be reached: {why}",
        "check the network of this machine, or set HF_ENDPOINT to a mirror",
    )


def _chosen(need: ModelNeed, names: list[str]) -> list[str]:
    subject, member = source_text(need.source), need.source.member
    if member:
        if member not in names:
            from difflib import get_close_matches

            near = get_close_matches(member, names, 1)
            hint = f"did you mean {near[0]}?" if near else "look at the repository's file list"
            raise FleetError(f"model {subject}: the repository has no file {member}", hint)
        if split := _SPLIT.fullmatch(member):
            same = re.compile(rf"{re.escape(split[1])}-\d{{5}}-of-{re.escape(split[2])}")
            return [name for name in names if same.fullmatch(name)]
        return [member]
    wanted = [name for name in names if name not in _NOT_MODEL]
    if need.files:
        patterns = [f"{text}*" if text.endswith("/") else text for text in need.files]
        wanted = [name for name in wanted if any(fnmatchcase(name, each) for each in patterns)]
    if not wanted:
        what = f"no file matches {', '.join(need.files)}" if need.files else "it is empty"
        raise FleetError(f"model {subject}: {what}", "look at the repository's file list")
    return wanted
