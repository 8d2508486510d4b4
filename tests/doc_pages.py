"""README.md and docs/ as the documentation tests read them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = sorted([REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")])
_FENCE = re.compile(r"^```(\w*)$")
_MARK = re.compile(r"[^a-z0-9 _-]")


@dataclass
class Block:
    """A fenced block: its language, its text, the heading it stands below."""

    language: str
    heading: str
    lines: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


@dataclass
class Page:
    """A document: its fenced blocks, all other lines, its headings."""

    path: Path
    blocks: list[Block]
    prose: list[str]
    headings: list[str]

    @property
    def name(self) -> str:
        return str(self.path.relative_to(REPOSITORY))

    @property
    def anchors(self) -> set[str]:
        """What #fragment may name, as GitHub makes it from headings."""
        return {_MARK.sub("", h.lower()).replace(" ", "-") for h in self.headings}

    def of(self, language: str) -> list[Block]:
        return [block for block in self.blocks if block.language == language]


def read_page(path: Path) -> Page:
    """Raises ValueError for a fence without a language or an end."""
    page = Page(path, [], [], [])
    block: Block | None = None
    for line in path.read_text(encoding="utf-8").splitlines():
        fence = _FENCE.match(line)
        if block is not None:
            if line == "```":
                page.blocks.append(block)
                block = None
            else:
                block.lines.append(line)
        elif fence:
            if not fence[1]:
                raise ValueError(f"{path}: a fence without a language")
            block = Block(fence[1], page.headings[-1] if page.headings else "")
        else:
            page.prose.append(line)
            if line.startswith("#"):
                page.headings.append(line.lstrip("#").strip())
    if block is not None:
        raise ValueError(f"{path}: a fence without an end")
    return page


def commands(page: Page) -> list[str]:
    """Every `invoke ...` of the page: in console and sh blocks and in code spans of the prose."""
    found = []
    for block in page.blocks:
        if block.language in {"console", "sh"}:
            text = block.text.replace("\\\n", " ")
            for line in text.splitlines():
                for part in re.split(r"&&|\|\||;|\s\|\s|<<", line.removeprefix("$ ")):
                    match = re.search(r"(?:^|\s|/)invoke (.*)$", part)
                    if match and not line.startswith(("#", " ")):
                        found.append(match[1].split(" #")[0].strip())
    for span in re.findall(r"`invoke ([^`]*)`", "\n".join(page.prose)):
        found.append(" ".join(span.split()))
    return found
