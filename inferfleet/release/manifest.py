"""What a generation says of itself: a release as JSON, kept beside its files on the machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from inferfleet.errors import FleetError
from inferfleet.models.watched import watched
from inferfleet.release.provenance import Provenance, parse
from inferfleet.release.release import Counters, Probe, Release, Unit

FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """The part of a release that cannot be read back from its files.

    files: path -> (sha256, mode, secret); links and units as in Release. by: who applied it and
    from where, None when nothing says so. models: service -> paths by which it is noted what of
    its model it was started with; without a service where that is not known.
    """

    digest: str
    root: str
    files: Mapping[str, tuple[str, int, bool]]
    links: Mapping[str, str]
    units: Mapping[str, Unit]
    by: Provenance | None = None
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def dump_manifest(release: Release) -> str:
    """One line of JSON; file contents appear as sha256 only."""
    by = {"by": release.by.data()} if release.by else {}
    return json.dumps(
        {
            **by,
            "format": FORMAT,
            "digest": release.digest,
            "root": release.root,
            "files": {
                path: [file.sha256, file.mode, file.secret]
                for path, file in sorted(release.files.items())
            },
            "links": dict(sorted(release.links.items())),
            "units": {name: asdict(unit) for name, unit in release.units.items()},
            "models": {need.service: watched(need) for need in release.models},
        },
        separators=(",", ":"),
    )


def load_manifest(text: str, place: str) -> Manifest:
    """Read dump_manifest's line back; place names the file in errors.

    Raises FleetError when it is damaged or of another format.
    """
    try:
        data = json.loads(text)
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']}")
        units = {name: _unit(fields) for name, fields in data["units"].items()}
        files = {path: (str(s), int(m), bool(x)) for path, (s, m, x) in data["files"].items()}
        by = parse(data.get("by"))
        models = {name: tuple(paths) for name, paths in data.get("models", {}).items()}
        return Manifest(data["digest"], data["root"], files, data["links"], units, by, models)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FleetError(
            f"{place} is damaged or of another version ({type(error).__name__}: {error})",
            hint="`invoke history` lists the generations that are whole; `invoke rollback --to N` "
            "returns to one of them, or move the file away to start afresh",
        ) from None


def _unit(fields: dict[str, object]) -> Unit:
    probe = fields.get("probe")
    address = fields.get("address")
    unit = dict(fields)
    if isinstance(probe, dict):
        unit["probe"] = _probe(probe)
    if isinstance(address, list):
        unit["address"] = (str(address[0]), int(address[1]))
    return Unit(**unit)  # type: ignore[arg-type]


def _probe(fields: dict[str, Any]) -> Probe:
    counters = fields.get("counters")
    if isinstance(counters, dict):
        lists = {key: tuple(counters[key]) for key in ("progress", "running")}
        counters = Counters(**{**counters, **lists})
    return Probe(**{**fields, "loading": tuple(fields["loading"]), "counters": counters})
