"""The door, seen from a consumer: its name, its engine, its overlay, its other names, its shell."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import render_cases
from invoke.config import Config
from invoke.context import Context

from inferfleet.operations.doctor import FAIL, PASS, _engine
from inferfleet.operations.shell import shell_script
from inferfleet.tasks.edge import as_called, overlay

REPOSITORY = Path(__file__).resolve().parents[2]
CONSUMER = """\
from invoke.collection import Collection
from infra import tasks as infra
ns = Collection()
ns.add_collection(Collection.from_module(infra))
"""


def invoke(folder: Path, *words: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "INFERBASE", "INVOKE"))
    }
    env |= {"PYTHONPATH": str(path)} if path else {}
    return subprocess.run(
        [sys.executable, "-m", "invoke", *words],
        cwd=folder, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A consumer whose mount has its own engine."""
    folder = tmp_path / "app"
    skip = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(REPOSITORY / "inferfleet", folder / "infra/inferfleet", ignore=skip)
    for name in ("inventory", "services", "hostprep", "templates"):
        (folder / "infra" / name).symlink_to(REPOSITORY / name)
    shutil.copy(REPOSITORY / "tasks.py", folder / "infra")
    (folder / "tasks.py").write_text(CONSUMER)
    return folder


def test_tasks_are_named_after_the_mount(app: Path) -> None:
    listed = invoke(app, "--list", path=app / "infra")
    assert listed.returncode == 0, listed.stderr
    assert "  infra.up (infra.start) " in listed.stdout
    assert "  infra.down (infra.stop) " in listed.stdout
    assert "  infra.status (infra.ps) " in listed.stdout
    done = invoke(app, "infra.shell", "--command", "echo $((6 * 7)); exit 9", path=app / "infra")
    assert (done.stdout, done.returncode) == ("42\n", 9), done.stderr


def test_another_engine_is_refused(app: Path) -> None:
    done = invoke(app, "--list", path=REPOSITORY)
    assert done.returncode == 64
    assert done.stdout == ""
    assert done.stderr == (
        f"error: the tasks of {app}/infra found another engine: {REPOSITORY}/inferfleet\n"
        f"hint: `pip install -e {app}/infra`, or remove that one: `pip uninstall inferbase`\n"
    )


def test_the_doctor_knows_of_another_engine(app: Path) -> None:
    assert _engine("(here)", app).verdict == PASS
    (app / ".gitmodules").write_text('[submodule "infra"]\n\tpath = infra\n')
    (app / "src").mkdir()
    found = _engine("(here)", app / "src")
    assert found.verdict == FAIL
    assert str(app / "infra") in found.detail
    assert found.remedy == f"pip install -e {app / 'infra'}"


def test_an_overlay_in_invoke_yaml_counts_from_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "invoke.yaml").write_text("inferbase: {overlay: deploy/fleet}\n")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    config = Config(project_location=str(tmp_path))
    config.load_project()
    assert overlay(Context(config)) == str(tmp_path / "deploy/fleet")
    monkeypatch.setenv("INVOKE_INFERBASE_OVERLAY", "here")
    config.load_shell_env()
    assert overlay(Context(config)) == "here"
    assert overlay(Context(Config())) is None


def test_messages_name_tasks_as_they_were_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["invoke", "infra.stop", "--yes"])
    assert as_called("see `invoke status`") == "see `invoke infra.status`"


def test_a_command_runs_where_it_was_asked_for(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\nprintf "%s|" "$@"\nexit 5\n')
    docker.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def run(script: str) -> tuple[str, int]:
        done = subprocess.run(
            ["sh", "-c", script], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        return done.stdout, done.returncode

    spark = render_cases.render_case("spark")
    service, unit = next(iter(spark.units.items()))
    words = 'nvidia-smi -L; echo "it\'s"'
    script = shell_script(spark, service, words)
    assert run(script) == (f"exec|-i|{unit.name}|sh|-c|{words}|", 5)
    assert run(shell_script(spark, service, "")) == (f"exec|-i|{unit.name}|sh|", 5)
    assert run(shell_script(spark, None, "printf '%s' \"a  b\"; exit 3")) == ("a  b", 3)
    native = render_cases.render_case("laptop")
    script = shell_script(native, "smollm2", "pwd")
    assert script.startswith(f"cd {shlex.quote(native.root)} && ")
