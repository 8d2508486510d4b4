"""Every task that a text of ours tells people to run is one."""

from __future__ import annotations

import re
from pathlib import Path

from inferfleet import tasks

ROOT = Path(__file__).resolve().parents[2]
SUFFIXES = {".py", ".yaml", ".md", ".sh", ".j2", ".lua"}
# In backquotes, or a line of a block that somebody would type. Tasks lie under any name when they
# are a part of another project; here it is infra.
NAMED = re.compile(
    r"(?:`|^ *(?:\$ )?)(?:[A-Z_]+=\S+ )*invoke (?:-[-\w]+ )*(?:infra\.)?(?!infra\.)([a-z][\w.-]*)",
    re.M,
)
BLOCK = re.compile(r"^```(?:sh|console)\n(.*?)^```", re.M | re.S)


def texts() -> list[Path]:
    folders = ("services", "hostprep", "templates", "inferfleet", "inventory", "docs")
    found = [path for name in folders for path in (ROOT / name).rglob("*")]
    return [path for path in [*found, ROOT / "README.md"] if path.suffix in SUFFIXES]


def named(path: Path) -> set[str]:
    text = path.read_text()
    quoted = {match[1] for match in NAMED.finditer(text) if match[0][0] == "`"}
    typed = {task for block in BLOCK.findall(text) for task in NAMED.findall(block)}
    return {task.rstrip(".") for task in quoted | typed}


def test_every_task_that_is_named_is_one() -> None:
    found = {(path.relative_to(ROOT).as_posix(), task) for path in texts() for task in named(path)}
    assert {"services/vllm.yaml", "docs/how-to/health.md"} <= {path for path, _ in found}
    names = tasks.ns.task_names  # of each task its other names, too
    known = {*names, *(alias for others in names.values() for alias in others)}
    assert [(path, task) for path, task in sorted(found) if task not in known] == []
