"""Documents are plain and their links, tasks and options exist."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest
from doc_pages import PAGES, REPOSITORY, commands, read_page

from inferfleet.docs.reference import arguments_of
from inferfleet.tasks import ns

EVERY = [read_page(path) for path in PAGES]
TEXTS = [*PAGES, REPOSITORY / "CHANGELOG.md"]
LANGUAGES = {"sh", "console", "text", "yaml", "python", "toml"}
# Options of Invoke itself that the documents use.
CORE = {"--list", "--help"}


def name(value):
    return getattr(value, "name", str(value))


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_plain_text(path):
    text = path.read_text(encoding="utf-8")
    assert text.isascii()
    assert text.endswith("\n")
    assert "\t" not in text
    assert not re.search(r"(?i)\b(TODO|FIXME|blazing|powerful|seamless|simply|easily)\b", text)


@pytest.mark.parametrize("page", EVERY, ids=name)
def test_lines_are_short(page):
    long = [line for line in page.prose if len(line) > 100 and not line.startswith("|")]
    assert long == []


@pytest.mark.parametrize("page", EVERY, ids=name)
def test_fences_have_a_known_language(page):
    assert {block.language for block in page.blocks} <= LANGUAGES


@pytest.mark.parametrize("page", EVERY, ids=name)
def test_links_lead_somewhere(page):
    broken = []
    for target in re.findall(r"\]\(([^)]+)\)", "\n".join(page.prose)):
        path, _, fragment = target.partition("#")
        file = (page.path.parent / path).resolve() if path else page.path
        if not file.exists() or (fragment and fragment not in read_page(file).anchors):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", EVERY, ids=name)
def test_tasks_and_options_exist(page):
    wrong = [text for text in commands(page) if not exists(text)]
    assert wrong == []


def exists(text):
    """Whether `invoke TEXT` names a task and options that are there."""
    words = shlex.split(text.replace("[", "").replace("]", ""))
    if words[0] in CORE or words[0].removeprefix("infra.").isupper() or words[0] == "...":
        return True
    task = words[0].removeprefix("infra.")
    if task not in {*ns.task_names, *(a for found in ns.task_names.values() for a in found)}:
        return False
    flags = {
        f"-{one}" if len(one) == 1 else f"--{one.replace('_', '-')}"
        for argument in arguments_of(ns[task])
        for one in argument.names
    }
    used = {word.partition("=")[0] for word in words[1:] if word.startswith("-")}
    return used <= flags


def test_wrong_commands_are_found():
    assert exists("up --host m1 --yes")
    assert exists("infra.logs -f")
    assert not exists("upp")
    assert not exists("up --hosts m1")


def test_commands_are_found_wherever_they_stand(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(
        "Run `invoke plan --host m1`.\n\n```console\n$ invoke up \\\n    --yes\n"
        "output invoke\n```\n"
        "\n```sh\ncd x && .venv/bin/invoke down\ninvoke plan || [ $? = 2 ]\n```\n"
    )
    assert commands(read_page(path)) == ["up      --yes", "down", "plan", "plan --host m1"]


def test_every_task_is_in_the_readme():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    verbs = text.split("## Verbs")[1].split("\n## ")[0]
    missing = [task for task in ns.task_names if f"`{task.removeprefix('inventory')}`" not in verbs]
    assert [task for task in missing if f"`{task}`" not in verbs] == []


def test_every_page_is_in_the_index():
    index = (REPOSITORY / "docs/README.md").read_text(encoding="utf-8")
    pages = [p.relative_to(REPOSITORY / "docs") for p in PAGES if "docs" in p.parts]
    # Those of kinds of services stand in the table of kinds.
    missing = [p for p in pages if f"({p})" not in index and p.parent.name != "kinds"]
    assert [str(p) for p in missing if p.name != "README.md"] == []


def test_quick_start_is_what_ci_runs():
    """Two one-line blocks, and .ci/run finds the same ones with its own reader."""
    blocks = [b for b in read_page(REPOSITORY / "README.md").of("sh") if b.heading == "Quick start"]
    assert [len(block.lines) for block in blocks] == [1, 1]
    script = (REPOSITORY / ".ci/run").read_text(encoding="utf-8")
    reader = script[script.index("quick_start() {") : script.index("\n}\n") + 3]
    for number, block in enumerate(blocks, 1):
        asked = f"{reader}\nquick_start {number}"
        done = subprocess.run(
            ["bash", "-c", asked], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        assert done.stdout == block.text
    assert blocks[0].lines == [
        "python3 -m venv .venv && .venv/bin/pip install -q -e '.[local]' && .venv/bin/invoke up"
    ]
    assert blocks[1].lines == [
        ".venv/bin/pip install -q -e '.[local,dev]' && .venv/bin/python -m pytest -n auto"
    ]
