"""Where the data folders and the overlay are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferfleet.errors import FleetError
from inferfleet.paths import FOLDERS, PACKAGE, Roots, display, find_roots

EMPTY: dict[str, str] = {}


def folders(root: Path) -> Path:
    for name in FOLDERS:
        (root / name).mkdir(parents=True)
    return root


def checkout(root: Path) -> Path:
    """A checkout at root; the folder of its package."""
    folders(root)
    (root / "inferfleet").mkdir()
    return root / "inferfleet"


def wheel(root: Path) -> Path:
    """An installed wheel below root; the folder of its package."""
    folders(root / "inferfleet" / "_data")
    return root / "inferfleet"


def consumer(root: Path, *, fleet: bool = True) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "tasks.py").touch()
    if fleet:
        (root / "fleet").mkdir()
    return root


def test_our_own_checkout() -> None:
    assert find_roots(environ=EMPTY).data == PACKAGE.parent


def test_a_checkout_without_consumer(tmp_path: Path) -> None:
    package = checkout(tmp_path / "infra")
    (tmp_path / "infra" / "tasks.py").touch()
    (tmp_path / "infra" / "fleet").mkdir()
    assert find_roots(package=package, environ=EMPTY) == Roots(tmp_path / "infra")


def test_a_mount_finds_its_consumer_wherever_it_is_called(tmp_path: Path) -> None:
    package = checkout(consumer(tmp_path / "project") / "vendor" / "infra")
    found = find_roots(package=package, environ=EMPTY, cwd=Path("/"))
    assert found == Roots(package.parent, tmp_path / "project" / "fleet")


def test_the_nearest_tasks_file_decides(tmp_path: Path) -> None:
    consumer(tmp_path)
    package = checkout(consumer(tmp_path / "project", fleet=False) / "infra")
    assert find_roots(package=package, environ=EMPTY).overlay is None


def test_a_wheel_looks_upward_from_the_current_folder(tmp_path: Path) -> None:
    package = wheel(tmp_path / "site-packages")
    project = consumer(tmp_path / "project")
    deep = project / "a" / "b"
    deep.mkdir(parents=True)
    data = package / "_data"
    assert find_roots(package=package, environ=EMPTY, cwd=deep) == Roots(data, project / "fleet")
    assert find_roots(package=package, environ=EMPTY, cwd=tmp_path) == Roots(data)


def test_an_argument_wins_over_the_environment_over_the_consumer(tmp_path: Path) -> None:
    package = checkout(consumer(tmp_path / "project") / "infra")
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    environ = {"INFERBASE_OVERLAY": str(two)}
    assert find_roots(one, package=package, environ=environ).overlay == one
    assert find_roots(package=package, environ=environ).overlay == two
    assert find_roots("one", package=package, environ=environ, cwd=tmp_path).overlay == one
    empty = {"INFERBASE_OVERLAY": ""}
    assert find_roots(package=package, environ=empty).overlay == tmp_path / "project" / "fleet"


@pytest.mark.parametrize("environ", [{}, {"INFERBASE_OVERLAY": "nowhere"}])
def test_a_named_overlay_must_exist(environ: dict[str, str], tmp_path: Path) -> None:
    package = checkout(tmp_path / "infra")
    argument = None if environ else "nowhere"
    with pytest.raises(FleetError) as caught:
        find_roots(argument, package=package, environ=environ, cwd=tmp_path)
    assert caught.value.what == f"the overlay folder {tmp_path / 'nowhere'} does not exist"
    assert caught.value.code == 64


@pytest.mark.parametrize("missing", FOLDERS)
def test_an_engine_without_its_data_folders(missing: str, tmp_path: Path) -> None:
    package = checkout(tmp_path / "site-packages")
    (package.parent / missing).rmdir()
    with pytest.raises(FleetError) as caught:
        find_roots(package=package, environ=EMPTY, cwd=tmp_path)
    assert caught.value.what == "the engine is installed without its data folders"
    assert caught.value.code == 64


def submodule(project: Path, name: str) -> Path:
    (project / name).mkdir(parents=True)
    (project / ".gitmodules").write_text(f'[submodule "{name}"]\n\tpath = {name}\n\turl = ../x\n')
    return project / name


def test_an_empty_submodule_is_named(tmp_path: Path) -> None:
    mount = submodule(tmp_path / "project", "infra")
    package = tmp_path / "site-packages" / "inferfleet"
    package.mkdir(parents=True)
    with pytest.raises(FleetError) as caught:
        find_roots(package=package, environ=EMPTY, cwd=tmp_path / "project")
    assert str(caught.value) == (
        f"the git submodule {mount} is empty\nhint: run: git submodule update --init"
    )
    (mount / "file").touch()
    with pytest.raises(FleetError, match="installed without its data folders"):
        find_roots(package=package, environ=EMPTY, cwd=tmp_path / "project")


def test_an_empty_overlay_is_an_error_only_as_a_submodule(tmp_path: Path) -> None:
    package = checkout(tmp_path / "infra")
    overlay = submodule(tmp_path / "project", "fleet")
    with pytest.raises(FleetError, match="is empty"):
        find_roots(overlay, package=package, environ=EMPTY)
    (tmp_path / "project" / ".gitmodules").unlink()
    assert find_roots(overlay, package=package, environ=EMPTY).overlay == overlay


def test_folders_and_templates_that_exist(tmp_path: Path) -> None:
    ours, theirs = folders(tmp_path / "ours"), tmp_path / "theirs"
    (theirs / "templates").mkdir(parents=True)
    roots = Roots(ours, theirs)
    assert roots.folders("inventory") == (ours / "inventory",)
    assert roots.template_dirs == (theirs / "templates", ours / "templates")
    assert Roots(ours).template_dirs == (ours / "templates",)


def test_display(tmp_path: Path) -> None:
    assert display(tmp_path / "a" / "b", tmp_path) == "a/b"
    assert display(tmp_path / "a", tmp_path / "b") == str(tmp_path / "a")
