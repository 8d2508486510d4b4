"""The reference is generated, current and complete: every task, option and key has a meaning."""

from __future__ import annotations

import re

import pytest
from doc_pages import REPOSITORY

from inferfleet import errors
from inferfleet.docs.profiles import GUIDES, guides, write_guides
from inferfleet.docs.reference import (
    FOLDER,
    arguments_of,
    fields_of,
    reference,
    sections,
    shipped_fleet,
    write_reference,
)
from inferfleet.docs.typenames import PLACEHOLDERS as PLACEHOLDER_TEXTS
from inferfleet.docs.typenames import TYPES
from inferfleet.hostprep.merge import profile_settings
from inferfleet.hostprep.verify import verification
from inferfleet.load.load import FILE_KINDS
from inferfleet.schema.placeholders import PLACEHOLDERS
from inferfleet.tasks import ns

MADE = reference()
TASKS = list(ns.task_names)
KEYS = [
    (f"{kind}:{path}.{key}", field.description)
    for kind, model in FILE_KINDS.items()
    for path, part in sections(model)
    for key, field, _hint in fields_of(part)
]
PARTS = [(f"{kind}:{path}", part) for kind, m in FILE_KINDS.items() for path, part in sections(m)]


@pytest.mark.parametrize("name", MADE)
def test_generated_page_is_current(name):
    text = (REPOSITORY / FOLDER / name).read_text(encoding="utf-8")
    assert text == MADE[name], "run: python -m inferfleet.docs"


def test_pages_are_written_once(tmp_path):
    assert write_reference(tmp_path) == list(MADE)
    assert write_reference(tmp_path) == []
    (tmp_path / FOLDER / "tasks.md").write_text("old")
    assert write_reference(tmp_path) == ["tasks.md"]


def test_lists_of_settings_in_guides_are_current():
    made = guides(REPOSITORY, shipped_fleet())
    for path in (REPOSITORY / GUIDES).glob("*.md"):
        text = path.read_text(encoding="utf-8")
        assert text == made.get(path.name, text), "run: python -m inferfleet.docs"
        # A list whose first line is misspelled would never be made.
        assert ("<!-- settings" in text) == (path.name in made), path.name
    layers = {"firmware.md", "kernel.md", "gpu-tuning.md", "huge-pages.md", "storage.md"}
    assert set(made) == layers


def test_guides_are_written_once(tmp_path):
    page = tmp_path / GUIDES / "x.md"
    page.parent.mkdir(parents=True)
    head = "<!-- settings: swap; made by `python -m inferfleet.docs` -->\n"
    page.write_text(f"before\n{head}stale\n<!-- end of settings -->\nafter\n")
    assert write_guides(tmp_path, shipped_fleet()) == ["x.md"]
    assert write_guides(tmp_path, shipped_fleet()) == []
    text = page.read_text()
    assert text.startswith(f"before\n{head}")
    assert text.endswith("<!-- end of settings -->\nafter\n")
    assert "swap.active" in text
    assert "stale" not in text


def test_every_shipped_setting_is_verified_in_a_guide_and_in_the_reference():
    fleet = shipped_fleet()
    told = "".join(guides(REPOSITORY, fleet).values())
    page = reference()["profile.md"]
    for name, profile in fleet.profiles.items():
        section = page.split(f"\n### {name}\n")[1].split("\n### ")[0]
        for wanted in profile_settings(name, profile):
            command = verification(wanted).command
            assert f"\n{wanted.name}\n" in told
            assert f"    verify  {command}\n" in told
            row = next(line for line in section.splitlines() if f"| `{wanted.name}` |" in line)
            for text in (wanted.why, wanted.source, wanted.cost, command):
                assert text.replace("|", "\\|") in row


@pytest.mark.parametrize("name", TASKS)
def test_task_says_what_it_does(name):
    assert re.fullmatch(r"[A-Z][^\n]{10,}\.", ns[name].__doc__.strip())


@pytest.mark.parametrize("name", TASKS)
def test_option_says_what_it_is_for(name):
    missing = [a.name for a in arguments_of(ns[name]) if len(a.help or "") < 10]
    assert missing == []


def test_tasks_page_has_every_task_and_option():
    page = reference()["tasks.md"]
    for name in TASKS:
        part = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        for argument in arguments_of(ns[name]):
            assert f"`--{argument.name.strip('_').replace('_', '-')}`" in part
            assert argument.help in part.replace("\\|", "|")


def test_every_key_has_a_meaning():
    assert [name for name, text in KEYS if len(text or "") < 8] == []
    assert len(KEYS) > 100


def test_every_part_has_a_description():
    assert [name for name, part in PARTS if not part.__dict__.get("__doc__")] == []


def test_model_pages_have_every_key():
    pages = {kind: f"{kind}.md" for kind in FILE_KINDS} | {"service": "kind.md"}
    for kind, name in pages.items():
        text = reference()[name]
        for path, part in sections(FILE_KINDS[kind]):
            head = f"\n## {path or 'Keys'}\n"
            assert head in text
            body = text.split(head)[1].split("\n## ")[0]
            for key, field, _hint in fields_of(part):
                row = next(line for line in body.splitlines() if line.startswith(f"| `{key}` |"))
                assert field.description.replace("|", "\\|") in row


def test_placeholders_are_explained():
    assert set(PLACEHOLDER_TEXTS) == PLACEHOLDERS
    assert all(len(text) > 10 for text in PLACEHOLDER_TEXTS.values())


def test_every_type_that_is_explained_is_used():
    pages = "".join(reference().values())
    assert [name for name in TYPES if f"\n| {name} | {TYPES[name]} |" not in pages] == []


def test_exit_codes_are_those_of_the_program():
    page = (REPOSITORY / FOLDER / "exit-codes.md").read_text(encoding="utf-8")
    told = {name: int(code) for code, name in re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", page, re.M)}
    known = {
        name: value
        for name, value in vars(errors).items()
        if name.isupper() and isinstance(value, int)
    }
    assert told == known
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = readme.split("## Exit codes")[1].split("\n## ")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.M)} == set(known.values())
