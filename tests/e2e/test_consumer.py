"""A consuming repository: mounted as a submodule, uninstalled and installed, with an overlay."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from e2e.fleet import ANSWER, QUESTION, REPOSITORY, Ran
from ports import free_port

TASKS = """\
from invoke.collection import Collection
from {package} import tasks as infra            # git submodule at ./infra
ns = Collection()
ns.add_collection(Collection.from_module(infra))
"""
# A kind of the consumer's own.
TINY = {
    "summary": "the embedded server under a name of the consumer's",
    "api": "openai",
    "default-port": 18080,
    "model": {"required": True},
    "health": {"path": "/health", "loading": [503]},
    "probe": "openai-chat",
    "process": {
        "command": ["{program}", ["--model", "{model}"]],
        "embedded": [
            ["{embedded}", "--die-with-parent"],
            ["--model", "{model}"],
            ["--alias", "{served-name}"],
            ["--host", "{bind}", "--port", "{port}"],
        ],
    },
}


def git(folder: Path, *words: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *words],
        cwd=folder,
        check=True,
        capture_output=True,
    )


def copy_project(target: Path) -> None:
    """The working tree as git would have it: tracked files and new ones that are not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    ).stdout.split(b"\0")
    for name in filter(None, map(os.fsdecode, listed)):
        source, copy = REPOSITORY / name, target / name
        if source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)


