"""Plans as text and as data: unified diffs, one line per service; secrets never shown."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from inferfleet.paths import find_roots
from inferfleet.plan.plan import Plan, Step
from inferfleet.release.release import Release

SIGNS = {
    "create": "+", "update": "~", "delete": "-", "link": "+", "unlink": "-", "fetch": "+",
    "start": "+", "replace": "~", "remove": "-", "evict": "-", "recover": "!",
}  # fmt: skip

# What files of kinds end with that are programs, of which every service has the same.
VERBATIM = ".lua"


def reasons(release: Release, plan: Plan, contents: Mapping[str, bytes]) -> dict[str, str]:
    """Why each unit will be replaced, from the files that change; by service name."""
    found: dict[str, str] = {}
    old, new = _stanzas(contents.get("compose.yaml")), {}
    if "compose.yaml" in release.files:
        new = _stanzas(release.files["compose.yaml"].content)
    for service, unit in release.units.items():
        parts = []
        if unit.runtime == "compose" and service in old:
            before, after = old[service], new.get(service, {})
            keys = [k for k in sorted({*before, *after}) if before.get(k) != after.get(k)]
            parts += keys
        for path in plan.changed_files:
            pieces = path.rsplit(".", 1)[0].split("/")
            if service in pieces or unit.name.removesuffix(".service") in pieces:
                parts.append(path)
        if parts:
            found[service] = f"{', '.join(parts)} changed"
    return found


def _stanzas(content: bytes | None) -> dict[str, dict[str, Any]]:
    if content is None:
        return {}
    import yaml

    try:
        data = yaml.safe_load(content)
        return {name: dict(body) for name, body in data["services"].items()}
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError):
        return {}


def file_diff(path: str, plan: Plan, release: Release, contents: Mapping[str, bytes]) -> list[str]:
    """Unified diff of one file, without line ends; secrets give one line that shows nothing."""
    file = release.files.get(path)
    if path in plan.hidden:
        return [f"{path}: secret, content not shown"]
    before = contents.get(path, b"").decode("utf-8", "replace").splitlines()
    after = file.content.decode("utf-8", "replace").splitlines() if file else []
    return list(
        difflib.unified_diff(
            before,
            after,
            fromfile=f"a/{path}" if path in contents else "/dev/null",
            tofile=f"b/{path}" if file else "/dev/null",
            lineterm="",
        )
    )


def plan_lines(
    plan: Plan,
    release: Release,
    contents: Mapping[str, bytes],
    brief: bool = False,
    full: bool = False,
) -> list[str]:
    """The plan for people: a line per step, under a file's its diff, at the end what it comes to.

    brief leaves out the content of files that are new as a whole; programs of inferbase itself
    that come or go as a whole, and any change to `control`, are shown only when full.
    """
    lines: list[str] = []
    for note in plan.notes:
        lines.append(f"note: {note}")
    for step in plan.steps:
        diff: list[str] = []
        words = [step.reason] if step.reason else []
        if step.action in {"create", "update", "delete"}:
            diff = file_diff(step.target, plan, release, contents)
            if not full and _own(step, release, contents):
                diff = []
                words += [f"{_size(release, step.target)}; --full shows them"] if not brief else []
            if brief and step.action == "create":
                diff = []
                words.append(_size(release, step.target))
        reason = f"  ({', '.join(words)})" if words else ""
        lines.append(f"{SIGNS[step.action]} {step.action} {step.target}{reason}")
        lines.extend(f"    {line}" for line in diff)
    for problem in plan.problems:
        lines.extend(f"error: {problem}".splitlines())
    lines.append("nothing to change" if plan.empty else f"Plan: {summary(plan)}.")
    return lines


def _own(step: Step, release: Release, contents: Mapping[str, bytes]) -> bool:
    """Whether a file is a program of ours, of which a reader of plans has nothing to learn.

    What the user has said stands in process/NAME/run, so a change there is shown.
    """
    program = step.target.startswith("process/") and step.target.endswith("/run")
    if step.target == "control" or (program and step.action != "update"):
        return True
    # A service may have a file of its own in place of ours.
    file = release.files.get(step.target)
    content = file.content if file else contents.get(step.target)
    return step.target.endswith(VERBATIM) and content in _verbatim()


@lru_cache(maxsize=1)
def _verbatim() -> frozenset[bytes]:
    """Our own templates that are programs without anything to fill in."""
    folder = find_roots(environ={}).data / "templates"
    return frozenset(path.read_bytes() for path in folder.rglob(f"*{VERBATIM}"))


def _size(release: Release, path: str) -> str:
    file = release.files.get(path)
    if file is None:
        return "inferbase's own"
    return "secret" if file.secret else f"{len(file.content.splitlines())} lines"


def counts(plan: Plan) -> dict[str, int]:
    """How many of what a plan fetches, writes, starts, restarts and stops."""
    kinds = {
        "fetch": ["fetch"], "files": ["create", "update", "delete"], "links": ["link", "unlink"],
        "start": ["start"], "restart": ["replace"], "stop": ["remove", "evict"],
    }  # fmt: skip
    return {
        kind: sum(len(plan.targets(action)) for action in actions)
        for kind, actions in kinds.items()
    }


def summary(plan: Plan) -> str:
    """The counts that are not zero, in words: `1 model to fetch, 2 files, 1 service to start`."""
    nouns = {
        "fetch": "model{} to fetch", "files": "file{}", "links": "link{}",
        "start": "service{} to start", "restart": "service{} to restart",
        "stop": "service{} to stop",
    }  # fmt: skip
    parts = [
        f"{count} {nouns[kind].format('' if count == 1 else 's')}"
        for kind, count in counts(plan).items()
        if count
    ]
    return ", ".join(parts) or "an interrupted run to finish"


def plan_data(plan: Plan, release: Release, contents: Mapping[str, bytes]) -> dict[str, Any]:
    """The plan for programs."""
    steps = []
    for step in plan.steps:
        entry: dict[str, Any] = {
            "action": step.action, "target": step.target, "reason": step.reason,
        }  # fmt: skip
        if step.action in {"create", "update", "delete"}:
            entry["diff"] = file_diff(step.target, plan, release, contents)
        steps.append(entry)
    return {
        "machine": plan.machine,
        "generation": {"from": plan.source, "to": plan.to},
        "changes": not plan.empty,
        "steps": steps,
        "counts": counts(plan),
        "notes": list(plan.notes),
        "problems": [problem.data for problem in plan.problems],
    }
