"""A page for each kind of service: complete, and with an example that can be taken as it is."""

from __future__ import annotations

import pytest
from doc_pages import REPOSITORY, read_page
from render_cases import render_fleet

from inferfleet.docs.kinds import FOLDER as KINDS
from inferfleet.docs.kinds import example
from inferfleet.docs.reference import FOLDER, shipped_fleet
from inferfleet.load.load import load_fleet
from inferfleet.paths import Roots

FLEET = shipped_fleet()
PAGES = REPOSITORY / FOLDER / KINDS


def text(name):
    return (PAGES / f"{name}.md").read_text(encoding="utf-8").replace("\\|", "|")


def words(kind):
    """What a user of the kind has to find, as far as its file says it."""
    yield kind.summary
    yield from kind.runtimes
    yield from filter(None, [kind.notice, kind.health.path, kind.health.page])
    for failure in kind.failures:
        yield from filter(None, [failure.says, failure.hint])
    for secret, use in kind.secrets.items():
        yield from [f"`{secret}`", f"`{use.env}`", use.summary or "key that clients send"]
    how = kind.options
    for one in (*how.paths, *how.short, *how.on_off, *how.true_false, *how.defaults, *how.values):
        yield f"`{one}`"
    for told in (how.managed, how.removed, how.newer):
        yield from (f"| `{one}` | {what} |" for one, what in told.items())
    yield from filter(None, [how.source, how.cpus])
    yield from (f"| `{name}` | {what} |" for name, what in (kind.parameters or {}).items())
    yield from (f"`{section}`" for section in kind.sections)
    yield from kind.files
    yield from (wire.urls for wire in kind.wires)
    if kind.metrics:
        metrics = kind.metrics
        yield from filter(None, [metrics.path, metrics.tokens, *metrics.progress, *metrics.running])
    for run in filter(None, [kind.compose, kind.systemd, kind.process]):
        yield from (f"`{name}`" for name in run.environment)
    if run := kind.compose:
        yield from filter(None, [run.image, run.image_cuda, run.user, str(run.pids)])
        yield from [*run.volumes.values(), *run.tmpfs, *run.binds]
        yield from (str(port.default) for port in run.ports.values())
        yield "read-only" if run.read_only else "writable"
    if kind.systemd:
        yield kind.systemd.program


@pytest.mark.parametrize("name", sorted(FLEET.kinds))
def test_page_says_what_the_file_says(name):
    # Paragraphs are wrapped.
    page = " ".join(text(name).split())
    assert [word for word in words(FLEET.kinds[name]) if " ".join(word.split()) not in page] == []


@pytest.mark.parametrize("name", sorted(FLEET.kinds))
def test_example_can_be_taken_as_it_is(name, tmp_path):
    (block,) = [b for b in read_page(PAGES / f"{name}.md").blocks if b.heading == "Example"]
    assert block.text == example(FLEET, name)
    (tmp_path / "inventory").mkdir()
    (tmp_path / "inventory" / "lab.yaml").write_text(block.text)
    fleet = load_fleet(Roots(REPOSITORY, tmp_path))
    assert fleet.machines["lab"].services[name].kind == name
    assert name in {unit.service for unit in render_fleet(fleet, "lab").units.values()}


def test_there_is_a_page_for_each_kind_and_no_other():
    assert {path.stem for path in PAGES.iterdir()} == set(FLEET.kinds)


def test_every_page_is_in_the_table_of_kinds():
    table = (REPOSITORY / FOLDER / "kind.md").read_text(encoding="utf-8")
    assert [name for name in FLEET.kinds if f"[{name}]({KINDS}/{name}.md)" not in table] == []
