"""Every `sh` block of the documents runs, in order, page by page, in a fresh clone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from doc_pages import PAGES, REPOSITORY, read_page
from ports import free_port

RUNNABLE = [page for page in map(read_page, PAGES) if page.of("sh")]
URL = "https://example.org/inferbase.git"
# The ports that the documents name for this machine.
PORTS = re.compile(r"\b80[89]\d\b")
STATE = ".local/share/inferbase"


def git(folder: Path, *words: str) -> None:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def files() -> list[str]:
    """What a clone would have once everything here is committed."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in done.stdout.split("\0") if name and (REPOSITORY / name).is_file()]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder that keeps the model, so that only the first page downloads it."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def ports():
    """Documented port -> a free one, the same on every page of a test."""
    found: dict[str, str] = {}
    return lambda text: PORTS.sub(lambda m: found.setdefault(m[0], str(free_port())), text)


@pytest.fixture
def clone(tmp_path, ports):
    """A clone with another port, whose .venv is the environment that runs the tests."""
    folder = tmp_path / "inferbase"
    for name in files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, folder / name)
    local = folder / "inventory/local.yaml"
    local.write_text(ports(local.read_text()))
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "clone")
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


@pytest.fixture
def home(tmp_path, clone, kept):
    """A home with the kept model; what the page started is stopped afterwards."""
    folder = tmp_path / "home"
    (folder / STATE).mkdir(parents=True)
    (folder / ".gitconfig").write_text(
        f'[url "{clone}"]\n\tinsteadOf = {URL}\n[protocol "file"]\n\tallow = always\n'
        "[init]\n\tdefaultBranch = main\n"
    )
    copy(kept / "models", folder / STATE / "models")
    yield folder
    control = folder / STATE / "current/control"
    if control.exists():
        subprocess.run(["sh", str(control), "stop"], check=True)
    copy(folder / STATE / "models", kept / "models")


def copy(source: Path, target: Path) -> None:
    """A copy that shares the files' bytes, unless it is there or has no source."""
    if source.is_dir() and not target.exists():
        shutil.copytree(source, target, symlinks=True, copy_function=os.link)


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.name)
def test_blocks_run(page, clone, home, ports):
    lines = [ports(without_install(block.text)) for block in page.of("sh")]
    # infra: the submodule of a consumer comes before an installed copy, as in an editable install.
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("INFERBASE_", "PYTEST_"))},
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": "infra:.",
        "PIP_CACHE_DIR": os.environ.get("PIP_CACHE_DIR", str(Path.home() / ".cache/pip")),
    }
    done = subprocess.run(
        ["sh", "-eux", "-c", "".join(lines)],
        cwd=clone,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert "Traceback" not in done.stdout


def without_install(text: str) -> str:
    """The quick start without what .ci/run does with it: environment, pip, the tests themselves."""
    parts = text.rstrip("\n").split(" && ")
    if not any("pip install" in part for part in parts):
        return text
    kept = [p for p in parts if not re.search(r"-m venv|pip install|-m pytest", p)]
    return " && ".join(kept) + "\n"


def test_only_the_install_is_left_out():
    quick = read_page(REPOSITORY / "README.md").of("sh")[:2]
    assert [without_install(block.text).strip() for block in quick] == [".venv/bin/invoke up", ""]
    assert without_install("mkdir app && cd app\n") == "mkdir app && cd app\n"