class Consumer:
    """A git repository with the project at `mount`, the four-line tasks.py and an overlay."""

    def __init__(self, folder: Path, mount: str = "infra") -> None:
        self.folder = folder / "consumer"
        self.home = folder / "home"
        self.home.mkdir()
        self.infra = self.folder / mount
        copy_project(self.infra)
        git(self.folder, "init", "-q")
        package = mount.replace("/", ".")
        (self.folder / "tasks.py").write_text(TASKS.format(package=package))
        self.python = folder / "env" / "bin" / "python"
        self._environment()

    def _environment(self) -> None:
        """An environment with the dependencies and nothing of this project."""
        venv.create(self.python.parents[1], with_pip=False, symlinks=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        site = self.python.parents[1] / "lib" / version / "site-packages"
        # A path from a .pth file is not searched for further .pth files, so an editable
        # install of this project in the environment of the tests does not get in.
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        # An editable install also leaves a folder inferfleet/_data, which is not the package.
        done = self.run(self.python, "-c", "import inferfleet.errors", cwd=self.home)
        if "No module named 'inferfleet" not in done.err:
            pytest.fail("inferfleet is installed in the environment of the tests")

    def overlay(self, folder: str, name: str, content: object) -> None:
        path = self.folder / "fleet" / folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content))

    def run(self, *argv: str | Path, cwd: Path | None = None, **env: str) -> Ran:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("INFERBASE_", "VIRTUAL"))}
        done = subprocess.run(
            [str(word) for word in argv],
            cwd=cwd or self.folder,
            env={**kept, "HOME": str(self.home), **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def invoke(self, *words: str) -> Ran:
        return self.run(self.python, "-m", "invoke", *words)

    def code(self, text: str) -> Ran:
        """Python of the consumer's own, after its tasks made the engine importable."""
        return self.run(self.python, "-c", f"import tasks\n{text}")


def chat(base_url: str) -> str:
    request = urllib.request.Request(
        f"{base_url}/chat/completions",
        json.dumps(QUESTION).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        text: str = json.load(reply)["choices"][0]["message"]["content"]
    return text.strip()


@pytest.fixture
def consumer(tmp_path: Path) -> Iterator[Consumer]:
    made = Consumer(tmp_path)
    yield made
    made.invoke("infra.down", "--host", "bench")


def test_uninstalled_with_an_overlay(consumer: Consumer, gguf: Path) -> None:
    """Only the dependencies are present; the consumer adds a machine and a kind of its own."""
    port = free_port()
    consumer.overlay("services", "tiny", TINY)
    consumer.overlay(
        "inventory",
        "bench",
        {
            "root": "~/bench",
            "runtime": "process",
            "services": {"tiny-1": {"kind": "tiny", "model": str(gguf), "port": port}},
        },
    )
    # The default machine of the submodule gets another port without a change to the submodule.
    consumer.overlay("inventory", "local", {"services": {"smollm2": {"port": 18099}}})
    git(consumer.infra, "init", "-q")
    git(consumer.infra, "add", "-A")
    git(consumer.infra, "commit", "-qm", "as mounted")

    listed = consumer.invoke("--list")
    assert listed.rc == 0, listed
    for task in ("infra.up", "infra.health", "infra.inventory.list", "infra.update-models"):
        assert f"  {task} " in listed.out
    up = consumer.invoke("infra.up", "--host", "bench")
    assert up.rc == 0, up
    assert f"http://127.0.0.1:{port}/v1" in up.err
    assert "infra.down --host bench" in up.err

    found = consumer.code(
        "from inferfleet import endpoint\n"
        "print(endpoint('tiny-1').base_url)\nprint(endpoint('smollm2').base_url)"
    )
    assert found.rc == 0, found
    assert found.out.split() == [f"http://127.0.0.1:{port}/v1", "http://127.0.0.1:18099/v1"]
    assert chat(found.out.split()[0]) == ANSWER
    health = consumer.invoke("infra.health", "--host", "bench", "--format", "json")
    assert health.rc == 0, health
    assert health.data[0]["ready"] is True
    again = consumer.invoke("infra.up", "--host", "bench")
    assert again.rc == 0, again
    assert "nothing to change" in again.err

    down = consumer.invoke("infra.down", "--host", "bench")
    assert down.rc == 0, down
    assert consumer.invoke("infra.health", "--host", "bench").rc == 3
    status = consumer.run("git", "status", "--porcelain", cwd=consumer.infra)
    assert status.out == ""

    wrong = consumer.invoke("infra.plan", "--host", "bench", "--service", "tiny-2")
    assert wrong.rc == 64, wrong
    assert "did you mean tiny-1?" in wrong.err
    consumer.overlay("inventory", "bench", {"runtime": "process", "prot": 1})
    consumer.overlay("inventory", "other", {"services": {"x": {"kind": "tinny"}}})
    broken = consumer.invoke("infra.plan", "--host", "bench")
    assert broken.rc == 64, broken
    assert broken.err.count("error: ") == 2
    assert "error: fleet/inventory/bench.yaml:1:1: prot: unknown key" in broken.err
    assert "error: fleet/inventory/other.yaml:" in broken.err
    assert "did you mean tiny?" in broken.err


def test_nested_mount(tmp_path: Path) -> None:
    consumer = Consumer(tmp_path, "vendor/infra")
    consumer.overlay("inventory", "bench", {"root": "~/bench", "runtime": "process"})
    shown = consumer.invoke("infra.inventory.list", "--format", "json")
    assert shown.rc == 0, shown
    assert {"bench", "local"} <= {row["machine"] for row in shown.data}
    found = consumer.code("from inferfleet import endpoint\nprint(endpoint('smollm2').url)")
    assert (found.rc, found.out) == (0, "http://127.0.0.1:8080\n"), found


def test_installed_editable_with_uv(tmp_path: Path) -> None:
    """`uv add --editable ./infra`, then the engine is importable without tasks.py."""
    consumer = Consumer(tmp_path)
    consumer.overlay("inventory", "bench", {"root": "~/bench", "runtime": "process"})
    (consumer.folder / "pyproject.toml").write_text(
        '[project]\nname = "consumer"\nversion = "0"\nrequires-python = ">=3.11"\n'
    )
    tools = tmp_path / "tools"
    venv.create(tools, with_pip=True, symlinks=True)
    got = consumer.run(tools / "bin" / "pip", "install", "--quiet", "uv", HOME=os.environ["HOME"])
    assert got.rc == 0, got
    index = consumer.run(tools / "bin" / "pip", "config", "get", "global.index-url")
    # uv does not read pip's configuration.
    settings = {"UV_DEFAULT_INDEX": index.out.strip()} if index.rc == 0 else {}
    added = consumer.run(
        tools / "bin" / "uv", "add", "--editable", "./infra", "--python", sys.executable,
        HOME=os.environ["HOME"], **settings,
    )  # fmt: skip
    assert added.rc == 0, added
    python = consumer.folder / ".venv" / "bin" / "python"
    found = consumer.run(
        python, "-c", "import inferfleet; print(inferfleet.endpoint('smollm2').base_url)"
    )
    assert (found.rc, found.out) == (0, "http://127.0.0.1:8080/v1\n"), found
    listed = consumer.run(python, "-m", "invoke", "infra.inventory.list", "--format", "json")
    assert listed.rc == 0, listed
    assert {"bench", "local"} <= {row["machine"] for row in listed.data}


def test_an_engine_without_its_data_folders_says_so(tmp_path: Path) -> None:
    """A copy of the package alone, and the same beside a submodule that is not checked out."""
    consumer = Consumer(tmp_path)
    alone = tmp_path / "alone"
    shutil.copytree(REPOSITORY / "inferfleet", alone / "inferfleet")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = (
        "from inferfleet import endpoint, FleetError\n"
        "try:\n    endpoint('smollm2')\nexcept FleetError as error:\n    print(error)"
    )
    said = consumer.run(consumer.python, "-c", code, cwd=elsewhere, PYTHONPATH=str(alone))
    assert said.out.splitlines()[0] == "the engine is installed without its data folders", said
    assert "uv add --editable ./infra" in said.out

    shutil.rmtree(consumer.infra)
    consumer.infra.mkdir()
    (consumer.folder / ".gitmodules").write_text(
        '[submodule "infra"]\n\tpath = infra\n\turl = https://git.example.org/infra\n'
    )
    said = consumer.run(consumer.python, "-c", code, PYTHONPATH=str(alone))
    assert said.out.splitlines()[0] == f"the git submodule {consumer.infra} is empty", said
    assert "git submodule update --init" in said.out
    # Python itself speaks when the mount is empty; the README has the sentence for that.
    empty = consumer.invoke("--list")
    assert empty.rc != 0
    assert "cannot import name 'tasks'" in empty.err
    assert "git submodule update --init" in (REPOSITORY / "README.md").read_text()
