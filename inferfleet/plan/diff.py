"""Plans as text and as data: unified diffs, one line per service; secrets never shown."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from inferfleet.plan.plan import Plan
from inferfleet.release.release import Release

SIGNS = {
    "create": "+", "update": "~", "delete": "-", "link": "+", "unlink": "-", "fetch": "+",
    "start": "+", "replace": "~", "remove": "-", "evict": "-", "recover": "!",
}  # fmt: skip


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
    plan: Plan, release: Release, contents: Mapping[str, bytes], brief: bool = False
) -> list[str]:
    """The plan for people: a line per step, under a file's its diff.

    brief leaves out the content of files that are new as a whole.
    """
    lines: list[str] = []
    for note in plan.notes:
        lines.append(f"note: {note}")
    for step in plan.steps:
        reason = f"  ({step.reason})" if step.reason else ""
        if brief and step.action == "create":
            file = release.files[step.target]
            count = file.content.count(b"\n")
            size = "secret" if file.secret else f"{count} lines"
            reason = f"  ({step.reason}, {size})" if step.reason else f"  ({size})"
        lines.append(f"{SIGNS[step.action]} {step.action} {step.target}{reason}")
        if step.action in {"create", "update", "delete"} and not (
            brief and step.action == "create"
        ):
            lines.extend(f"    {line}" for line in file_diff(step.target, plan, release, contents))
    for problem in plan.problems:
        lines.extend(f"error: {problem}".splitlines())
    if plan.empty:
        lines.append("nothing to change")
    return lines


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
        "notes": list(plan.notes),
        "problems": [{"what": p.what, "hint": p.hint} for p in plan.problems],
    }
