"""Cases of tests/cases/plan: a release, what observe.sh printed, a goal, and the exact plan.

A case starts from a machine on which `before` (default: `release`) was applied as generation
`current` (default 1) and runs. `drop` removes records of its observation by their first
fields, `add` puts records in; `keep` names what stays as it was before. Everything in
`expect` is compared as a whole; its twin is the same machine after the change.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from inferfleet.models.need import ModelNeed, Source
from inferfleet.observe.observed import Observed, parse_observed
from inferfleet.plan.plan import Goal, Plan, make_plan
from inferfleet.release.archive import own_files
from inferfleet.release.manifest import dump_manifest
from inferfleet.release.release import File, Probe, Release, Unit

CASES = Path(__file__).resolve().parent / "cases" / "plan"
ROOT = "/srv/box"
FACTS = {
    "user": "me", "uid": "1000", "now": "1700000000", "arch": "x86_64", "kernel": "6.1",
    "host": "box", "writable": "yes", "near": ROOT, "free_kb": "900000000",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """before and release as releases; observed as the text of observe.sh."""

    name: str
    release: Release
    observed: str
    twin: str
    goal: Goal
    expect: dict[str, Any]

    def plan(self, text: str) -> Plan:
        return make_plan(self.release, parse_observed(text, ROOT), self.goal)

    def seen(self) -> Observed:
        return parse_observed(self.observed, ROOT)


def cases() -> list[Case]:
    found = []
    for path in sorted(CASES.glob("*.yaml")):
        for name, data in yaml.safe_load(path.read_text()).items():
            found.append(_case(f"{path.stem}: {name}", data))
    return found


def make_release(data: dict[str, Any]) -> Release:
    """files: path -> text or {text, mode, secret}; units: name -> changed fields."""
    files = {}
    for path, body in data.get("files", {"compose.yaml": "a: 1\n"}).items():
        entry = body if isinstance(body, dict) else {"text": body}
        files[path] = File(
            entry["text"].encode(), int(str(entry.get("mode", 644)), 8), entry.get("secret", False)
        )
    units = {
        name: make_unit(name, body or {}) for name, body in data.get("units", {"a": {}}).items()
    }
    models = tuple(make_need(need) for need in data.get("models", []))
    return Release("box", "box", ROOT, files, data.get("links", {}), units, models)


def make_unit(name: str, body: dict[str, Any]) -> Unit:
    fields: dict[str, Any] = {
        "kind": "echo", "runtime": "compose", "name": f"box-{name}", "digest": f"digest-{name}",
        "address": ("127.0.0.1", 8080), "api": "openai", "model": "m", "metrics": None,
        "probe": Probe("/health", (503,), "openai-chat", "m", None, 60), "autostart": True,
        "gpu": False, **body,
    }  # fmt: skip
    if isinstance(fields["address"], list):
        fields["address"] = tuple(fields["address"])
    return Unit(service=name, **fields)


def make_need(data: str | dict[str, Any]) -> ModelNeed:
    """A service's name, or service, model (default: its name), sha256, aliases (names below the
    models directory -> own texts) and loads, the alias that it loads."""
    body = data if isinstance(data, dict) else {"service": data}
    service, models = body["service"], f"{ROOT}/models"
    model = body.get("model", service)
    directory = f"{models}/{model}"
    return ModelNeed(
        service,
        model,
        Source("https", f"https://example.org/{model}.gguf"),
        directory,
        f"{models}/{body['loads']}" if "loads" in body else f"{directory}/{model}.gguf",
        body.get("sha256"),
        aliases={f"{models}/{name}": own for name, own in body.get("aliases", {}).items()},
        models_dir=models,
    )


def applied(release: Release, current: int = 1, machine: dict[str, Any] | None = None) -> str:
    """What observe.sh prints on a machine where the release runs as it should."""
    rows = [["fact", key, value] for key, value in {**FACTS, **(machine or {})}.items()]
    rows += [["current", f".inferbase/generations/{current}"], ["generation", str(current)]]
    rows.append(["manifest", dump_manifest(release)])
    for path, file in {**release.files, **own_files(release)}.items():
        if path in release.files:
            rows += [["sum", file.sha256, path], ["mode", f"{file.mode:o}", path]]
    for unit in release.units.values():
        rows.append(["started", unit.service, unit.digest])
        rows.append(["unit", unit.service, "running", "Up 2 hours"])
        if unit.address:
            ip, port = unit.address
            octets = [f"{int(part):02X}" for part in reversed(ip.split("."))]
            rows.append(["listen", f"{''.join(octets)}:{port:04X}"])
    rows += [["link", path, f"{ROOT}/current/{to}"] for path, to in release.links.items()]
    rows.append(["end"])
    return text(rows)


def text(rows: list[list[str]]) -> str:
    return "".join("\t".join(row) + "\n" for row in rows)


def edited(observed: str, drop: list[list[str]], add: list[list[Any]]) -> str:
    """The observation without the records that begin with one of drop, with those of add.

    With a unit its listening socket goes.
    """
    rows = [line.split("\t") for line in observed.splitlines()]
    if any(start[0] == "unit" for start in drop):
        rows = [row for row in rows if row[0] != "listen"]
    for start in drop:
        assert any(row[: len(start)] == start for row in rows), f"nothing to drop: {start}"
        rows = [row for row in rows if row[: len(start)] != start]
    return text([*rows[:-1], *([str(field) for field in row] for row in add), ["end"]])


def _case(name: str, data: dict[str, Any]) -> Case:
    release = make_release(data.get("release", {}))
    before = make_release(data["before"]) if "before" in data else release
    if data.get("fresh"):
        start = text([["fact", k, v] for k, v in FACTS.items()] + [["end"]])
    else:
        start = applied(before, data.get("current", 1))
    goal = dict(data.get("goal", {}))
    if "services" in goal:
        goal["services"] = frozenset(goal["services"])
    add = [
        [dump_manifest(before) if field == "{before}" else field for field in row]
        for row in data.get("add", [])
    ]
    return Case(
        name,
        release,
        edited(start, data.get("drop", []), add),
        applied(release, data["expect"].get("to", 1)),
        Goal(**goal),
        data["expect"],
    )
