"""Which checkout applied last: read from git's files, kept in generations, told by plans."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import render_cases

from inferfleet.observe.observed import Observed, UnitState
from inferfleet.paths import Roots
from inferfleet.plan.steps import file_steps
from inferfleet.release.manifest import dump_manifest, load_manifest
from inferfleet.release.provenance import Checkout, Provenance, parse
from inferfleet.release.release import Release
from inferfleet.run.checkout import provenance
from inferfleet.run.session import Session

LAST = Provenance("ann@one", Checkout("/home/ann/app", "a" * 40, True), Checkout("/e", "b" * 40))


def git(folder: Path, *words: str) -> str:
    named = [
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.org",
        "-c",
        "protocol.file.allow=always",
    ]
    return subprocess.check_output(["git", *named, *words], cwd=folder, text=True).strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A consumer with its fleet folder and the engine as a real submodule at infra."""
    library, app = tmp_path / "library", tmp_path / "app"
    for folder, name in ((library, "inventory/a.yaml"), (app, "fleet/inventory/b.yaml")):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("address: x\n")
        git(folder, "init", "-q", "-b", "main")
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", "x")
    git(app, "submodule", "add", "-q", str(library), "infra")
    git(app, "commit", "-qm", "mounted")
    return app


def test_a_consumer_and_its_mount(project: Path) -> None:
    roots = Roots(project / "infra", project / "fleet")
    found = provenance(roots, "ann@one", dirty=True)
    assert found == Provenance(
        "ann@one",
        Checkout(str(project), git(project, "rev-parse", "HEAD"), False),
        Checkout(str(project / "infra"), git(project / "infra", "rev-parse", "HEAD"), False),
    )
    # What lies outside the folders that are read makes no difference, a new machine file does.
    (project / "README").write_text("x")
    assert provenance(roots, "ann@one", dirty=True) == found
    (project / "fleet/inventory/c.yaml").write_text("address: y\n")
    (project / "infra/inventory/a.yaml").write_text("address: z\n")
    dirty = provenance(roots, "ann@one", dirty=True)
    assert (dirty.project.dirty, dirty.engine and dirty.engine.dirty) == (True, True)
    assert provenance(roots, "ann@one").project.dirty is None


def test_revisions_as_git_keeps_them(project: Path, tmp_path: Path) -> None:
    def found(folder: Path) -> str:
        return provenance(Roots(folder), "x").project.revision

    head = git(project, "rev-parse", "HEAD")
    git(project, "pack-refs", "--all")
    assert not (project / ".git/refs/heads/main").exists()
    assert found(project) == head
    git(project, "worktree", "add", "-q", "-b", "other", str(tmp_path / "tree"))
    assert found(tmp_path / "tree") == head
    git(project, "checkout", "-q", "--detach")
    assert found(project / "fleet") == head
    (project / ".git/HEAD").write_text("ref: refs/heads/none\n")
    assert found(project) == ""
    assert provenance(Roots(tmp_path / "none"), "x").project == Checkout(str(tmp_path / "none"))


def test_without_git_nothing_is_said_of_changes(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    found = provenance(Roots(project), "x", dirty=True)
    assert (len(found.project.revision), found.project.dirty) == (40, None)


def test_words() -> None:
    assert str(LAST) == "/home/ann/app at aaaaaaaaaaaa with changes, engine /e at bbbbbbbbbbbb"
    assert str(Provenance("x", Checkout("/a\tb\nc"))) == "/a b c"


def test_a_generation_keeps_it() -> None:
    release = render_cases.render_case("laptop")
    by = replace(release, by=LAST)
    assert by.digest == release.digest
    assert load_manifest(dump_manifest(by), "x").by == LAST
    assert load_manifest(dump_manifest(release), "x").by is None
    assert parse({"who": "x", "project": {"path": 1, "other": 2}}) is None


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (LAST, False),
        (replace(LAST, project=Checkout("/home/ann/app", "c" * 40)), False),
        (replace(LAST, project=Checkout("/home/ann/second")), True),
        (replace(LAST, who="bob@two"), True),
    ],
)
def test_a_plan_names_another_checkout(now: Provenance, told: bool) -> None:
    release = render_cases.render_case("laptop")
    host = SimpleNamespace(name="m")
    session = Session(host, release, False, {}, {}, origin=lambda _: now)  # type: ignore[arg-type]
    manifest = load_manifest(dump_manifest(replace(release, by=LAST)), "x")
    notes = session._elsewhere(Observed({}, manifest=manifest))
    words = f"last applied by ann@one from {LAST}"
    assert notes == ((words,) if told else ())


def found(release: Release, **changed: str) -> Observed:
    """A machine with that release in force, some files with another checksum, smollm2 running."""
    sums = {path: (file.sha256, f"{file.mode:o}") for path, file in release.files.items()}
    sums |= {path.replace("__", "/"): (text, "755") for path, text in changed.items()}
    manifest = load_manifest(dump_manifest(release), "x")
    known = {
        path: (sums[path][0], mode, secret) for path, (_, mode, secret) in manifest.files.items()
    }
    return Observed(
        {},
        current=1,
        manifest=replace(manifest, files=known),
        files=sums,
        units={"smollm2": UnitState("running", "")},
    )


def test_the_path_of_another_checkout_makes_no_difference_alone() -> None:
    release = render_cases.render_case("laptop")
    engine, run = "process/smollm2/engine", "process/smollm2/run"
    assert release.files[engine].loose == "smollm2"
    assert render_cases.PYTHON.encode() in release.files[engine].content
    assert render_cases.PYTHON.encode() not in release.files[run].content
    other = found(release, process__smollm2__engine="0" * 64)
    assert file_steps(release, other) == []
    # One that does not run would be started by that file, and other changes write it anew.
    stopped = replace(other, units={"smollm2": UnitState("stopped", "")})
    assert [step.target for step in file_steps(release, stopped)] == [engine]
    both = found(release, process__smollm2__engine="0" * 64, process__smollm2__run="1" * 64)
    assert [step.target for step in file_steps(release, both)] == [engine, run]
    # What somebody edited there is no checkout's.
    known = {**(other.manifest.files if other.manifest else {}), engine: ("2" * 64, 0o755, False)}
    assert other.manifest is not None
    edited = replace(other, manifest=replace(other.manifest, files=known))
    assert [step.reason for step in file_steps(release, edited)] == ["was changed on the machine"]
